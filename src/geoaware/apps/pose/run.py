"""A run of pose prediction: the file that an interruption cannot harm, and what makes two runs the same.

Finished images are appended to ``FILE.part``, one whole line at a time, as `evaluation.predict` does it. When
all are there, ``FILE`` is written in their order and the part file is removed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from geoaware.apps.pose.predict import PosePrediction, PosePredictor, PoseSettings
from geoaware.apps.pose.templates import DIRECTIONS, TemplateSets
from geoaware.data.files import reading
from geoaware.evaluation.predictions import PART, versions
from geoaware.matcher import Matcher
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, NotFiniteError, stop
from geoaware.runs.files import (
    append_line,
    check_own,
    check_same_run,
    discard,
    open_part,
    reading_part,
    replacing,
    whole_lines,
)
from geoaware.runs.progress import Tell, silent

FORMAT = "geoaware poses"
FORMAT_VERSION = 1
_WHAT = "predicting poses"


@dataclass(frozen=True)
class PoseWork:
    """Everything that decides the predictions of a run.

    Attributes:
        matcher: whose features are compared.
        templates: template sets by category.
        images: to predict; each is compared with the templates of its own category.
        settings: see there.
        about: what the images are (dataset, split …), as it will stand in the file.
    """

    matcher: Matcher
    templates: Mapping[str, TemplateSets]
    images: Sequence[AnnotatedImage]
    settings: PoseSettings = field(default_factory=PoseSettings)
    about: Mapping[str, Any] = field(default_factory=dict)

    def header(self) -> dict[str, Any]:
        """What was predicted with what, without time and place, so that runs can be compared."""
        provenance = self.matcher.extractor.provenance()
        shown = [
            members[pose]
            for _, sets in sorted(self.templates.items())
            for _, members in sorted(sets.items())
            for pose in DIRECTIONS
        ]
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **self.about,
            "extractor": self.matcher.identity,
            "settings": {
                **asdict(self.settings),
                # The blend stands in the extractor's identity.
                **{key: value for key, value in provenance.settings.items() if key != "blend"},
            },
            "versions": versions(),
            "hashes": {
                **provenance.hashes,
                "pictures": _hash_images(self.images, self.settings.masks),
                "templates": _hash_images(shown, self.settings.template_masks),
            },
            "templates": {
                category: {
                    name: {pose: members[pose].id for pose in DIRECTIONS} for name, members in sets.items()
                }
                for category, sets in self.templates.items()
            },
        }


def predict_poses(
    work: PoseWork,
    path: str | os.PathLike[str] | None = None,
    *,
    restart: bool = False,
    progress: Tell = silent,
    failed: Callable[[str, Exception], None] = stop,
) -> list[PosePrediction]:
    """Predict the pose of every image, in their order.

    Images are extracted one at a time, category by category, with the templates of one category in memory.

    Args:
        work: what to predict with what.
        path: a JSON file to write. Until it is whole, ``.part`` beside it holds what is done, so that the
            same call goes on after an interruption. A whole file of the same work is read instead.
        restart: discard what an earlier run left.
        progress: told of every image.
        failed: told of an image that cannot be used, which is left out. A whole file keeps the reasons.

    Raises:
        InputError: there are no images, a category has no templates, a file of another run is in the way, or
            an image or mask cannot be used.
    """
    if not work.images:
        raise InputError("there are no images to predict the pose of")
    bare = sorted({each.category for each in work.images if not work.templates.get(each.category)})
    if bare:
        raise InputError(f"category {bare[0]!r} has images to predict and no template set")
    if path is None:
        return _run(work, {}, lambda _: None, progress, failed)
    header, goal = json.loads(json.dumps(work.header())), Path(path)
    part = goal.with_name(goal.name + PART)
    for each in (goal, part):
        check_own(each, f'{{"format":"{FORMAT}"')
    if goal.exists() and not restart:
        found = _read_whole(goal, header, failed)
        progress(_WHAT, len(found), len(found))
        return found
    with open_part(part, restart) as file:
        if restart:
            discard(goal)
        done, without = _resume(file, part, header), dict[str, str]()

        def fail(image: str, error: Exception) -> None:
            without[image] = str(error)
            failed(image, error)

        found = _run(work, done, lambda each: append_line(file, _line(each.to_dict())), progress, fail)
        content = {
            **header,
            **({"failed": without} if without else {}),
            "poses": [each.to_dict() for each in found],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        with replacing(goal) as draft:
            draft.write_bytes(text.encode(errors="backslashreplace"))  # as `append_line` does
    part.unlink(missing_ok=True)
    return found


def _run(
    work: PoseWork,
    done: dict[str, PosePrediction],
    keep: Callable[[PosePrediction], None],
    progress: Tell,
    failed: Callable[[str, Exception], None],
) -> list[PosePrediction]:
    """Predict what is not done yet; the templates of a category are encoded when its first image comes."""
    progress(_WHAT, len(done), len(work.images))
    current, predictor, last = None, None, None
    for image in sorted(work.images, key=lambda each: each.category):
        if image.id in done:
            continue
        if predictor is None or image.category != current:
            predictor = None  # Free the last category's templates before the next ones are encoded.
            current = image.category
            predictor = PosePredictor(work.matcher, work.templates[current], work.settings)
        try:
            found = PosePrediction(image.id, image.category, predictor.distances(image))
        except (InputError, NotFiniteError) as error:
            failed(image.id, error)
            last = error
            continue
        keep(found)
        done[image.id] = found
        progress(_WHAT, len(done), len(work.images))
    if last is not None and not done:
        raise last
    return [done[each.id] for each in work.images if each.id in done]


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _resume(file: BinaryIO, part: Path, header: dict[str, Any]) -> dict[str, PosePrediction]:
    """The predictions that the part file already has; a new file gets its header."""
    done: dict[str, PosePrediction] = {}
    number = 0
    for number, line in whole_lines(file):
        content = _parse(line, f"{part}, line {number}")
        if number == 1:
            check_same_run(content, header, part)
        else:
            found = _prediction(content, f"{part}, line {number}")
            done[found.image] = found
    if not number:
        append_line(file, _line(header))
    return done


def _read_whole(
    goal: Path, header: dict[str, Any], failed: Callable[[str, Exception], None]
) -> list[PosePrediction]:
    content = _parse(goal.read_bytes(), str(goal))
    poses, without = content.pop("poses", None), content.pop("failed", {})
    check_same_run(content, header, goal)
    if not isinstance(poses, list) or not isinstance(without, dict):
        raise InputError(f"{goal}: holds no poses; predict again with a restart", parameter="restart")
    for image, why in without.items():
        failed(image, InputError(str(why)))
    return [_prediction(each, f"{goal}, pose {number}") for number, each in enumerate(poses, start=1)]


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(
            f"{where}: is not what `geoaware pose` writes; choose another file, or restart", "restart"
        )
    return content


def _prediction(content: Any, where: str) -> PosePrediction:
    with reading_part(where):
        distances = {
            str(name): {pose: float(each[pose]) for pose in DIRECTIONS}
            for name, each in content["distances"].items()
        }
        values = [value for each in distances.values() for value in each.values()]
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(values)
        return PosePrediction(str(content["picture"]), str(content["category"]), distances)


def _hash_images(images: Sequence[AnnotatedImage], masks: bool) -> str:
    """SHA-256 of ids, categories and the bytes of all files."""
    digest = hashlib.sha256()
    for each in images:
        with reading(each.path):
            parts = [json.dumps([each.id, each.category]).encode(), each.path.read_bytes()]
            if masks:
                drawn = json.dumps(each.attributes.get("segmentation"), sort_keys=True).encode()
                parts.append(drawn if each.mask_path is None else each.mask_path.read_bytes())
        for part in parts:
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
