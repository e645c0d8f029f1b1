"""Draw two animals and match them with the embedded extractor: the image of the README.

    python docs/images/make.py docs/images/matches.png

The repository carries no photograph; these animals are its own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from geoaware import Matcher

Colour = tuple[int, int, int]
PARTS = {
    "ear": (0.245, 0.2),
    "eye": (0.22, 0.285),
    "nose": (0.105, 0.345),
    "back": (0.55, 0.37),
    "tail": (0.87, 0.3),
    "left front paw": (0.36, 0.86),
    "left back paw": (0.745, 0.86),
}


@dataclass(frozen=True)
class Look:
    """What tells one drawn animal from the other."""

    size: tuple[int, int]
    sky: Colour
    ground: Colour
    coat: Colour
    dark: Colour
    squeeze: float
    seed: int


def animal(look: Look) -> Image.Image:
    """A four-legged animal that looks to the left, softly shaded, on a meadow."""
    scale = 3
    width, height = (side * scale for side in look.size)
    image = Image.new("RGB", (width, height), look.sky)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0.68 * height, width, height), fill=look.ground)
    _grass(draw, look, width, height)

    def place(x: float, y: float) -> tuple[float, float]:
        return (0.5 + (x - 0.5) * look.squeeze) * width, y * height

    def blob(colour: Colour, x: float, y: float, rx: float, ry: float) -> None:
        (left, top), (right, bottom) = place(x - rx, y - ry), place(x + rx, y + ry)
        draw.ellipse((left, top, right, bottom), fill=colour)

    def limb(colour: Colour, thickness: float, *points: tuple[float, float]) -> None:
        draw.line(
            [place(*point) for point in points], fill=colour, width=int(thickness * height), joint="curve"
        )
        for x, y in points:
            radius = thickness * height / 2
            cx, cy = place(x, y)
            draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=colour)

    for x in (0.42, 0.68):  # the far legs
        limb(look.dark, 0.06, (x, 0.55), (x + 0.01, 0.7), (x - 0.01, 0.84))
    limb(look.coat, 0.045, (0.78, 0.42), (0.84, 0.36), (0.87, 0.27))  # tail
    limb(look.coat, 0.16, (0.38, 0.47), (0.28, 0.33))  # neck
    blob(look.coat, 0.57, 0.49, 0.25, 0.135)
    limb(look.coat, 0.075, (0.36, 0.53), (0.37, 0.7), (0.355, 0.85))
    limb(look.coat, 0.085, (0.75, 0.52), (0.765, 0.69), (0.74, 0.85))
    for x in (0.355, 0.74):
        blob(look.dark, x - 0.015, 0.865, 0.035, 0.02)
    blob(look.coat, 0.22, 0.3, 0.085, 0.085)
    blob(look.coat, 0.15, 0.345, 0.065, 0.045)
    draw.polygon([place(0.22, 0.24), place(0.25, 0.13), place(0.295, 0.27)], fill=look.dark)
    blob(look.dark, 0.098, 0.335, 0.02, 0.016)
    blob((250, 250, 245), 0.212, 0.288, 0.019, 0.017)
    blob((20, 20, 20), 0.208, 0.288, 0.01, 0.012)
    draw.line([place(0.1, 0.37), place(0.15, 0.375)], fill=look.dark, width=scale * 2)
    return _textured(image.resize(look.size, Image.Resampling.LANCZOS), look.seed)


def _grass(draw: ImageDraw.ImageDraw, look: Look, width: int, height: int) -> None:
    generator = np.random.default_rng(look.seed)
    for x, y, lean in generator.random((700, 3)):
        top = (0.68 + 0.32 * y) * height
        shade = tuple(int(value * (0.75 + 0.5 * lean)) for value in look.ground)
        draw.line(
            (x * width, top, (x + 0.01 * (lean - 0.5)) * width, top - 0.04 * height), fill=shade, width=4
        )


def _textured(image: Image.Image, seed: int) -> Image.Image:
    """The image with the grain and soft light of a photograph."""
    generator = np.random.default_rng(seed)
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32)
    grain = generator.normal(0, 7, values.shape[:2])[..., None]
    light = np.linspace(1.12, 0.86, values.shape[0])[:, None, None]
    return Image.fromarray(np.clip(values * light + grain, 0, 255).astype(np.uint8))


LOOKS = (
    Look((420, 360), (168, 201, 224), (104, 142, 72), (196, 128, 62), (92, 52, 28), 1.0, 1),
    Look((460, 320), (214, 205, 190), (150, 128, 86), (120, 122, 128), (52, 52, 60), 0.82, 2),
)


def main(path: Path) -> None:
    """Write the image and print the matches."""
    first, second = (animal(look) for look in LOOKS)
    points = [(x * first.width, y * first.height) for x, y in PARTS.values()]
    result = Matcher.from_pretrained("lite", device="cpu").match(first, second, points)
    result.draw(labels=list(PARTS), height=360).save(path)
    print(result.to_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
