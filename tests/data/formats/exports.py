"""Files as the tools export them, with their oddities; each shows the keypoints of `EXPECTED`."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import h5py
import numpy as np
import yaml
from PIL import Image

NAMES = ["tail", "right ear", "nose"]
SIZE = (120, 80)
PLACES = {"tail": (30.0, 20.0), "nose": (90.0, 60.5)}
"""The right ear is hidden at 60, 40 where a format knows hidden keypoints, else absent."""

HIDDEN = (60.0, 40.0)
FLAT = [30, 20, 2, 60, 40, 1, 90, 60.5, 2]
CATEGORY = {"id": 1, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 3]], "supercategory": ""}


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (200, 90, 10)).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for each in sorted(folder.rglob("*")):
            file.write(each, each.relative_to(folder).as_posix())
    return path


def coco(name: str, category: int = 1, **changes: Any) -> dict[str, Any]:
    """A COCO file of one image, with another category before the cats if their id is 1 or more."""
    image = {"id": 7, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
    entry = {
        "id": 1,
        "image_id": 7,
        "category_id": category,
        "keypoints": FLAT,
        "bbox": [20, 10, 80, 60],
        **changes,
    }
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {
            "contributor": "",
            "date_created": "",
            "description": "",
            "url": "",
            "version": "",
            "year": "",
        },
        "categories": [{**CATEGORY, "id": category}],
        "images": [image],
        "annotations": [entry],
    }


def coco_of_cvat(folder: Path) -> Path:
    picture(folder / "images/default/cats/1.jpg")
    return text(folder / "annotations/person_keypoints_default.json", json.dumps(coco("cats/1.jpg")))


def coco_of_older_cvat(folder: Path) -> Path:
    picture(folder / "images/1.jpg")
    return text(folder / "annotations/person_keypoints_default.json", json.dumps(coco("1.jpg")))


def coco_of_roboflow(folder: Path) -> Path:
    """A folder with two splits; a category of all, and ids as text."""
    for split, name in (("train", "1_jpg.rf.0a1b.jpg"), ("valid", "2_jpg.rf.0a1b.jpg")):
        picture(folder / split / name)
        content = coco(name, category=1)
        content["images"][0]["id"] = content["annotations"][0]["image_id"] = "0"
        content["categories"].insert(0, {"id": 0, "name": "cat", "supercategory": "none"})
        text(folder / split / "_annotations.coco.json", json.dumps(content))
    return folder


def coco_of_label_studio(folder: Path) -> Path:
    picture(folder / "images/0a1b2c3d-1.jpg")
    return text(folder / "result.json", json.dumps(coco("images\\0a1b2c3d-1.jpg")))


def coco_of_windows(folder: Path) -> Path:
    """Absolute paths of another machine, and the box of a single point."""
    picture(folder / "data/1.jpg")
    flat = [30, 20, 2, 0, 0, 0, 0, 0, 0]
    content = coco("C:\\Users\\me\\data\\1.jpg")
    content["annotations"].append(
        {**content["annotations"][0], "id": 2, "keypoints": flat, "bbox": [30, 20, 0, 0]}
    )
    return text(folder / "labels.json", json.dumps(content))


def coco_of_a_folder_without_keypoints(folder: Path) -> Path:
    """CVAT's other file of the same images stands beside."""
    coco_of_cvat(folder)
    content = coco("cats/1.jpg")
    content["categories"] = [{"id": 1, "name": "cat"}]
    text(folder / "annotations/instances_default.json", json.dumps(content))
    return folder


SVG = (
    '<line x1="1" y1="1" x2="9" y2="9" data-type="edge" data-node-from="7" data-node-to="9"></line>'
    '<circle r="1.5" cx="1" cy="1" data-type="element node" data-element-id="7" data-node-id="7" '
    'data-label-name="tail"></circle>'
    '<circle r="1.5" cx="5" cy="5" data-type="element node" data-element-id="8" data-node-id="8"></circle>'
    '<circle r="1.5" cx="9" cy="9" data-type="element node" data-element-id="9" data-node-id="9" '
    'data-label-name="nose"></circle>'
)


def cvat(folder: Path) -> Path:
    """A zip, as CVAT for images 1.1 with images makes it."""
    picture(folder / "pack/images/cats/1.jpg")
    labels = (
        f"<label><name>cat</name><color>#ff0000</color><type>skeleton</type><svg>{escape(SVG)}</svg></label>"
        + "".join(
            f"<label><name>{each}</name><type>points</type><attributes></attributes><parent>cat</parent></label>"
            for each in NAMES
        )
    )
    points = "".join(
        f'<points label="{name}" occluded="{hidden}" outside="{out}" points="{x:.2f},{y:.2f}"></points>'
        for name, hidden, out, x, y in (
            ("nose", 0, 0, 90, 60.5),
            ("right ear", 1, 0, 60, 40),
            ("tail", 0, 0, 30, 20),
        )
    )
    text(
        folder / "pack/annotations.xml",
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>'
        f"<meta><job><labels>{labels}</labels></job></meta>\n"
        '<image id="0" name="cats/1.jpg" width="120" height="80">'
        f'<skeleton label="cat" source="manual" z_order="0">{points}</skeleton></image>'
        '<image id="1" name="2.jpg" width="120" height="80"></image></annotations>',
    )
    return zipped(folder / "pack", folder / "task.zip")


def _region(name: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    value = {"x": 100 * x / SIZE[0], "y": 100 * y / SIZE[1], "width": 0.5, "keypointlabels": [name]}
    sides = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}
    return {
        "id": name,
        "type": "keypointlabels",
        "from_name": "kp",
        "to_name": "img",
        "value": value,
        **sides,
        **more,
    }


def label_studio(folder: Path) -> Path:
    """An upload, a cancelled annotation, a relation, and a task of predictions only."""
    picture(folder / "images/my_1.jpg")
    box = {"x": 10, "y": 12.5, "width": 75, "height": 75, "rotation": 0, "rectanglelabels": ["cat"]}
    regions = [
        {**_region("", 0, 0), "id": "box", "type": "rectanglelabels", "value": box},
        _region("tail", 30, 20, parentID="box"),
        _region("nose", 90, 60.5),
        {"from_id": "box", "to_id": "nose", "type": "relation", "direction": "right"},
        {"from_id": "tail", "to_id": "nose", "type": "relation", "direction": "right"},
    ]
    tasks = [
        {
            "id": 12,
            "annotations": [
                {"id": 3, "was_cancelled": True, "result": [_region("tail", 1, 1)]},
                {"id": 4, "was_cancelled": False, "ground_truth": False, "result": regions},
            ],
            "predictions": [],
            "data": {"image": "/data/upload/1/0a1b2c3d-my_1.jpg"},
        },
        {
            "id": 13,
            "annotations": [],
            "predictions": [{"result": [_region("nose", 1, 1)]}],
            "data": {"image": "x.jpg"},
        },
    ]
    return text(folder / "project-1-at-2026.json", json.dumps(tasks))


def dlc(folder: Path, multi: bool = False) -> Path:
    """A project of another machine, whose table has another order, and a row that is not labelled."""
    picture(folder / "labeled-data/film/img01.png")
    config = {
        "Task": "cat",
        "scorer": "me",
        "project_path": "C:\\work\\cat",
        "multianimalproject": multi,
        "bodyparts": "MULTI!" if multi else NAMES,
        "multianimalbodyparts": NAMES,
        "skeleton": [["tail", "nose"], ["tail", "gone"]],
    }
    text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    order = ["nose", "right ear", "tail"]
    columns = [(each, coord) for each in order for coord in "xy"]
    values = [90, 60.5, "", "", 30, 20]
    rows: list[list[Any]] = [
        ["scorer", "", "", *["me"] * 6],
        ["individuals", "", "", *["one"] * 6],
        ["bodyparts", "", "", *[each for each, _ in columns]],
        ["coords", "", "", *[coord for _, coord in columns]],
        ["labeled-data", "film", "img01.png", *values],
        ["labeled-data", "film", "img02.png", *[""] * 6],
    ]
    if not multi:
        del rows[1]
    with (folder / "labeled-data/film/CollectedData_me.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def dlc_of_windows(folder: Path) -> Path:
    """The table alone, of an older version: one column of paths with backslashes."""
    dlc(folder)
    path = folder / "labeled-data/film/CollectedData_me.csv"
    lines = [line.split(",", 3) for line in path.read_text().splitlines()]
    old = ["\\".join(filter(None, line[:3])) + f",{line[3]}" for line in lines]
    return text(path, "\r\n".join(old))


def dlc_hdf(folder: Path) -> Path:
    """The same as pandas writes it by PyTables, without the CSV."""
    path = dlc(folder) / "labeled-data/film/CollectedData_me.csv"
    path.unlink()
    index = [["labeled-data"], ["film"], ["img01.png", "img02.png"]], [[0, 0], [0, 0], [0, 1]]
    columns = [["me"], ["nose", "right ear", "tail"], ["x", "y"]], [[0] * 6, [0, 0, 1, 1, 2, 2], [0, 1] * 3]
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        group = file.create_group("df_with_missing")
        for key, (levels, codes) in {"axis1": index, "block0_items": columns}.items():
            for number, (level, code) in enumerate(zip(levels, codes, strict=True)):
                group[f"{key}_level{number}"] = np.array(level, "S")
                group[f"{key}_label{number}"] = np.array(code, np.int8)
        group["block0_values"] = np.array([[90, 60.5, np.nan, np.nan, 30, 20], [np.nan] * 6])
    return folder


def sleap(folder: Path, package: bool = False) -> Path:
    """As sleap-io writes it."""
    import sleap_io

    path = picture(folder / "film/1.png")
    skeleton = sleap_io.Skeleton([*NAMES], edges=[("tail", "nose")], name="cat")
    points = np.array([PLACES["tail"], HIDDEN, PLACES["nose"]])
    instance = sleap_io.Instance.from_numpy(points, skeleton=skeleton)
    instance.points["visible"][1] = False
    guess = sleap_io.PredictedInstance.from_numpy(points + 3, skeleton=skeleton, score=0.5)
    video = sleap_io.Video.from_filename([str(path)])
    frame = sleap_io.LabeledFrame(video=video, frame_idx=0, instances=[instance, guess])
    out = folder / ("labels.pkg.slp" if package else "labels.slp")
    sleap_io.Labels([frame]).save(str(out), embed="user" if package else False, verbose=False)
    if package:
        path.unlink()
    return out


def yolo(folder: Path, layout: str = "images/{}", windows: bool = False) -> Path:
    """Two splits; a third that is not there, and a path of another machine."""
    places = {each: layout.format(each) for each in ("train", "val")}
    config: dict[str, Any] = {
        "path": "/content/datasets/cats",
        **places,
        "test": None,
        "kpt_shape": [3, 3],
        "flip_idx": [0, 1, 2],
        "kpt_names": {0: NAMES},
        "names": {0: "dog", 1: "cat"},
    }
    image = picture(folder / places["train"] / "1.jpg")
    picture(folder / places["val"] / "2.jpg")
    values = [0.5, 0.5, 80 / 120, 60 / 80, 30 / 120, 20 / 80, 2, 60 / 120, 40 / 80, 1, 90 / 120, 60.5 / 80, 2]
    label = Path(str(image).replace("/images", "/labels")).with_suffix(".txt")
    text(label, "1 " + " ".join(map(str, values)) + "\n")
    if windows:
        config |= {each: place.replace("/", "\\") for each, place in places.items()}
    return text(folder / "data.yaml", yaml.safe_dump(config, sort_keys=False)).parent


def yolo_of_roboflow(folder: Path) -> Path:
    """Splits with images and labels in each, which data.yaml calls by ``../``."""
    yolo(folder, "{}/images")
    path = folder / "data.yaml"
    content = yaml.safe_load(path.read_text())
    del content["path"]
    content |= {"train": "../train/images", "val": "../valid/images", "names": ["dog", "cat"]}
    (folder / "val").rename(folder / "valid")
    text(path, yaml.safe_dump(content))
    return path


def labelme(folder: Path) -> Path:
    picture(folder / "images/1.jpg")
    shapes = [
        _shape("cat", "rectangle", [[100, 70], [20, 10]]),
        _shape("tail", "point", [[30, 20]]),
        _shape("right ear", "point", [[60, 40]], difficult=True),
        _shape("nose", "point", [[90, 60.5]]),
        _shape("meadow", "polygon", [[1, 1], [5, 1], [5, 5]], group_id=None),
    ]
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": "..\\images\\1.jpg",
        "imageData": None,
    }
    text(folder / "labels/1.json", json.dumps({**content, "imageHeight": SIZE[1], "imageWidth": SIZE[0]}))
    return folder / "labels"


def _shape(label: str, kind: str, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": 1, "shape_type": kind, "flags": {}, **more}


EXPORTS: dict[str, tuple[Callable[[Path], Path], str, bool, int]] = {
    "COCO of CVAT": (coco_of_cvat, "coco", True, 1),
    "COCO of an older CVAT": (coco_of_older_cvat, "coco", True, 1),
    "COCO of Roboflow": (coco_of_roboflow, "coco", True, 2),
    "COCO of Label Studio": (coco_of_label_studio, "coco", True, 1),
    "COCO of Windows": (coco_of_windows, "coco", True, 2),
    "COCO beside another": (coco_of_a_folder_without_keypoints, "coco", True, 1),
    "CVAT": (cvat, "cvat", True, 1),
    "Label Studio": (label_studio, "labelstudio", False, 1),
    "DeepLabCut": (dlc, "dlc", False, 1),
    "DeepLabCut, several animals": (lambda folder: dlc(folder, multi=True), "dlc", False, 1),
    "DeepLabCut of Windows": (dlc_of_windows, "dlc", False, 1),
    "DeepLabCut as HDF5": (dlc_hdf, "dlc", False, 1),
    "SLEAP": (sleap, "slp", True, 1),
    "a SLEAP package": (lambda folder: sleap(folder, package=True), "slp", True, 1),
    "YOLO": (yolo, "yolo", True, 1),
    "YOLO of Windows": (lambda folder: yolo(folder, windows=True), "yolo", True, 1),
    "YOLO of Roboflow": (yolo_of_roboflow, "yolo", True, 1),
    "labelme": (labelme, "labelme", True, 1),
}
"""What makes it, its format, whether it knows hidden keypoints, and how many objects it shows."""
