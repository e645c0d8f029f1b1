"""Annotation formats in and out, one file each. COCO's keypoint format is what all others become.

Each has ``recognise`` (by content), ``read`` (into a `Hub`) and ``write`` (from a `Result`), but for COCO:
what is to be written stands in a COCO file already.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from geoaware.data.files import read_json, reading
from geoaware.data.formats import coco, cvat, dlc, labelme, labelstudio, sleap, yolo
from geoaware.data.formats.archive import is_zip, unpacked
from geoaware.data.formats.hub import MARK, Head, Hub, Result
from geoaware.data.video import is_video
from geoaware.runs.errors import InputError
from geoaware.runs.files import check_goals, new_folder, refuse_pretender, replacing
from geoaware.runs.optional import require
from geoaware.runs.places import is_remote

FORMATS: Mapping[str, ModuleType] = {
    "coco": coco,
    "cvat": cvat,
    "labelstudio": labelstudio,
    "dlc": dlc,
    "slp": sleap,
    "yolo": yolo,
    "labelme": labelme,
}

FOLDERS = frozenset({"dlc", "yolo", "labelme"})
"""Formats of several files in a folder."""

SUFFIXES: Mapping[str, str] = {"slp": ".slp", "cvat": ".xml", "labelstudio": ".json"}
"""How the names of their files end."""

OWN = "geoaware.json"
"""Stands in every folder that was written, with the mark of the run."""

_SEVERAL = frozenset({"coco", "dlc", "labelme"})
"""Formats that have a file for each image, video or split."""

_LOOKED_AT = frozenset({".json", ".xml", ".csv", ".h5", ".slp", ".yaml", ".yml"})
_HEAD, _DEPTH = 1 << 16, 3

_OTHERS = (
    (re.compile(r"<(\?[^>]*>\s*<)?annotation[\s>]"), "a Pascal VOC file, which holds no keypoints"),
    (re.compile("<(?!!)"), "an XML file of another program"),
    (yolo.LABELS, "a label file of YOLO: give the data.yaml of its data set"),
    (re.compile("\ufffdHDF"), "an HDF5 file of another kind"),
)
"""How the texts of other files begin."""


_MARKED = re.compile(rf'{MARK}[": ]+([0-9a-f]{{16}})\b')


@dataclass(frozen=True)
class Read:
    """What was read.

    Attributes:
        content: in COCO's form; of a file that is not recognised, the JSON that it holds.
        format: by its name in `FORMATS`.
        folder: of the images, where the format tells; names of images are relative to it.
        notes: what was understood and what was not used, one sentence each.
    """

    content: Any
    format: str = "coco"
    folder: Path | None = None
    notes: tuple[str, ...] = ()


def read(path: Path, expected: str = "a COCO keypoints file") -> Read:
    """Annotations of any format: a file, a folder, or a zip of one.

    Raises:
        InputError: nothing is there that is known, two formats are, or something is damaged.
    """
    if path.is_dir():
        return _read_folder(path, path)
    head = _head(path, expected)
    if is_zip(head.raw):
        return _read_folder(unpacked(path), path)
    name = _recognised(path, head)
    if name is None:
        _refuse_others(path, head, expected)
    if name in (None, "coco"):
        return Read(read_json(path, expected))
    return _taken(str(name), [path], Hub(path))


def choose(to: str | None, out: Path, source: str) -> str:
    """The format of a result: as asked for, else as its suffix says, else that of the sources.

    Raises:
        InputError: there is no such format, or it is that of another suffix.
    """
    suffix = out.suffix.lower()
    if to is None:
        alike = [name for name, each in SUFFIXES.items() if each == suffix and name != "labelstudio"]
        fits = (source in FOLDERS and not suffix) or SUFFIXES.get(source) == suffix
        return source if fits else [*alike, "coco"][0]
    if to not in FORMATS:
        raise InputError(f"there is no format {to!r}; choose {', '.join(FORMATS)}", "to")
    others = {".json", ".parquet", *SUFFIXES.values()} - {SUFFIXES.get(to)}
    if to == "coco":
        others -= {".json", ".parquet"}
    if suffix in others or (to in SUFFIXES and suffix != SUFFIXES[to]):
        what = f"a name that ends in {SUFFIXES.get(to, '.json')}"
        what = "a name without such a suffix, it is a folder" if to in FOLDERS else what
        raise InputError(f"{out}: {FORMATS[to].WHAT} needs {what}", "out")
    return to


def check_goal(name: str, out: Path, mark: str, restart: bool = False, replaceable: bool = False) -> bool:
    """Find out before long work whether a result can be written; whether it is there already.

    A file of other settings may be ``replaceable``: nobody has changed it. Folders are never replaced.

    Raises:
        InputError: something else is there, or the place cannot be written to.
    """
    if name in FOLDERS and is_remote(out):
        raise InputError(
            f"{out}: {FORMATS[name].WHAT} is a folder, which no URL can be; give one of this machine", "out"
        )
    if name == "slp":
        require("h5py", "formats")
    if not out.exists() or (name in FOLDERS and out.is_dir() and not any(out.iterdir())):
        check_goals(None if out.is_dir() else out)
        return False
    place = out / OWN if out.is_dir() else out
    head = _head(place).raw.decode(errors="replace") if place.is_file() else ""
    found = _MARKED.search(head)
    if found is None or out.is_dir() != (name in FOLDERS):
        raise InputError(
            f"{out}: exists and was not written by geoaware transfer; choose another place", "out"
        )
    if (restart or (replaceable and found[1] != mark)) and name not in FOLDERS:
        return False
    if restart or found[1] != mark:
        remedy = "choose another place, or remove it" if name in FOLDERS else "choose another, or restart"
        raise InputError(f"{out}: belongs to another run; {remedy}")
    return True


def write(name: str, out: Path, result: Result) -> None:
    """Write a result whole or not at all; a folder is never replaced."""
    with (new_folder if name in FOLDERS else replacing)(out) as draft:
        FORMATS[name].write(draft, result)
        if name in FOLDERS:
            (draft / OWN).write_text(json.dumps({MARK: result.mark}), encoding="utf-8")


def is_annotated(folder: Path) -> bool:
    """Whether a folder holds annotations of a known format."""
    return bool(_found(folder))


def _read_folder(folder: Path, given: Path) -> Read:
    found = _found(folder)
    if not found:
        known = "COCO, CVAT XML, Label Studio JSON, DeepLabCut, SLEAP, YOLO-pose, labelme"
        raise InputError(f"{given}: holds no annotations that are known ({known})")
    if len(found) > 1:
        kinds = " and ".join(
            f"{FORMATS[name].WHAT} ({paths[0].relative_to(folder)})"
            for name, paths in list(found.items())[:2]
        )
        raise InputError(f"{given}: holds {kinds}; give the one that is meant")
    ((name, paths),) = found.items()
    if len(paths) > 1 and name not in _SEVERAL:
        listed = ", ".join(str(each.relative_to(folder)) for each in paths[:3])
        raise InputError(
            f"{given}: holds {len(paths)} files of a kind ({listed}); give the one that is meant"
        )
    return _taken(name, paths, Hub(folder))


def _taken(name: str, paths: list[Path], hub: Hub) -> Read:
    """The content of files of one format, and the folder of the images."""
    if name == "coco":
        content = coco.read(paths, hub)
    else:
        FORMATS[name].read(paths, hub)
        content = hub.content()
    if hub.folder is None:
        hub.folder = coco.image_folder(paths[0].parent, [each["file_name"] for each in content["images"]])
    return Read(content, name, hub.folder, tuple(hub.notes))


def _found(folder: Path) -> dict[str, list[Path]]:
    """Files of known formats in a folder and those inside it, by format."""
    found: dict[str, list[Path]] = {}
    for path in _files(folder, _DEPTH):
        if path.suffix == ".h5" and path.with_suffix(".csv").is_file():
            continue
        name = _recognised(path, _head(path))
        if name is not None:
            found.setdefault(name, []).append(path)
    return found


def _files(folder: Path, depth: int) -> Iterator[Path]:
    for each in sorted(folder.iterdir()):
        if each.name.startswith("."):
            continue
        if each.suffix.lower() in _LOOKED_AT and each.is_file():
            yield each
        elif depth and not each.suffix and each.is_dir():
            yield from _files(each, depth - 1)


def _recognised(path: Path, head: Head) -> str | None:
    # A COCO file may hold what others begin with.
    ordered = sorted(FORMATS, key=lambda name: name == "coco")
    return next((name for name in ordered if FORMATS[name].recognise(path, head)), None)


def _head(path: Path, expected: str = "") -> Head:
    """How a file begins."""
    with reading(path, expected), path.open("rb") as file:
        raw = file.read(_HEAD)
    wide = raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    text = raw.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    return Head(raw, text.lstrip())


def _refuse_others(path: Path, head: Head, expected: str) -> None:
    """Say what a file is that is of no known format, where it is known."""
    refuse_pretender(path)
    if is_video(path):
        raise InputError(
            f"{path}: is a video, which holds no annotations; annotate some of its frames with a tool"
        )
    wanted = expected.removeprefix("a ")
    for pattern, what in _OTHERS:
        if pattern.match(head.text):
            raise InputError(f"{path}: is no {wanted}, but it is {what}")
