"""What a matcher works with and gives back: encoded images, and matches that can be drawn and saved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from geoaware.method.geometry import Canvas, PointsLike, Pose, as_points, pose_image
from geoaware.method.matching import MatchSettings, descriptors, similarity
from geoaware.method.types import FeatureMap, Matches
from geoaware.runs.errors import InputError


@dataclass(repr=False)
class Encoded:
    """An image with its features, by pose, computed when first needed and kept.

    Attributes:
        image: upright RGB image; its pixels are those of all points.
        maps: features by pose.
        mask: the object in pixels of the image, boolean (h, w), if one was given.
    """

    image: Image.Image
    maps: dict[Pose, FeatureMap] = field(default_factory=dict)
    mask: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size

    def __repr__(self) -> str:
        width, height = self.size
        return f"<Encoded {width}x{height}, features of {', '.join(self.maps) or 'nothing yet'}>"


def as_png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    written = BytesIO()
    image.save(written, "png")
    return written.getvalue()


@dataclass(frozen=True, repr=False)
class MatchResult:
    """What `Matcher.match` found, with the images it was found in.

    Attributes:
        source: the encoded image of the points.
        target: the encoded image of the matches.
        queries: the points asked for, pixels of the source image.
        matches: positions, confidences, cycle errors, pose and distances.
        pose_setting: which poses were tried: a key of `alignment.CANDIDATES`.
        settings: how similarity became position.
        about: features, settings and versions; see `Matcher.describe`.
    """

    source: Encoded
    target: Encoded
    queries: Float[Tensor, "n 2"]
    matches: Matches
    pose_setting: str
    settings: MatchSettings
    about: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        low, high = self.confidence.aminmax() if len(self.points) else (0.0, 0.0)
        found = f", confidence {low:.2f} to {high:.2f}" if len(self.points) else ""
        return f"<MatchResult {len(self.points)} points, pose {self.pose}{found}>"

    def _repr_png_(self) -> bytes:
        """The picture of `draw`, which notebooks show."""
        return as_png(self.draw())

    @property
    def points(self) -> Float[Tensor, "n 2"]:
        """Pixels (x, y) of the target image."""
        return self.matches.points

    @property
    def confidence(self) -> Float[Tensor, " n"]:
        """0 to 1; see `Matches`."""
        return self.matches.confidence

    @property
    def cycle_error(self) -> Float[Tensor, " n"]:
        """In units of the source image's longer side; see `Matches`."""
        return self.matches.cycle_error

    @property
    def pose(self) -> Pose:
        """How the source was turned."""
        return self.matches.pose

    @property
    def distances(self) -> Mapping[Pose, float]:
        """Of each candidate pose."""
        return self.matches.distances

    def draw(self, **style: Any) -> Image.Image:
        """Both images side by side with numbered points; see `drawing.draw_matches` for the style."""
        from geoaware.drawing import draw_matches

        style = {"confidence": self.confidence, **style}
        return draw_matches(self.source.image, self.target.image, self.queries, self.points, **style)

    def similarity_map(self, index: int) -> Float[Tensor, "p p"]:
        """Cosine similarity of one query with every cell of the target's canvas.

        Raises:
            InputError: there is no such query.
        """
        if not 0 <= index < len(self.queries):
            raise InputError(f"there is no query {index}: the points are numbered 0…{len(self.queries) - 1}")
        read_from = self.source.maps[self.pose if self.matches.turned[index] else "identity"]
        query = descriptors(read_from, self.matches.read_at[index : index + 1], self.settings.interpolate)
        target = self.target.maps["identity"]
        return similarity(query.float(), target.data.float(), target.norms)[0]

    def heatmap(self, index: int) -> Image.Image:
        """The target image under the similarity map of one query."""
        from geoaware.drawing import draw_heatmap

        return draw_heatmap(
            self.target.image,
            self.similarity_map(index),
            self.target.maps["identity"].canvas,
            point=self.points[index],
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, in plain Python values."""
        figures = (self.queries, self.points, self.confidence, self.cycle_error)
        columns = (each.numpy(force=True).tolist() for each in figures)  # ten times as fast as torch's own
        matches = [
            {
                "query": [round(value, 2) for value in query],
                "match": [round(value, 2) for value in point],
                "confidence": round(confidence, 4),
                "cycle_error": round(cycle, 4),
            }
            for query, point, confidence, cycle in zip(*columns, strict=True)
        ]
        return {
            "source_size": list(self.source.size),
            "target_size": list(self.target.size),
            "pose_setting": self.pose_setting,
            "pose": self.pose,
            "distances": {pose: round(value, 5) for pose, value in self.distances.items()},
            "matches": matches,
            **self.about,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


def check_points(points: PointsLike, size: tuple[int, int]) -> Float[Tensor, "n 2"]:
    """Points of an image as float64 of shape (n, 2), after making sure that they lie in it.

    Raises:
        InputError: wrong shape, NaN or infinity, or outside 0…w-1, 0…h-1; the message names the point.
    """
    try:
        pixels = as_points(points).double()
    except (TypeError, ValueError) as error:
        raise InputError(f"points cannot be used: {error}") from None
    if pixels.ndim != 2:
        raise InputError(f"points must be a list of (x, y), got shape {tuple(pixels.shape)}")
    (x, y), (right, bottom) = pixels.unbind(1), size
    wrong = ~((x >= 0) & (x < right) & (y >= 0) & (y < bottom))  # as is NaN
    for number in wrong.nonzero()[:1].flatten().tolist():
        x, y = pixels[number].tolist()
        if not (math.isfinite(x) and math.isfinite(y)):
            raise InputError(f"point {number} is ({x}, {y}); coordinates must be finite numbers")
        raise InputError(
            f"point {number} ({x:g}, {y:g}) lies outside the image of {right}x{bottom} pixels "
            f"(x from 0 to {right - 1}, y from 0 to {bottom - 1})"
        )
    return pixels


def mask_on_canvas(mask: np.ndarray, pose: Pose, canvas: Canvas) -> Bool[Tensor, "s s"]:
    """A mask (h, w) of the upright image, turned to a pose and laid on the canvas of its image in it."""
    board = canvas.render(pose_image(Image.fromarray(mask), pose), "L", Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(board)) > 0
