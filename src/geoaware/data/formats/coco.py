"""COCO's own format, of one file or, where a folder has a file for each split, of several."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoaware.data.files import read_json
from geoaware.data.formats.hub import Entry, Head, Hub, joined, understanding
from geoaware.data.names import FileNames
from geoaware.runs.errors import InputError
from geoaware.runs.places import is_remote

WHAT = "a COCO file"

_LISTS = re.compile(r'"(images|annotations)"\s*:\s*[\[{]')


def recognise(path: Path, head: Head) -> bool:
    """Whether a file that begins so is of this format."""
    return head.text.startswith("{") and _LISTS.search(head.text) is not None


def image_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Where the images of a file in a folder are, by its exporter's habit; ``None``: nowhere there.

    Some of the images may be missing: one of the first hundred tells the folder.
    """
    for places in (
        ("images", "data", "."),
        ("images/default", "../images", "../images/default", "../data", ".."),
    ):
        folders = [FileNames(root / each) for each in places]
        folders = [each for each in folders if not is_remote(root) or each.folder.is_dir()]
        exact = (each.folder for each in folders if any(map(each.has, names[:100])))
        spelled = (each.folder for each in folders if any(map(each.find, names[:100])))
        found = next(exact, None) or next(spelled, None)
        if found is not None:
            return found
    return None


def read(paths: Sequence[Path], hub: Hub) -> Any:
    """The content of a file or, of several, of those with keypoints if some have them.

    Raises:
        InputError: two files have the same image, or another list of keypoints for a category.
    """
    if len(paths) == 1:
        content = read_json(paths[0], WHAT)
        with understanding(str(paths[0]), "COCO"):
            hub.folder = image_folder(paths[0].parent, _file_names(content))
        return content
    contents = [(path, read_json(path, WHAT)) for path in paths]
    posed = [each for each in contents if _has_keypoints(each[1])] or contents
    images: dict[str, Entry] = {}
    categories: dict[str, Entry] = {}
    annotations: list[Entry] = []
    for path, content in posed:
        with understanding(str(path), "COCO"):
            numbers: dict[str, int] = {}
            folder = image_folder(path.parent, _file_names(content))
            top = "" if folder is None else os.path.relpath(folder, hub.path)
            for each in content["images"]:
                name = joined(top, each["file_name"])
                if name in images:
                    raise InputError(
                        f"{hub.path}: {images[name]['of']} and {path.name} both have {name}; give one"
                    )
                images[name] = {**each, "id": len(images) + 1, "file_name": name, "of": path.name}
                numbers[str(each["id"])] = len(images)
            kinds = {str(each["id"]): _category(each, categories, path) for each in content["categories"]}
            for each in content["annotations"]:
                owner, kind = numbers[str(each["image_id"])], kinds[str(each["category_id"])]
                annotations.append(
                    {**each, "id": len(annotations) + 1, "image_id": owner, "category_id": kind}
                )
    if len(posed) > 1:
        hub.notes.append(f"{len(posed)} files are read as one: {', '.join(path.name for path, _ in posed)}")
    hub.folder = hub.path
    listed = [{key: value for key, value in each.items() if key != "of"} for each in images.values()]
    return {"images": listed, "annotations": annotations, "categories": list(categories.values())}


def _file_names(content: Any) -> list[str]:
    listed = content["images"]
    return [str(each["file_name"]) for each in listed] if isinstance(listed, list) else []


def _category(entry: Entry, known: dict[str, Entry], path: Path) -> int:
    # Roboflow has one more category, of all, that may have the name of another.
    key = json.dumps([entry["name"], bool(entry.get("keypoints"))])
    found = known.setdefault(key, {**entry, "id": len(known) + 1})
    if found.get("keypoints") != entry.get("keypoints"):
        raise InputError(
            f"{path}: {entry['name']!r} has other keypoints than in the files beside it; give one file"
        )
    return int(found["id"])


def _has_keypoints(content: Any) -> bool:
    kinds = content.get("categories") if isinstance(content, dict) else None
    return any(isinstance(each, dict) and each.get("keypoints") for each in kinds or ())
