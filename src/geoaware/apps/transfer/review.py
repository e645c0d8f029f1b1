"""A gallery of a result, to look at what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoaware.apps.transfer.coco_out import read_results, read_run
from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.targets import Targets
from geoaware.data.exif import turned_pixels, turned_points
from geoaware.data.formats.hub import VISIBLE
from geoaware.data.images import Frame, image_frame
from geoaware.data.masks import decode_segmentation
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage
from geoaware.report.gallery import Entry, Match, write_gallery
from geoaware.runs.errors import InputError
from geoaware.runs.files import reading_part


def write_review(out: Path, sources: Sources, targets: Targets, page: Path, most: int = 200) -> Path:
    """Write a page that shows a result: each target beside the source that fitted it best.

    Args:
        out: the result; with guesses, the keypoints below the threshold are shown too, hollow.
        sources: of the run.
        targets: of the run.
        page: HTML file to write.
        most: targets at most, spread evenly over the result.

    Raises:
        InputError: there is nothing to show, or the page cannot be written.
    """
    info = read_run(out) or {}
    there = info.get("objects", len(targets) - info["failed_targets"])
    if not there:
        why = "no object was found" if "objects" in info else "every target failed"
        raise InputError(f"{out}: {why}, so there is nothing to review")
    step = -(-there // most)
    with reading_part(str(out)):
        run = info["run"]
        about = {
            "Result": out.name,
            "Sources": f"{len(sources.images)} images of {sources.path.name}",
            "Shown": f"{-(-there // step)} of {there} targets" + (f", one in {step}" if step > 1 else ""),
            "Features": run["extractor"],
            "Threshold": f"{run['settings']['threshold']:g}; less probable keypoints are not visible",
            "Probability": info["calibration"]["origin"],
        }
    what = "objects" if "objects" in info else "images"
    title = f"{sources.name}: {there} {what} annotated from {len(sources.images)}"
    masks = "carry_masks" in run["settings"]
    return write_gallery(_entries(out, sources, targets, step, masks), page, title=title, about=about)


def _entries(out: Path, sources: Sources, targets: Targets, step: int, masks: bool) -> Iterator[Entry]:
    images = {each.id: each for each in sources.images}
    with reading_part(str(out)):
        for image, found in islice(read_results(out), 0, None, step):
            source = images[found["source"]]
            visible = found["keypoints"][2::3].count(VISIBLE)
            seen = f"{visible} of {len(sources.schema)} keypoints visible"
            path = targets.path(image["file_name"])
            stored = Frame((image["width"], image["height"]), 1)
            if targets.exif == "stored":
                stored = Frame(stored.size, image_frame(path).orientation)
            yield Entry(
                f"{image['file_name']}#{found['id']}",
                sources.name,
                source.path,
                path,
                tuple(_matches(found, source, sources.schema, stored)),
                pose=found["pose"],
                note=f"{seen}, score {found['score']:.2f}",
                mask=_mask(found, stored) if masks else None,
            )


def _mask(found: Mapping[str, Any], stored: Frame) -> np.ndarray | None:
    """The object's mask on the upright image, if it has one."""
    if not found["segmentation"]:
        return None
    mask = decode_segmentation(found["segmentation"], stored.size, str(found["id"]))
    return turned_pixels(mask, stored.orientation)


def _matches(
    found: Mapping[str, Any], source: AnnotatedImage, schema: Schema, stored: Frame
) -> Iterator[Match]:
    """What is shown of each keypoint on the upright image, beside where the best-fitting source has it."""
    ids = source.keypoints.visible_ids
    places = dict(zip(ids, source.keypoints.at(ids).tolist(), strict=True))
    guesses = found.get("guesses") or [None] * len(schema)
    for each, name in enumerate(schema.names):
        x, y, flag = found["keypoints"][3 * each : 3 * each + 3]
        shown = (x, y) if flag else guesses[each]
        if shown is not None:
            xy = torch.tensor([[shown[0], shown[1]]], dtype=torch.float64)
            ((x, y),) = turned_points(xy, *stored).tolist()
            yield Match(
                str(name),
                each,
                tuple(places[each]) if each in places else None,
                (x, y),
                confidence=found["keypoint_scores"][each],
                visible=flag == VISIBLE,
            )
