"""Small folders of each kind that was once read wrongly or refused, and what `geoaware data check` says."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.data import test_coco as coco
from tests.data import test_pairs as pairs
from tests.data import test_proposal_flow as flow

FINE, PROBLEM = 0, 2


class Kind(NamedTuple):
    """What is wrong or unusual, the data set, how to make its folder, the exit code, and a sentence."""

    what: str
    name: str
    make: Callable[[Path], object]
    code: int
    said: str


def _coco(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Make the COCO folder of three cats, with its file changed."""

    def make(root: Path) -> None:
        path = coco.made_up(root) / "annotations.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return make


def _first(**changes: Any) -> Callable[[Path], None]:
    return _coco(lambda content: content["annotations"][0].update(changes))


def _category(**changes: Any) -> Callable[[Path], None]:
    return _coco(lambda content: content["categories"][0].update(changes))


def _flags(*flags: float) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        for each in content["annotations"]:
            each["keypoints"][2::3] = flags

    return _coco(change)


def _split_up(content: dict[str, Any]) -> None:
    """A category and an annotation for every keypoint."""
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(coco.NAMES)]
    content["annotations"] = [
        {**each, "id": 10 * each["id"] + number, "category_id": number, "keypoints": [5, 6, 2]}
        for each in content["annotations"]
        for number in range(3)
    ]


def _as_objects(content: dict[str, Any]) -> None:
    content["images"] = {each["file_name"]: {"width": 50, "height": 40} for each in content["images"]}
    content["annotations"] = {str(each.pop("id")): each for each in content["annotations"]}


def _twice(content: dict[str, Any]) -> None:
    content["images"].append({**content["images"][0], "id": 99})
    content["annotations"].append({**content["annotations"][0], "id": 77, "image_id": 99})


def _turned(orientation: int) -> Callable[[Path], None]:
    """The first image of stored pixels as annotated, and a tag that turns it."""

    def make(root: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (50, 40)).save(coco.made_up(root) / "images/1.png", exif=exif)

    return make


def _deep(root: Path) -> None:
    Image.fromarray(np.full((40, 50), 1023, np.uint16)).save(coco.made_up(root) / "images/1.png")


def _called(name: str, file: str) -> Callable[[Path], None]:
    """The first image, which the annotations call otherwise than its file."""

    def make(root: Path) -> None:
        _coco(lambda content: content["images"][0].update(file_name="1.png"))(root)
        path = root / "annotations.json"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"1.png"', json.dumps(name)), encoding="utf-8")
        (root / "images/1.png").rename(root / "images" / file)

    return make


def _mask(*values: int, name: str = "1.png") -> Callable[[Path], None]:
    """A mask of the first image that has these values in columns of the same width."""

    def make(root: Path) -> None:
        _coco(lambda content: content["images"][0].update(mask_file_name=name))(root)
        (root / "masks").mkdir()
        row = np.repeat(np.array(values, np.uint8), 50 // len(values))
        Image.fromarray(np.tile(row, (40, 1))).save(root / "masks" / name)

    return make


def _pair(**changes: Any) -> Callable[[Path], object]:
    return lambda root: pairs.written(root, {**pairs.PAIR, **changes})


def _pascal(*changes: tuple[str, str]) -> Callable[[Path], None]:
    """PF-PASCAL whose points are in the list of pairs, with the list changed."""

    def make(root: Path) -> None:
        path = flow.pascal(root) / "test_pairs.csv"
        (root / "Annotations/cat/two.mat").unlink()
        (root / "trn_pairs.csv").unlink()
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")

    return make


def _beside(root: Path) -> None:
    folder = flow.willow(root) / "car(S)"
    (folder / "._a.png").touch()
    (folder / "folder.png").mkdir()
    (folder / "dead.png").symlink_to(folder / "gone.png")
    (folder / "raw.NEF").touch()


def _no_text(root: Path) -> None:
    """An image and its points whose names are not UTF-8."""
    folder = os.fsencode(flow.willow(root) / "car(S)")
    for suffix in (b"png", b"mat"):
        os.rename(folder + b"/a." + suffix, folder + b"/caf\xe9." + suffix)  # noqa: PTH104


def _text(text: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (coco.made_up(root) / "annotations.json").write_text(text, encoding="utf-8")

    return make


def _not_an_image(content: bytes) -> Callable[[Path], object]:
    return lambda root: (coco.made_up(root) / "images/1.png").write_bytes(content)


SPELLED = "names spelled in another way"
NUMBERS = [
    Kind("numbers as text", "coco", _first(bbox=["1", "2", "30", "20"]), FINE, "3 images"),
    Kind("ids as text", "coco", _first(image_id="0001", category_id=4.0), FINE, "3 images"),
    Kind(
        "no number", "coco", _first(bbox=[1, 2, "w", 4]), PROBLEM, "annotation 10: bbox, number 3 is 'w'; exp"
    ),
    Kind("a flag that is none", "coco", _first(iscrowd="x"), PROBLEM, "iscrowd is 'x'; expected 0 or 1"),
    Kind("no crowd", "coco", _first(iscrowd="0"), FINE, "3 images"),
    Kind("a crowd", "coco", _first(iscrowd="1"), FINE, "2 images"),
    Kind("a large box", "coco", _first(bbox=[1, 2, 3000, 20]), PROBLEM, "lie mostly outside their image"),
    Kind("a box of a pair", "pairs", _pair(source_box=["1", "2", "x", "4"]), PROBLEM, "box, number 3 is 'x'"),
    Kind(
        "a size", "coco", _coco(lambda c: c["images"][0].update(width=[50])), PROBLEM, "width is [50]; expec"
    ),
    Kind("digits", "coco", _text('{"images": ' + "7" * 5000 + "}"), PROBLEM, "no valid JSON"),
    Kind("depth", "coco", _text("[" * 100_000), PROBLEM, "no valid JSON"),
]
IMAGES = [
    Kind("exchanged sides", "coco", _turned(6), PROBLEM, "EXIF (orientation 6) turns it to 40x50 pixels"),
    Kind("turned upside down", "coco", _turned(3), FINE, "is turned by EXIF (orientation 3)"),
    Kind("10 of 16 bits", "coco", _deep, FINE, "1.png: uses 10 of its 16 bits"),
    Kind("HEIC", "coco", _not_an_image(b"\0\0\0\x18ftypheic" + bytes(40)), PROBLEM, "1.png: "),
    Kind("damaged", "coco", _not_an_image(b"\x89PNG\r\n\x1a\n" + bytes(40)), PROBLEM, "1.png: "),
    Kind(
        "a pointer", "coco", _not_an_image(b"version https://git-lfs.x"), PROBLEM, "is a pointer of Git LFS"
    ),
    Kind("a page", "coco", _text("<!doctype html>"), PROBLEM, "annotations.json: is a web page"),
    Kind("beside the images", "pf-willow", _beside, FINE, "1 .nef files"),
    Kind("macOS", "pf-willow", _beside, FINE, "1 files of macOS (._NAME)"),
    Kind(
        "dead links",
        "pf-willow",
        _beside,
        FINE,
        "1 folders named like images, 1 links to files that are miss",
    ),
    Kind("a mask of all", "coco", _mask(255), FINE, "the object covers 100% of the image"),
    Kind("a mask of nothing", "coco", _mask(0), PROBLEM, "the mask is all black"),
    Kind("noise of JPEG", "coco", _mask(0, 3, name="1.jpg"), PROBLEM, "the mask is all black"),
    Kind("a trimap", "coco", _mask(1, 2), PROBLEM, "is it a trimap?"),
    Kind("a grey trimap", "coco", _mask(0, 128, 128, 255, 255), FINE, "1.png: grey mask"),
    Kind("a mask of JPEG", "coco", _mask(0, 255, name="1.jpg"), FINE, "3 images"),
    Kind(
        "an empty outline", "coco", _first(segmentation=[[3, 4]]), FINE, "polygons of less than three points"
    ),
]
CONVENTIONS = [
    Kind(
        "columns in order", "pf-pascal", _pascal(("XA,YA", "YA,XA"), ("1;5,2;6", "2;6,1;5")), FINE, "1 pairs"
    ),
    Kind(
        "semicolons", "pf-pascal", _pascal((";", "|"), (",", ";"), ("|", ",")), PROBLEM, "is '1,5'; expected"
    ),
    Kind(
        "flags 0 and 1", "coco", _flags(1, 0, 1), FINE, "no keypoint has flag 2, so flag 1 counts as visible"
    ),
    Kind("hidden ones", "coco", _flags(2, 2, 1), FINE, "3 keypoints are marked as hidden (flag 1)"),
    Kind("confidences", "coco", _flags(0.9, 2, 2), PROBLEM, "the flag 0.9 of a keypoint is not 0, 1 or 2"),
    Kind("id 0", "coco", _first(id=0), FINE, "ids of results of a transfer begin at 1: annotation 0 gets"),
    Kind("skeleton from 0", "coco", _category(skeleton=[[0, 2], [1, 2]]), FINE, "the skeleton counts from 0"),
    Kind(
        "limbs of nothing", "coco", _category(skeleton=[[1, 9]]), FINE, "1 limbs of the skeleton join no two"
    ),
    Kind("pairs from 1", "coco", _category(flip_pairs=[[1, 2]]), FINE, "flip pairs count from 1"),
    Kind(
        "other pairs", "coco", _category(flip_pairs=[[0, 2]]), FINE, "though the names pair other keypoints"
    ),
    Kind(
        "flip_idx", "coco", _category(flip_idx=[1, 1, 2]), PROBLEM, "does not give each keypoint its partner"
    ),
    Kind("a category each", "coco", _coco(_split_up), FINE, "3 categories are read as the keypoints of one"),
    Kind("triples", "coco", _first(keypoints=[[5, 7, 2], None, [6, 8, 2]]), FINE, "6 pairs"),
    Kind("objects by id", "coco", _coco(_as_objects), FINE, "images have names but no ids"),
    Kind("no ids", "coco", _coco(lambda c: [each.pop("id") for each in c["annotations"]]), FINE, "3 images"),
    Kind("twice", "coco", _coco(_twice), PROBLEM, "1 annotations that stand there twice"),
    Kind(
        "a line twice", "pairs", lambda root: pairs.written(root, pairs.PAIR, pairs.PAIR), PROBLEM, "repeat a"
    ),
    Kind("no box", "coco", _first(bbox=None), PROBLEM, "1 of 3 objects as targets, because they have no box"),
    Kind(
        "a flat box",
        "coco",
        _first(bbox=[1, 2, 0, 0]),
        PROBLEM,
        "1 boxes without extent, which count as none",
    ),
    Kind("no keypoints", "coco", _first(keypoints=[]), FINE, "1 annotations have no list of keypoints"),
    Kind("null", "coco", _first(keypoints=[5, 7, 2, None, None, 0, 6, 7, 2]), FINE, "6 pairs"),
    Kind(
        "padding", "pairs", _pair(source_points=[[1, 2], [-1, -1], []]), FINE, "2 points of -1 -1, 0 0, NaN"
    ),
    Kind(
        "padding in a list",
        "pf-pascal",
        _pascal(("1;5,2;6", "1;nan,2;nan")),
        FINE,
        "1 points of -1 -1, 0 0, NaN or",
    ),
    Kind("shares", "pairs", _pair(source_points=[[0.1, 0.2]], target_points=[[1, 2]]), FINE, "1 pairs"),
    Kind(
        "shares of a large image", "pairs", lambda root: _shares(root), PROBLEM, "all lie within 0…1, though"
    ),
    Kind("a list of COCO", "pairs", lambda root: _coco_list(root), PROBLEM, "it is a COCO annotation file"),
    Kind("labelme", "coco", _text('{"version": "5", "shapes": []}'), PROBLEM, "shows no keypoint; annotate"),
    Kind("VIA", "coco", _text('{"_via_img_metadata": {}}'), PROBLEM, "but it is a VIA project"),
]
NAMES = [
    Kind(
        "backslashes", "coco", _called("x\\1.png", "1.png"), FINE, f"{SPELLED} (folders of another place): 1"
    ),
    Kind("another machine", "coco", _called("C:\\x\\1.png", "1.png"), FINE, f"{SPELLED} (folders of another"),
    Kind("%20", "coco", _called("a%20b.png", "a b.png"), FINE, f"{SPELLED} (%20): 1"),
    Kind("capitals", "coco", _called("a.PNG", "a.png"), FINE, f"{SPELLED} (capitals): 1"),
    Kind(
        "accents",
        "coco",
        _called(unicodedata.normalize("NFD", "é.png"), "é.png"),
        FINE,
        f"{SPELLED} (accents)",
    ),
    Kind("brackets", "coco", _called("[b]a[/x].png", "a.png"), PROBLEM, "[b]a[/x].png: no such image"),
    Kind("surrogates", "coco", _called("\ud800.png", "a.png"), PROBLEM, "\\ud800.png: "),
    Kind("long names", "coco", _called("x" * 300 + ".png", "a.png"), PROBLEM, "x.png: "),
    Kind("not UTF-8", "pf-willow", _no_text, FINE, "test: 6 pairs, 3 images"),
]
KINDS = [*NUMBERS, *IMAGES, *CONVENTIONS, *NAMES]


def _coco_list(root: Path) -> None:
    text = (coco.made_up(root) / "annotations.json").read_text(encoding="utf-8")
    (root / "pairs.jsonl").write_text(text, encoding="utf-8")


def _shares(root: Path) -> None:
    pairs.written(root, {**pairs.PAIR, "source_points": [[0.1, 0.2]], "target_points": [[1, 2]]})
    Image.new("RGB", (80, 60)).save(root / "a.png")
