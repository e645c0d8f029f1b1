"""A run of pose prediction: what makes two runs the same, and the file that is written."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geoaware.apps.pose.predict import PosePrediction, PosePredictor, PoseSettings
from geoaware.apps.pose.templates import DIRECTIONS, TemplateSets
from geoaware.data.files import reading
from geoaware.data.names import printable
from geoaware.evaluation.predictions import versions
from geoaware.matcher import Matcher
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, NotFiniteError, stop
from geoaware.runs.files import reading_part, record_line
from geoaware.runs.places import place
from geoaware.runs.progress import Tell, silent
from geoaware.runs.records import Records, Run, complete
from geoaware.runs.tables import is_table, read_about, read_rows, write_table
from geoaware.runs.work import Batch, Engine, Local

FORMAT = "geoaware poses"
FORMAT_VERSION = 1

COLUMNS = {
    **dict.fromkeys(("image", "category", "pose"), "string"),
    **{f"votes_{pose}": "int64" for pose in DIRECTIONS},
    "distances": f"list<set:string,{','.join(f'{pose}:double' for pose in DIRECTIONS)}>",
}
"""Kinds of the columns of a table; docs/scale.md says what they mean."""


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
        sets = (members for _, each in sorted(self.templates.items()) for _, members in sorted(each.items()))
        shown = [members[pose] for members in sets for pose in DIRECTIONS]
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
    engine: Engine | None = None,
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
        engine: what does the work; this process if not given.
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
    run = _Poses(work, failed)
    if path is not None:
        complete(run, place(path), engine, restart=restart, tell=progress)
        return run.predictions()
    progress(run.what, 0, len(run))
    for _, lines in (engine or Local()).results(run.job, run.batches()):
        if all(map(run.keeps, lines)):
            progress(run.what, len(run.found), len(run))
    return run.predictions()


class _Poses(Run):
    """The predictions of a run, whether they are made, read from its result, or from what is done so far.

    Attributes:
        found: by the images' numbers.
    """

    what = "predicting poses"
    begins = part_begins = f'{{"format":"{FORMAT}"'

    def __init__(self, work: PoseWork, failed: Callable[[str, Exception], None]) -> None:
        images = work.images
        super().__init__(json.loads(json.dumps(work.header())), len(images), (each.id for each in images))
        self._work, self._failed = work, failed
        self._without = dict[str, str]()
        self._last: Exception | None = None
        self.found = dict[int, PosePrediction]()

    @property
    def job(self) -> _Job:
        return _Job(self._work)

    def batches(self) -> Sequence[Batch]:
        """Each image is one; those of a category follow each other."""
        images = self._work.images
        return [(each,) for each in sorted(range(len(self)), key=lambda each: images[each].category)]

    def is_current(self, goal: Path) -> bool:
        content = _read_table(goal, self.places) if is_table(goal) else _read(goal)
        poses, without = content.pop("poses", None), content.pop("failed", {})
        self.check_head(content, goal)
        if not isinstance(poses, list) or not isinstance(without, dict):
            raise InputError(f"{goal}: holds no poses; predict again with a restart", parameter="restart")
        for image, why in without.items():
            self._fail(image, InputError(str(why)))
        for number, each in enumerate(poses, start=1):
            with reading_part(f"{goal}, pose {number}"):
                self.place(each)
        return True

    def place(self, content: Any) -> int:
        """The number of a prediction's image; its distances must be numbers."""
        number, distances = self.places[content["picture"]], content["distances"]
        values = [distances[name][pose] for name in distances for pose in DIRECTIONS]
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(values)
        self.found[number] = PosePrediction(content["picture"], content["category"], distances)
        return number

    def keeps(self, line: str) -> bool:
        """Take a prediction; an image that failed is told, and tried again by the next run."""
        content = json.loads(line)
        if "failed" not in content:
            self.place(content)
            return True
        error = NotFiniteError if content["not_finite"] else InputError
        self._fail(content["picture"], error(content["failed"]))
        return False

    def _fail(self, image: str, error: Exception) -> None:
        self._without[image], self._last = str(error), error
        self._failed(image, error)

    def predictions(self) -> list[PosePrediction]:
        if self._last is not None and not self.found:
            raise self._last
        return [self.found[number] for number in sorted(self.found)]

    def write(self, draft: Path, records: Records) -> None:
        about = {**self.about, "failed": self._without} if self._without else self.about
        if is_table(draft):
            write_table(draft, COLUMNS, map(_row, self.predictions()), about)
            return
        content = {**about, "poses": [each.to_dict() for each in self.predictions()]}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        draft.write_bytes(text.encode(errors="backslashreplace"))  # as `Records.put` does


class _Job:
    """Predicts poses; the templates of a category are encoded when its first image comes."""

    def __init__(self, work: PoseWork) -> None:
        self._work, self.device = work, work.matcher.extractor.device.type
        self._category: str | None = None
        self._predictor: PosePredictor | None = None

    def load(self, batch: Batch) -> None:
        return

    def work(self, batch: Batch, loaded: None) -> list[str]:
        return [record_line(self._predict(self._work.images[number])) for number in batch]

    def _predict(self, image: AnnotatedImage) -> dict[str, Any]:
        work = self._work
        if self._predictor is None or image.category != self._category:
            self._predictor = None  # Free the last category's templates before the next ones are encoded.
            self._category, templates = image.category, work.templates[image.category]
            self._predictor = PosePredictor(work.matcher, templates, work.settings)
        try:
            return PosePrediction(image.id, image.category, self._predictor.distances(image)).to_dict()
        except (InputError, NotFiniteError) as error:
            not_finite = isinstance(error, NotFiniteError)
            return {"picture": image.id, "failed": str(error), "not_finite": not_finite}


def _row(found: PosePrediction) -> dict[str, Any]:
    """A prediction as a row of a table."""
    distances = [{"set": name, **each} for name, each in found.distances.items()]
    votes = {f"votes_{pose}": count for pose, count in found.votes.items()}
    named = {"image": found.image, "category": found.category, "pose": found.pose}
    return {**named, **votes, "distances": distances}


def _read_table(goal: Path, images: Iterable[str]) -> dict[str, Any]:
    """What `_read` gives, from a table."""
    spelled = {printable(each): each for each in images}
    poses = [
        {
            "picture": spelled.get(row["image"]),
            "category": row["category"],
            "distances": {each.pop("set"): each for each in row["distances"]},
        }
        for row in read_rows(goal)
    ]
    return {**read_about(goal), "poses": poses}


def _read(goal: Path) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        if isinstance(content := json.loads(goal.read_bytes()), dict):
            return content
    what = "is not what `geoaware pose` writes; choose another file, or restart"
    raise InputError(f"{goal}: {what}", "restart")


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
