"""Template images: one object seen from the left, the right, the front and the back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from geoaware.data.dataset import make_keypoints
from geoaware.data.images import image_size, list_images
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError
from geoaware.runs.places import place

DIRECTIONS = ("left", "right", "front", "back")
"""The poses, in the order that decides where votes and distances are equal."""

SIDES, ENDS = DIRECTIONS[:2], DIRECTIONS[2:]

TemplateSets = Mapping[str, Mapping[str, AnnotatedImage]]
"""An image for each of `DIRECTIONS`, by set."""

_MASK = "_mask"


def read_template_sets(
    folder: str | os.PathLike[str], masks: bool = False
) -> dict[str, dict[str, AnnotatedImage]]:
    """Read template sets: each is a folder that holds left, right, front and back as images.

    ``left_mask.png`` beside ``left.jpg`` is the mask of its object. Images are known as ``SET/FILE``.

    Args:
        folder: holds the folders of the sets; their names are free. Hidden folders are passed over.
        masks: whether every template must have its mask; otherwise masks are not read.

    Raises:
        InputError: there is no set, a pose or mask is missing or occurs twice, or an image names no pose.
    """
    root = place(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that holds the template sets")
    sets = sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not sets:
        raise InputError(
            f"{root}: no template sets; make a folder for each set with {', '.join(DIRECTIONS)} as images, "
            f"such as {root / 'set1' / 'left.jpg'}"
        )
    return {each.name: _read_set(each, masks) for each in sets}


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
            f"{folder}: has no mask of the template {unmasked[0]}; add {unmasked[0]}{_MASK}.png, or compare "
            "without masks of the templates",
            parameter="template_masks",
        )
    return {
        pose: bare_image(
            f"{folder.name}/{found[pose].name}", found[pose], found[pose + _MASK] if masks else None
        )
        for pose in DIRECTIONS
    }


def bare_image(name: str, path: Path, mask_path: Path | None = None) -> AnnotatedImage:
    """An image without annotated keypoints.

    Raises:
        InputError: the file cannot be read.
    """
    size = image_size(path)
    return AnnotatedImage(name, path, size, "", make_keypoints({}, size, name, []), mask_path=mask_path)
