"""Slow loops for keypoint subgroups, written from the paper's definition (section 3.1, appendix C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def geometry_aware(
    subgroups: Mapping[str, Sequence[int]], source_visible: Sequence[bool], target_visible: Sequence[bool]
) -> list[bool]:
    """Keypoint i counts if both images show it and the target shows another of one of its subgroups."""
    counted = []
    for i in range(len(source_visible)):
        confusable = False
        for members in subgroups.values():
            if i in members and any(target_visible[j] for j in members if j != i):
                confusable = True
        counted.append(source_visible[i] and target_visible[i] and confusable)
    return counted
