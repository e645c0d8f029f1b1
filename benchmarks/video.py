"""What `geoaware transfer` makes of videos.

    python benchmarks/video.py accuracy --data DATA   PCK and jitter on badja, with smoothing and without
    python benchmarks/video.py decoding               what it costs to decode frames

BADJA annotates about every fifth frame of its clips. The clips are built from these: each frame stands at its
own number and is held until the next, and the annotated numbers are the targets.

PCK@0.10 is over the annotated keypoints of the frames that are no sources. Jitter says how far a keypoint
lies from the middle of its places in the annotated frames before and after, by their times, in per cent of
the box's longer side; twice that, so that it is the second difference where frames are evenly spaced. It is
over keypoints that are annotated in all three frames; annotations have some of it too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from machine import machine
from PIL import Image

from geoaware.apps.transfer import TransferSettings, list_targets, read_sources, transfer
from geoaware.data.video import frames, look_through, to_image
from geoaware.matcher import Matcher

CLIPS = ("dog", "cows")
PLANS = (("own", 1), ("own", 2), ("own", 5), ("other", 5))
"""Whose frames the sources are, and how many."""


@dataclass
class Clip:
    """A clip, and what is annotated in it, by number of the frame."""

    path: Path
    images: list[dict[str, Any]]
    numbers: list[int]
    truth: np.ndarray
    sides: np.ndarray


def number_of(image: dict[str, Any]) -> int:
    return int(image["file_name"].split("_")[1].split(".")[0])


def build(content: dict[str, Any], name: str, data: Path, folder: Path) -> Clip:
    images = sorted((each for each in content["images"] if each["file_name"].startswith(name)), key=number_of)
    numbers = [number_of(each) - number_of(images[0]) for each in images]
    path = folder / f"{name}.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=24, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = images[0]["width"], images[0]["height"], "yuv420p"
        for each, here, following in zip(images, numbers, [*numbers[1:], numbers[-1] + 1], strict=True):
            image = Image.open(data / "images" / each["file_name"]).convert("RGB")
            for _ in range(here, following):
                file.mux(stream.encode(av.VideoFrame.from_image(image)))
        file.mux(stream.encode())
    found = {each["image_id"]: each for each in content["annotations"]}
    points = np.array([found[each["id"]]["keypoints"] for each in images]).reshape(len(images), -1, 3)
    truth = np.where(points[..., 2:] > 1, points[..., :2], np.nan)
    return Clip(
        path, images, numbers, truth, np.array([max(found[each["id"]]["bbox"][2:]) for each in images])
    )


def sources_of(
    clip: Clip, content: dict[str, Any], count: int, draw: int, folder: Path
) -> tuple[Path, set[int]]:
    """A file of some of the clip's frames, and which they are."""
    rows = sorted(random.Random(draw).sample(range(len(clip.images)), count))
    images = [clip.images[row] for row in rows]
    ids = {each["id"] for each in images}
    annotations = [{**each, "category_id": 1} for each in content["annotations"] if each["image_id"] in ids]
    path = folder / "sources.json"
    changed = {"images": images, "annotations": annotations, "categories": content["categories"][:1]}
    path.write_text(json.dumps({**content, **changed}))
    return path, set(rows)


def figures(clip: Clip, found: np.ndarray, used: set[int]) -> tuple[float, float, float]:
    """PCK@0.10, jitter, and the jitter of the annotations."""
    rest = [row for row in range(len(clip.images)) if row not in used]
    visible = ~np.isnan(clip.truth[..., 0])
    away = np.linalg.norm(found - clip.truth, axis=-1) / clip.sides[:, None]
    right = np.nan_to_num(away, nan=np.inf) < 0.1

    def jitter(points: np.ndarray) -> float:
        values: list[float] = []
        for row in range(1, len(points) - 1):
            before, here, after = clip.numbers[row - 1 : row + 2]
            share = (here - before) / (after - before)
            middle = points[row - 1] * (1 - share) + points[row + 1] * share
            shaken = 2 * np.linalg.norm(points[row] - middle, axis=-1) / clip.sides[row]
            known = visible[row - 1 : row + 2].all(axis=0) & np.isfinite(found[row - 1 : row + 2, :, 0]).all(
                axis=0
            )
            values += shaken[known].tolist()
        return 100 * float(np.mean(values))

    return 100 * float(right[rest][visible[rest]].mean()), jitter(found), jitter(clip.truth)


def results(given: argparse.Namespace) -> Iterator[tuple[str, str, int, bool, tuple[float, float, float]]]:
    data = given.data / "badja"
    content = json.loads((data / "annotations.json").read_text())
    matcher = Matcher.from_pretrained("lite")
    settings = TransferSettings(threshold=0.0, keep_guesses=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = {name: build(content, name, data, folder) for name in CLIPS}
        for name, clip in clips.items():
            targets = list_targets([clip.path])
            rows = [targets.rows[number] for number in clip.numbers]
            for whose, count in PLANS:
                other = next(each for each in CLIPS if each != name)
                for draw in range(given.draws):
                    file, used = sources_of(
                        clips[name if whose == "own" else other], content, count, draw, folder
                    )
                    sources = read_sources(file, data / "images")
                    for smooth in (False, True):
                        out = folder / f"{name}-{whose}-{count}-{draw}.json"
                        some = replace(targets, rows=rows)
                        transfer(sources, some, matcher, out, settings, smooth=smooth)
                        found = [each["guesses"] for each in json.loads(out.read_text())["annotations"]]
                        points = np.array(
                            [[each[:2] if each else (np.nan,) * 2 for each in row] for row in found]
                        )
                        yield (
                            name,
                            whose,
                            count,
                            smooth,
                            figures(clip, points, used if whose == "own" else set()),
                        )


def accuracy(given: argparse.Namespace) -> None:
    print(f"{machine()}; lite, {given.draws} draws of sources")
    rows: dict[tuple[str, str, int], dict[bool, list[tuple[float, float, float]]]] = {}
    for name, whose, count, smooth, found in results(given):
        rows.setdefault((name, whose, count), {False: [], True: []})[smooth].append(found)

    def mean(values: Sequence[tuple[float, float, float]], place: int) -> float:
        return statistics.mean(each[place] for each in values)

    print("| clip | sources | PCK@0.10 | smoothed | jitter | smoothed | annotated |\n" + "|---" * 7 + "|")
    total = []
    for (name, whose, count), found in rows.items():
        line = [mean(found[smooth], place) for place in (0, 1) for smooth in (False, True)]
        total.append([*line, mean(found[True], 2)])
        text = " | ".join(f"{each:.1f}" for each in total[-1])
        print(f"| {name} | {count} of {'it' if whose == 'own' else 'the other'} | {text} |")
    print("| mean | | " + " | ".join(f"{each:.1f}" for each in np.mean(total, axis=0)) + " |")


def decoding(given: argparse.Namespace) -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        for width, height in ((854, 480), (1920, 1080), (3840, 2160)):
            path = Path(temporary) / f"{width}.mp4"
            noise = np.random.default_rng(0).integers(
                0, 256, (height // 8 + 40, width // 8 + 40, 3), np.uint8
            )
            scene = Image.fromarray(noise).resize((width + 320, height + 320), Image.Resampling.BICUBIC)
            with av.open(str(path), "w") as file:
                stream = file.add_stream("libx264", rate=25, options={"preset": "veryfast"})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                for each in range(100):
                    image = scene.crop((3 * each, 2 * each, 3 * each + width, 2 * each + height))
                    file.mux(stream.encode(av.VideoFrame.from_image(image)))
                file.mux(stream.encode())
            times = [time.process_time()]
            video = look_through(path)
            times.append(time.process_time())
            decoded = list(frames(video))[-1][1]
            times.append(time.process_time())
            for _ in range(10):
                to_image(video, decoded)
            times.append(time.process_time())
            looked, read, made = (1000 * (b - a) for a, b in pairwise(times))
            print(
                f"{width}x{height}: looking through 100 frames takes {looked:.0f} ms; a frame is decoded in "
                f"{read / 100:.1f} ms, and made an image in {made / 10:.1f} ms"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("accuracy", "decoding"))
    parser.add_argument("--data", type=Path, default=Path("DATA"), help="folder with badja")
    parser.add_argument("--draws", type=int, default=3, help="of sources")
    given = parser.parse_args()
    {"accuracy": accuracy, "decoding": decoding}[given.mode](given)


if __name__ == "__main__":
    main()
