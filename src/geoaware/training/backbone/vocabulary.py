"""Which keypoints of different data sets are the same part of the body, by name.

Data sets name their keypoints each in its own way. Where two names mean the same place of an animal, as was
checked by looking at images of both, their keypoints are one class, so that a photograph of a dog and a
rendered bull teach one network together. People keep classes of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from geoaware.data import DataSet
from geoaware.method.keypoints import Schema
from geoaware.runs.errors import InputError

_QUADRUPED = {
    "root_of_tail": "tailbase",
    "tail_base": "tailbase",
    # AP-10K's upper joint of a leg is where Animal-Pose has its elbow; the middle ones are its knees.
    "left_shoulder": "left_front_elbow",
    "right_shoulder": "right_front_elbow",
    "left_elbow": "left_front_knee",
    "right_elbow": "right_front_knee",
    "left_hip": "left_back_elbow",
    "right_hip": "right_back_elbow",
    "left_knee": "left_back_knee",
    "right_knee": "right_back_knee",
}
"""What the names of the 17 AP-10K keypoints are called in Animal-Pose; other names stay."""

_PERSON = "head_top"
"""A keypoint that only people have."""


@dataclass(frozen=True)
class Vocabulary:
    """Classes of keypoints that several data sets share.

    Attributes:
        names: of the classes.
        partners: the class that each becomes in the mirror; itself for most.
        limbs: pairs of classes that a limb joins.
    """

    names: tuple[str, ...]
    partners: tuple[int, ...]
    limbs: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, schemas: Iterable[Schema]) -> Vocabulary:
        """All classes of some schemas, in the order of first appearance.

        Raises:
            InputError: two schemas exchange a class with different ones in the mirror.
        """
        partners: dict[str, str] = {}
        limbs: dict[tuple[str, str], None] = {}
        for schema in schemas:
            names = class_names(schema)
            for name, partner in zip(names, schema.partners, strict=True):
                if partners.setdefault(name, names[partner]) != names[partner]:
                    raise InputError(
                        f"the mirror exchanges {name!r} with {partners[name]!r} in one data set, with "
                        f"{names[partner]!r} in another; mend the flip pairs of one"
                    )
            limbs |= {(names[first], names[second]): None for first, second in schema.skeleton}
        order = {name: number for number, name in enumerate(partners)}
        return cls(
            tuple(partners),
            tuple(order[partner] for partner in partners.values()),
            tuple((order[first], order[second]) for first, second in limbs),
        )

    def rows(self, schema: Schema) -> list[int]:
        """The class of each of a schema's keypoints."""
        return [self.names.index(name) for name in class_names(schema)]


def with_own_names(data: DataSet) -> DataSet:
    """A data set whose keypoints are named by category, where a name is but a number in its category.

    In SPair-71k every name ends with the keypoint's number, and keypoint 4 of a bus is none of a cat. Of such
    names, those that no image shows, nor in the mirror, become one.
    """
    seen: dict[str, set[int]] = defaultdict(set)
    for image in data.images:
        seen[image.category] |= set(image.keypoints.visible_ids)
    named = {category: _own_names(category, each, seen[category]) for category, each in data.schemas.items()}
    return replace(data, schemas=named)


def _own_names(category: str, schema: Schema, seen: set[int]) -> Schema:
    if not all(str(name).endswith(f" {number}") for number, name in enumerate(schema.names)):
        return schema
    shown = [{number, partner} & seen for number, partner in enumerate(schema.partners)]
    both = zip(schema.names, shown, strict=True)
    return replace(schema, names=tuple(f"{category} {name}" if each else "unseen" for name, each in both))


def class_names(schema: Schema) -> tuple[str, ...]:
    """The name of the class of each of a schema's keypoints.

    Example:
        >>> class_names(Schema(("left_knee", "nose")))
        ('left_back_knee', 'nose')
        >>> class_names(Schema(("left_knee", "head_top")))
        ('person left_knee', 'person head_top')
    """
    names = [str(name) for name in schema.names]
    if _PERSON in names:
        return tuple(f"person {name}" for name in names)
    return tuple(_QUADRUPED.get(name, name) for name in names)
