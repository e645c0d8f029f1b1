"""What pose prediction is given: images of one's own with their masks, and the true poses."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from geoaware.apps.pose.templates import DIRECTIONS, bare_image
from geoaware.data.files import csv_rows, read_text
from geoaware.data.images import SUFFIXES, list_images
from geoaware.data.names import FileNames, Names, alike
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, quoted, reason, stop
from geoaware.runs.places import common_folder

_log = logging.getLogger(__name__)


def read_images(
    paths: Sequence[Path], masks: Path | None = None, failed: Callable[[str, Exception], None] = stop
) -> list[AnnotatedImage]:
    """Images of one's own; folders stand for the images directly in them.

    An image's id is its path from the folder that all of them have in common.

    Args:
        paths: files and folders; what is named twice counts once.
        masks: folder with a mask of the same name, but any suffix, for each image.
        failed: told of an image that cannot be read, which is left out.

    Raises:
        InputError: nothing there, an unreadable image, or a mask is missing.
    """
    files: dict[Path, None] = {}
    there = None if masks is None else FileNames(masks)
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file{alike(path)}")
        inside = list_images(path) if path.is_dir() else [path]
        files.update(dict.fromkeys(each.absolute() for each in inside))
    common = common_folder([each.parent for each in files])
    found = []
    for each in files:
        name, mask = each.relative_to(common).as_posix(), None if there is None else _mask_of(each, there)
        try:
            found.append(bare_image(name, each, mask))
        except InputError as error:
            failed(name, error)
    for note in [] if there is None else there.notes():
        _log.info("%s: %s", masks, note)
    return found


def _mask_of(image: Path, masks: FileNames) -> Path:
    folder = masks.folder
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of the masks")
    names = [image.with_suffix(suffix).name for suffix in (image.suffix, ".png", *sorted(SUFFIXES))]
    # A mask of exactly such a name goes before one that is spelled in another way.
    exact = (name for name in names if (folder / name).is_file())
    found = next(exact, None) or next(filter(None, map(masks.find, names)), None)
    if found is None:
        raise InputError(
            f"{folder}: no mask of {image.name} in it; add {names[1]}, or give no masks", "masks"
        )
    return folder / found


def read_labels(path: Path, images: Sequence[str]) -> dict[str, str]:
    """True poses from a JSON object ``{"cat1.jpg": "left", …}`` or from CSV lines ``cat1.jpg,left``.

    Args:
        path: the file; CSV unless it ends in .json. A first CSV line ``image,pose`` is a heading.
        images: ids of the images to be predicted.

    Raises:
        InputError: the file cannot be read, names an image that is not among them or twice, or no pose.
    """
    read = _json_labels if path.suffix.lower() == ".json" else _csv_labels
    known, labels = Names(images, str(path)), dict[str, str]()
    for given_name, given in read(read_text(path, "a JSON or CSV file of image and pose"), path):
        name = known.find(given_name)
        if name is None:
            raise InputError(
                f"{path}: {given_name!r} is not among the images ({', '.join(images[:3])} …); name images "
                "as they are printed"
            )
        if given not in DIRECTIONS:
            raise InputError(f"{path}: {name!r} has the pose {quoted(given)}; choose {', '.join(DIRECTIONS)}")
        if name in labels:
            raise InputError(f"{path}: {name!r} stands there twice; leave one of them")
        labels[name] = given
    for note in known.notes():
        _log.info("%s: %s", path, note)
    if not labels:
        raise InputError(f"{path}: has no labels; write image and pose, such as {images[0]},left")
    return labels


def _json_labels(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    try:
        # As pairs: a dictionary would hide an image that stands there twice.
        pairs = json.loads(text, object_pairs_hook=list)
        yield from ((str(name), given) for name, given in pairs)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f'{path}: is no JSON object of {{"image": "pose"}} ({reason(error)})') from None


def _csv_labels(text: str, path: Path) -> Iterator[tuple[str, str]]:
    for number, (where, row) in enumerate(csv_rows(path, text, "image,pose")):
        cells = [cell.strip() for cell in row]
        if number == 0 and cells in (["image", "pose"], ["picture", "pose"]):
            continue
        if len(cells) != 2:
            raise InputError(f"{where}: expected image,pose, got {len(cells)} values")
        yield cells[0], cells[1]
