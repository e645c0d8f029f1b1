"""Rough pose prediction by template matching, without any training (paper, section 3.4 and table 1).

A *template set* shows one object from the left, the right, the front and the back. In every set an image is
nearest to one template; the pose that wins most sets is predicted. Features that know where an object faces
get this right.

The distances are those of `alignment`. With masks, the image is the source of the IMD and the template is
its target. The mean then runs over the *image's* object, as in the paper's equation 1. Nearest neighbours
are sought in the whole template, as in the released code, or, with ``template_masks``, on the template's
object only. Without masks the IMD runs over the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from geoaware.apps.pose.templates import DIRECTIONS, TemplateSets
from geoaware.data import object_mask
from geoaware.matcher import Matcher
from geoaware.method.alignment import PoseRule, pose_distances
from geoaware.method.geometry import Pose
from geoaware.method.maps import resized
from geoaware.method.types import AnnotatedImage, FeatureMap
from geoaware.result import mask_on_canvas
from geoaware.runs.errors import InputError, NotFiniteError

Distances = Mapping[str, Mapping[str, float]]
"""Distance of an image to each template: by set, by pose."""

_RESOLUTION = 64


@dataclass(frozen=True)
class PoseSettings:
    """How far an image is from a template.

    Attributes:
        metric: ``"imd"``, or ``"mutual-nn"``: mutual nearest neighbours, which takes no masks.
        masks: whether the IMD runs over the image's object (paper) or over the whole image.
        template_masks: with ``masks``: seek nearest neighbours on the template's object only.
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
    """One image, by its id, against all template sets of its category."""

    image: str
    category: str
    distances: Distances

    @property
    def pose(self) -> str:
        """The predicted pose, one of the four."""
        return vote(self.distances)

    @property
    def votes(self) -> dict[str, int]:
        """Number of sets won, by pose."""
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


def count_votes(distances: Distances, among: Sequence[str] = DIRECTIONS) -> dict[str, int]:
    """How many sets each pose wins: in each set the nearest template, the first of ``among`` on a tie."""
    votes = dict.fromkeys(among, 0)
    for templates in distances.values():
        votes[min(among, key=lambda pose: templates[pose])] += 1
    return votes


def vote(distances: Distances, among: Sequence[str] = DIRECTIONS) -> str:
    """The pose that wins most sets, of which there is at least one.

    On a tie the smaller mean distance wins, then the first of ``among``, the poses to choose from.
    """
    votes = count_votes(distances, among)
    most = max(votes.values())
    tied = [pose for pose in among if votes[pose] == most]
    return min(tied, key=lambda pose: math.fsum(each[pose] for each in distances.values()))


class PosePredictor:
    """The templates, encoded once. An image is encoded when it is asked for, and not kept.

    One feature map for each template stays in memory, at 64 x 64 cells if there are masks.

    Args:
        matcher: whose features are compared; its settings for matching and for pose alignment play no part.
        templates: by set and pose.
        settings: see there.

    Raises:
        InputError: a template or its mask cannot be read, or they are of different sizes.
        NotFiniteError: the features of a template are NaN or infinite.
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
        for name, members in self._templates.items():
            for pose, (features, _) in members.items():
                if not features.data.isfinite().all():
                    raise NotFiniteError(
                        f"{templates[name][pose].id}: the features of this template are not finite; "
                        "try another dtype"
                    )

    def distances(self, image: AnnotatedImage) -> Distances:
        """Of an image to every template.

        Raises:
            InputError: the image or its mask cannot be read, or they are of different sizes.
            NotFiniteError: the features of the image are NaN or infinite.
        """
        features, mask = self._encode(image, self._settings.masks)
        rule = PoseRule(self._settings.metric)

        def distance(there: FeatureMap, mask_there: Tensor | None) -> float:
            masks: dict[Pose, Tensor] | None = None if mask is None else {"identity": mask}
            return pose_distances({"identity": features}, there, masks, mask_there, rule)["identity"]

        try:
            found = {
                name: {pose: distance(*template) for pose, template in members.items()}
                for name, members in self._templates.items()
            }
        except ValueError as error:
            raise InputError(f"{image.id}: cannot be compared with its templates, {error}") from None
        if not all(math.isfinite(value) for members in found.values() for value in members.values()):
            raise NotFiniteError(f"{image.id}: the features of this image are not finite; try another dtype")
        return found

    def _encode(self, image: AnnotatedImage, masked: bool) -> tuple[FeatureMap, Tensor | None]:
        """What is compared: a map, and the object on the map's canvas where masks are used."""
        mask = object_mask(image) if masked else None
        if masked and mask is None:
            raise InputError(f"{image.id}: has no mask of its object; predict poses without masks")
        features = self._matcher.encode(image.path, mask).maps["identity"]
        if self._settings.masks:
            # The IMD resizes whatever it gets to this size: here it happens once an image, not once a pair.
            features = replace(features, data=resized(features.data[None], _RESOLUTION)[0])
        return features, None if mask is None else mask_on_canvas(mask, "identity", features.canvas)
