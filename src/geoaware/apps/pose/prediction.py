"""Rough pose prediction by template matching, without any training (paper, section 3.4 and table 1).

A *template set* shows one object from the left, the right, the front and the back. In every set an image is
nearest to one template; the pose that wins most sets is predicted. Features that know where an object faces
get this right.

Distances are those of `alignment`. With masks the image is the source of the IMD and the template its
target: the mean runs over the *image's* object, as in the paper's equation 1, and the nearest neighbours
are sought in the whole template, or with ``template_masks`` on the template's object only, as the released
code does. Without masks IMD runs over the whole image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from geoaware.data import object_mask
from geoaware.data.images import image_size, list_images
from geoaware.evaluation.tables import MISSING, Grid, percent
from geoaware.matcher import Matcher
from geoaware.method.alignment import PoseRule, pose_distances
from geoaware.method.geometry import Pose
from geoaware.method.types import AnnotatedImage, FeatureMap, Keypoints
from geoaware.result import mask_on_canvas
from geoaware.runs.errors import InputError

DIRECTIONS = ("left", "right", "front", "back")
"""The poses, in the order that settles what nothing else can."""

SIDES, ENDS = DIRECTIONS[:2], DIRECTIONS[2:]

Distances = Mapping[str, Mapping[str, float]]
"""Distance of an image to each template: by set, by pose."""

TemplateSets = Mapping[str, Mapping[str, AnnotatedImage]]
"""An image for each of `DIRECTIONS`, by set."""

_MASK = "_mask"
_RESOLUTION = 64
_Z = 1.959963984540054


@dataclass(frozen=True)
class PoseSettings:
    """How far an image is from a template.

    Attributes:
        metric: ``"imd"``, or ``"mutual-nn"``: mutual nearest neighbours, which know no masks.
        masks: whether IMD runs over the image's object (paper) or over the whole image.
        template_masks: with ``masks``: seek nearest neighbours on the template's object only (released code).
    """

    metric: Literal["imd", "mutual-nn"] = "imd"
    masks: bool = False
    template_masks: bool = False

    def __post_init__(self) -> None:
        if self.metric not in ("imd", "mutual-nn"):
            raise InputError(f"unknown metric {self.metric!r}; choose imd or mutual-nn")
        if self.metric == "mutual-nn" and (self.masks or self.template_masks):
            raise InputError("mutual-nn takes no masks; leave the masks out, or choose imd")
        if self.template_masks and not self.masks:
            raise InputError("masks of the templates are used only with masks of the images; give both")


@dataclass(frozen=True)
class PosePrediction:
    """One image against all template sets.

    Attributes:
        image: its id.
        category: whose templates it was compared with.
        distances: to each template.
    """

    image: str
    category: str
    distances: Distances

    @property
    def pose(self) -> str:
        """The one of the four that is predicted."""
        return vote(self.distances)

    @property
    def votes(self) -> dict[str, int]:
        """Sets won, by pose."""
        return count_votes(self.distances)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "picture": self.image,
            "category": self.category,
            "pose": self.pose,
            "votes": self.votes,
            "distances": {name: dict(each) for name, each in self.distances.items()},
        }


@dataclass(frozen=True)
class Share:
    """Correct ones of a number of images, with a 95 % confidence interval.

    The interval is Wilson's: unlike the usual one it stays within 0 and 1 and means something for few
    images and for shares near 1. It takes images as independent and the templates as given.
    """

    correct: int
    of: int

    @property
    def value(self) -> float:
        """0 to 1; NaN of no images."""
        return self.correct / self.of if self.of else math.nan

    @property
    def low(self) -> float:
        """Lower bound."""
        return max(min(self._bound(-1), self.value), 0.0)

    @property
    def high(self) -> float:
        """Upper bound."""
        return min(max(self._bound(1), self.value), 1.0)

    def _bound(self, sign: int) -> float:
        if not self.of:
            return math.nan
        share, more = self.value, _Z**2 / self.of
        half = _Z * math.sqrt(share * (1 - share) / self.of + more / (4 * self.of))
        return (share + more / 2 + sign * half) / (1 + more)

    def __str__(self) -> str:
        if not self.of:
            return MISSING
        return f"{percent(self.value)} ({percent(self.low)} to {percent(self.high)})"


@dataclass(frozen=True)
class PoseScores:
    """The four accuracies of the paper's table 1 and the confusion behind the last.

    Attributes:
        left_right: of the images from the left or right, with only those two to choose from.
        front_back: of the images from the front or back, likewise.
        either: of all images, each in its own one of the two choices above.
        all_four: of all images, with four poses to choose from.
        confusion: number of images by true pose and by predicted one of the four.
    """

    left_right: Share
    front_back: Share
    either: Share
    all_four: Share
    confusion: Mapping[str, Mapping[str, int]]

    @property
    def shares(self) -> dict[str, Share]:
        """The accuracies by name, in the order of the paper's table."""
        names = ("left_right", "front_back", "either", "all_four")
        return {name: getattr(self, name) for name in names}


SCORE_COLUMNS = ("L/R", "F/B", "L/R or F/B", "L/R/F/B", "pictures")
"""Heads of a row of `score_cells`."""


def count_votes(distances: Distances, among: Sequence[str] = DIRECTIONS) -> dict[str, int]:
    """How many sets each pose wins: in a set the nearest template does, of equals the first of ``among``."""
    votes = dict.fromkeys(among, 0)
    for templates in distances.values():
        votes[min(among, key=lambda pose: templates[pose])] += 1
    return votes


def vote(distances: Distances, among: Sequence[str] = DIRECTIONS) -> str:
    """The pose that most sets say; of equals the one of smallest mean distance, then the first of ``among``.

    Args:
        distances: to the templates, by set and pose; at least one set.
        among: the poses to choose from.
    """
    votes = count_votes(distances, among)
    most = max(votes.values())
    tied = [pose for pose in among if votes[pose] == most]
    return min(tied, key=lambda pose: math.fsum(each[pose] for each in distances.values()))


def score_poses(predictions: Sequence[PosePrediction], truth: Mapping[str, str]) -> PoseScores:
    """Compare predictions with the true poses.

    Args:
        predictions: those of images without a true pose are left out.
        truth: one of `DIRECTIONS` by image id.
    """
    known = [(each, truth[each.image]) for each in predictions if each.image in truth]
    binary = {
        axis: Share(
            sum(vote(each.distances, axis) == pose for each, pose in known if pose in axis),
            sum(pose in axis for _, pose in known),
        )
        for axis in (SIDES, ENDS)
    }
    confusion = {true: dict.fromkeys(DIRECTIONS, 0) for true in DIRECTIONS}
    for each, pose in known:
        confusion[pose][each.pose] += 1
    return PoseScores(
        left_right=binary[SIDES],
        front_back=binary[ENDS],
        either=Share(sum(each.correct for each in binary.values()), len(known)),
        all_four=Share(sum(confusion[pose][pose] for pose in DIRECTIONS), len(known)),
        confusion=confusion,
    )


def score_cells(scores: PoseScores) -> tuple[str, ...]:
    """Accuracies with intervals in per cent, and the number of images, as cells of a table."""
    return (*(str(each) for each in scores.shares.values()), f"{scores.all_four.of:,}")


def accuracy_grid(scores: PoseScores) -> Grid:
    """The four accuracies as a table."""
    note = (
        f"L/R: {scores.left_right.of:,} images from left or right, with these two to choose from; F/B "
        "likewise; then both together; then four poses to choose from."
    )
    title = "Pose prediction, accuracy in per cent (95 % CI)"
    return Grid(title, ("", *SCORE_COLUMNS), (("all", *score_cells(scores)),), note)


def confusion_grid(scores: PoseScores, title: str = "True pose (rows) and predicted pose") -> Grid:
    """The confusion as a table."""
    rows = tuple((true, *(f"{scores.confusion[true][each]:,}" for each in DIRECTIONS)) for true in DIRECTIONS)
    return Grid(title, ("true", *DIRECTIONS), rows)


def read_template_sets(
    folder: str | os.PathLike[str], masks: bool = False
) -> dict[str, dict[str, AnnotatedImage]]:
    """Template sets of one's own: a folder for each set, in it left, right, front and back as images.

    ``left_mask.png`` beside ``left.jpg`` is the mask of its object. Images are known as ``SET/FILE``.

    Args:
        folder: holds the folders of the sets; their names are free. Those that begin with a dot do not count.
        masks: whether every template must have its mask; else masks are not looked at.

    Raises:
        InputError: no set, a pose or mask is missing or there twice, or an image names no pose.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that holds the template sets")
    names = sorted(each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not names:
        raise InputError(
            f"{root}: no template sets; make a folder for each set with {', '.join(DIRECTIONS)} as images, "
            f"such as {root / 'set1' / 'left.jpg'}"
        )
    return {name: _read_set(root / name, masks) for name in names}


def _read_set(folder: Path, masks: bool) -> dict[str, AnnotatedImage]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        name = path.stem.lower()
        if name.removesuffix(_MASK) not in DIRECTIONS:
            raise InputError(
                f"{path}: names no pose; call templates {', '.join(DIRECTIONS)} and a mask, say, left{_MASK}"
            )
        if name in found:
            raise InputError(f"{path}: {found[name].name} is there too; leave one of them")
        found[name] = path
    missing = [pose for pose in DIRECTIONS if pose not in found]
    if missing:
        raise InputError(
            f"{folder}: has no template of the pose {', '.join(missing)}; add {missing[0]}.jpg (or .png …)"
        )
    unmasked = [pose for pose in DIRECTIONS if masks and pose + _MASK not in found]
    if unmasked:
        raise InputError(
            f"{folder}: has no mask of the template {unmasked[0]}; add {unmasked[0]}{_MASK}.png, or leave "
            "out --template-masks"
        )
    return {
        pose: bare_image(
            f"{folder.name}/{found[pose].name}", found[pose], found[pose + _MASK] if masks else None
        )
        for pose in DIRECTIONS
    }


def bare_image(name: str, path: Path, mask_path: Path | None = None) -> AnnotatedImage:
    """An image of which nothing is annotated.

    Raises:
        InputError: the file cannot be read.
    """
    nothing = Keypoints((), torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.bool))
    return AnnotatedImage(name, path, image_size(path), "", nothing, mask_path=mask_path)


@dataclass(frozen=True)
class _Features:
    """What is compared: a map, and the object on the map's canvas where masks are used."""

    map: FeatureMap
    mask: Tensor | None


class PosePredictor:
    """Templates, encoded once; an image is encoded when it is asked for and let go again.

    In memory are the templates: of each a map, brought to 64 x 64 cells if there are masks.

    Args:
        matcher: whose features are compared; its settings for matching and for pose alignment play no part.
        templates: by set and pose.
        settings: see there.

    Raises:
        InputError: a template or its mask cannot be read, or they are of different sizes.
    """

    def __init__(
        self, matcher: Matcher, templates: TemplateSets, settings: PoseSettings | None = None
    ) -> None:
        self._matcher = matcher
        self._settings = settings or PoseSettings()
        self._templates = {
            name: {pose: self._encode(members[pose], self._settings.template_masks) for pose in DIRECTIONS}
            for name, members in templates.items()
        }

    def distances(self, image: AnnotatedImage) -> Distances:
        """Of an image to every template.

        Raises:
            InputError: the image or its mask cannot be read, or they are of different sizes.
        """
        here = self._encode(image, self._settings.masks)
        try:
            found = {
                name: {pose: self._distance(here, there) for pose, there in members.items()}
                for name, members in self._templates.items()
            }
        except ValueError as error:
            raise InputError(f"{image.id}: cannot be compared with its templates, {error}") from None
        if not all(math.isfinite(value) for members in found.values() for value in members.values()):
            raise RuntimeError(f"{image.id}: the features of this image or of a template are not finite")
        return found

    def _distance(self, here: _Features, there: _Features) -> float:
        masks: dict[Pose, Tensor] | None = None if here.mask is None else {"identity": here.mask}
        rule = PoseRule(self._settings.metric)
        return pose_distances({"identity": here.map}, there.map, masks, there.mask, rule)["identity"]

    def _encode(self, image: AnnotatedImage, masked: bool) -> _Features:
        mask = object_mask(image) if masked else None
        if masked and mask is None:
            raise InputError(f"{image.id}: has no mask of its object; predict poses without masks")
        features = self._matcher.encode(image.path, mask).maps["identity"]
        if not self._settings.masks:
            return _Features(features, None)
        # The IMD resizes whatever it gets to this size: done here once for an image, not for every pair.
        small = F.interpolate(features.data[None], size=(_RESOLUTION, _RESOLUTION), mode="bilinear")[0]
        features = replace(features, data=small)
        if mask is None:
            return _Features(features, None)
        size = self._matcher.extractor.layout.size
        return _Features(features, mask_on_canvas(mask, "identity", size))
