"""The meaning of one category's keypoints, indexed by annotation id and by nothing else.

Annotation ids are the ids of the data set's files. They stay what they are when points are missing: counting
the points that happen to be there instead mixes up subgroups as soon as one is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from geoaware.method.geometry import pose_points
from geoaware.method.keypoints.names import infer_flip_pairs, infer_subgroups
from geoaware.method.types import Keypoints


@dataclass(frozen=True)
class Schema:
    """Names, subgroups and mirror partners of a category's keypoints.

    Attributes:
        names: one name per annotation id 0 … k-1; given as a mapping, ids without a name get "keypoint ID".
            A schema without names is of points that are no parts, such as the pixels of a flow field.
        subgroups: name of a part to the ids of the keypoints that show it (all four paws, say), at least two
            each: those that only the geometry tells apart (paper, section 3.1 and table 6).
        flip_pairs: ids that exchange when the image is mirrored; every id in one pair at most.
        skeleton: pairs of ids that a limb, or another part of the body, joins.

    Example:
        >>> cat = Schema(("left ear", "right ear", "nose"), {"ear": (0, 1)}, ((0, 1),))
        >>> cat.partner(0), cat.partner(2)
        (1, 2)
        >>> both, one = torch.tensor([True, True, True]), torch.tensor([True, False, True])
        >>> cat.geometry_aware_mask(both, both).tolist(), cat.geometry_aware_mask(both, one).tolist()
        ([True, True, False], [False, False, False])
    """

    names: Sequence[str] | Mapping[int, str]
    subgroups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    flip_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        names = self.names
        if isinstance(names, Mapping):
            names = [names.get(each, f"keypoint {each}") for each in range(max(names, default=-1) + 1)]
        groups = {name: tuple(members) for name, members in self.subgroups.items()}
        pairs, limbs = (
            tuple((pair[0], pair[1]) for pair in each) for each in (self.flip_pairs, self.skeleton)
        )
        _check_ids(len(names), groups, pairs, limbs)
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "subgroups", groups)
        object.__setattr__(self, "flip_pairs", pairs)
        object.__setattr__(self, "skeleton", limbs)

    @classmethod
    def infer(
        cls,
        names: Sequence[str],
        flip_pairs: Sequence[tuple[int, int]] | None = None,
        subgroups: Mapping[str, Sequence[int]] | None = None,
    ) -> Schema:
        """A schema from names alone: what is not given follows from left and right in the names.

        ``left_ear`` and ``right_ear``, ``L ear`` and ``R ear``, ``earLeft`` and ``earRight`` are partners.
        Partners form a subgroup; pairs whose names differ in front and back only share one (all paws).

        Args:
            names: one per annotation id.
            flip_pairs: as annotated, if they are.
            subgroups: as annotated, if they are.
        """
        pairs = infer_flip_pairs(names) if flip_pairs is None else tuple((a, b) for a, b in flip_pairs)
        groups = infer_subgroups(names, pairs) if subgroups is None else subgroups
        return cls(tuple(names), {name: tuple(members) for name, members in groups.items()}, pairs)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def partners(self) -> tuple[int, ...]:
        """For every id, the id it becomes in the mirrored image; itself where it has no partner."""
        return flip_partners(len(self), self.flip_pairs)

    def partner(self, keypoint: int) -> int:
        """The id that a keypoint becomes in the mirrored image; itself where it has no partner.

        Raises:
            KeyError: the schema has no such id.
        """
        if not self.names:
            return keypoint
        if not 0 <= keypoint < len(self):
            raise KeyError(f"there is no keypoint {keypoint}; ids are 0 … {len(self) - 1}")
        return self.partners[keypoint]

    def flip(self, keypoints: Keypoints, size: tuple[int, int]) -> Keypoints:
        """The keypoints as annotated on the mirrored image: mirrored places, exchanged labels.

        Flipping twice gives the same keypoints again.

        Args:
            keypoints: of the image as it is.
            size: width and height of the image in pixels.
        """
        labels = [self.partner(each) for each in keypoints.ids]
        order = sorted(range(len(labels)), key=labels.__getitem__)
        return Keypoints(
            ids=tuple(labels[row] for row in order),
            xy=pose_points(keypoints.xy, size, "flip")[order],
            visible=keypoints.visible[order],
        )

    def visibility(self, keypoints: Keypoints) -> Bool[Tensor, " k"]:
        """Which ids are visible, over all ids of the schema; an id that is not annotated is not visible.

        Raises:
            KeyError: a keypoint has an id that the schema does not know.
        """
        if keypoints.ids and not 0 <= min(keypoints.ids) <= max(keypoints.ids) < len(self):
            raise KeyError(f"keypoint ids {keypoints.ids} are not all in 0 … {len(self) - 1}")
        seen = torch.zeros(len(self), dtype=torch.bool)
        seen[list(keypoints.ids)] = keypoints.visible
        return seen

    def geometry_aware_mask(
        self, source_visible: Bool[Tensor, " k"], target_visible: Bool[Tensor, " k"]
    ) -> Bool[Tensor, " k"]:
        """Which keypoints of a pair are in the geometry-aware subset (paper, section 3.1 and appendix C).

        A keypoint counts if it is visible in both images and belongs to a subgroup of which the target
        image shows at least two keypoints: another place that looks like the right one.

        Args:
            source_visible: by annotation id, all ids of the schema (see `visibility`).
            target_visible: likewise.
        """
        for side, visible in (("source", source_visible), ("target", target_visible)):
            if visible.shape != (len(self),):
                raise ValueError(
                    f"{side} visibility has shape {tuple(visible.shape)}; one value per annotation id "
                    f"is needed, ({len(self)},)"
                )
        ambiguous = (self._membership @ target_visible.long()) >= 2
        confusable = (self._membership.T @ ambiguous.long()) > 0
        return source_visible & target_visible & confusable

    def geometry_aware_ids(self, source: Keypoints, target: Keypoints) -> tuple[int, ...]:
        """Ids of a pair's geometry-aware keypoints, rising; see `geometry_aware_mask`."""
        if not self.names:
            return ()
        mask = self.geometry_aware_mask(self.visibility(source), self.visibility(target))
        return tuple(int(each) for each in mask.nonzero().flatten())

    @cached_property
    def _membership(self) -> Int[Tensor, "groups k"]:
        matrix = torch.zeros(len(self.subgroups), len(self), dtype=torch.long)
        for row, members in enumerate(self.subgroups.values()):
            matrix[row, list(members)] = 1
        return matrix


def flip_partners(count: int, flip_pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Index of the keypoint that each one becomes in the mirrored image; those in no pair keep their own.

    Raises:
        ValueError: an index is out of range, or stands in two pairs or twice in one.
    """
    partners = list(range(count))
    for a, b in flip_pairs:
        if not (0 <= a < count and 0 <= b < count):
            raise ValueError(f"flip pair ({a}, {b}) is outside 0…{count - 1}, the points given")
        if a == b or partners[a] != a or partners[b] != b:
            raise ValueError(f"point {a} or {b} stands in more than one flip pair, or twice in one")
        partners[a], partners[b] = b, a
    return tuple(partners)


def _check_ids(
    count: int,
    groups: Mapping[str, tuple[int, ...]],
    pairs: Sequence[tuple[int, int]],
    limbs: Sequence[tuple[int, int]],
) -> None:
    for name, members in groups.items():
        if len(set(members)) < 2 or len(set(members)) < len(members):
            raise ValueError(f"subgroup {name!r} needs at least two different keypoints, got {members}")
        if not all(0 <= each < count for each in members):
            raise ValueError(f"subgroup {name!r} has ids {members}; there are only 0 … {count - 1}")
    paired = [each for pair in pairs for each in pair]
    if not all(0 <= each < count for each in paired):
        raise ValueError(f"flip pairs {tuple(pairs)} name ids outside 0 … {count - 1}")
    if len(set(paired)) < len(paired):
        raise ValueError(f"flip pairs {tuple(pairs)} name an id twice")
    if not all(0 <= each < count for limb in limbs for each in limb):
        raise ValueError(f"skeleton {tuple(limbs)} names ids outside 0 … {count - 1}")
