"""Small folders in the layout of the field's benchmarks, with images on which there is something to match."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geoaware.data.awa_pose import PARTS
from geoaware.data.flow import write_flow
from tests.data import test_spair as spair
from tests.toys import noise

SPECIES = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
CUB_PARTS = (
    *("back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape"),
    *("right eye", "right leg", "right wing", "tail", "throat"),
)


def saved(path: Path, seed: int, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(*size, seed).save(path)
    return path


def written(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def cub(root: Path) -> Path:
    """Five birds of two species, 1 and 2 for test; part n of bird b at (3 n, 2 b), part b not visible."""
    names = [f"{SPECIES[number > 3]}/bird_{number}.jpg" for number in range(1, 6)]
    for number, name in enumerate(names, start=1):
        saved(root / "images" / name, number)
    written(root / "images.txt", *(f"{number} {name}" for number, name in enumerate(names, start=1)))
    written(root / "bounding_boxes.txt", *(f"{number} {number}.0 2.0 40.0 30.0" for number in range(1, 6)))
    written(root / "train_test_split.txt", *(f"{number} {int(number > 2)}" for number in range(1, 6)))
    written(root / "parts/parts.txt", *(f"{each} {name}" for each, name in enumerate(CUB_PARTS, start=1)))
    places = [
        f"{bird} {part} {3.0 * part} {2.0 * bird} 1" if part != bird else f"{bird} {part} 0.0 0.0 0"
        for bird in range(1, 6)
        for part in range(1, 16)
    ]
    written(root / "parts/part_locs.txt", *places)
    return root


def animal(**changes: Any) -> dict[str, Any]:
    """All parts at (place, 7), but for the antlers."""
    parts = {part: [-1, -1] if "antler" in part else [number + 0.5, 7] for number, part in enumerate(PARTS)}
    return {**parts, "bbox": [2, 3, 50, 33], **changes}


def awa_pose(root: Path) -> Path:
    """Two foxes and a giant panda; the second fox has no box, and a second animal is beside the panda."""
    animals = {
        "fox/fox_10001": {"a1": animal()},
        "fox/fox_10002": {"a1": animal(nose=(9, 8), bbox=[-1, -1, -1, -1])},
        "giant+panda/giant+panda_10003": {"a1": animal(nose=[-1, -1]), "a2": animal()},
    }
    for protocol, (name, content) in enumerate(animals.items()):
        saved(root / f"JPEGImages/{name}.jpg", protocol)
        path = root / f"Annotations/{name}.pickle"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content, protocol=2 * protocol))
    return root


def tss(root: Path) -> Path:
    """A pair in two groups: image 2 is image 1 moved by (6, 6), a cell of `Sided`; the object is a box."""
    for group, name in (("FG3DCar", "001_005"), ("PASCAL", "bike_01_02")):
        folder = root / group / name
        folder.mkdir(parents=True)
        whole = np.array(noise(84, 58, 5))
        for number, move in ((1, 6), (2, 0)):
            Image.fromarray(whole[move : move + 52, move : move + 78]).save(folder / f"image{number}.png")
            mask = np.zeros((52, 78), np.uint8)
            mask[12 - move : 40 - move, 18 - move : 66 - move] = 255
            Image.fromarray(mask).save(folder / f"mask{number}.png")
            flow = np.full((52, 78, 2), 6.0 if number == 1 else -6.0)
            flow[mask == 0] = np.nan
            write_flow(folder / f"flow{number}.flo", flow)
        written(folder / "pair.txt", "Image1,Image2", "a.jpg,b.jpg")
    return root


def spair_u(root: Path) -> Path:
    """SPair-71k's two buses with three other keypoints, beside SPair-71k."""
    old = spair.made_up(root.parent / "SPair-71k")
    for place, path in enumerate(sorted((old / "ImageAnnotation/bus").glob("*.json"))):
        content = json.loads(path.read_text(encoding="utf-8"))
        points = {0: [10 + place, 20], 1: [30, 22 + place], 2: [44, 9] if place else None}
        content["kps"] = {str(each): points.get(each) for each in range(30)}
        goal = root / "ImageAnnotation/bus" / path.name
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.write_text(json.dumps(content), encoding="utf-8")
    pair = {"kps_ids": ["0", "1"], "src_kps": [[10, 20], [30, 22]], "trg_kps": [[11, 20], [30, 23]]}
    written(root / "PairAnnotation/test/000001-2008_000001-2008_000002:bus.json", json.dumps(pair))
    return root


WHEELS = {"front_left_wheel": [10, 30], "front_right_wheel": [20, 30], "rear_left_wheel": [40, 30]}


def soco_pair(source: str, target: str, group: str, **changes: Any) -> dict[str, Any]:
    """All wheels and the roof in the source; in the target no right wheel, all points 2 pixels lower."""

    def points(move: int, leave: str = "") -> list[dict[str, Any]]:
        wheels = [
            {"id": 7, "name": name, "pos": [x, y + move], "concept_id": 1, "concept_name": "wheel"}
            for name, (x, y) in WHEELS.items()
            if name != leave
        ]
        roof = {"id": 9, "name": "roof", "pos": [25, 5 + move], "concept_id": 2, "concept_name": "roof"}
        return [*wheels, roof]

    names = [*WHEELS, "roof"]
    seen = [name for name in names if name != "front_right_wheel"]
    return {
        "pair_id": 1,
        "pair_group": group,
        **{f"{side}_category": name.split("_")[0] for side, name in (("src", source), ("trg", target))},
        **{f"{side}_image": f"{name}.JPEG" for side, name in (("src", source), ("trg", target))},
        **{f"{side}_imsize": [60, 40] for side in ("src", "trg")},
        **{f"{side}_bndbox": [5, 3, 55, 38] for side in ("src", "trg")},
        "src_keypoints": points(0),
        "trg_keypoints": points(2, "front_right_wheel"),
        "semantic_overlap": seen,
        "concept_matches": [
            {"concept_name": "wheel", "src_keypoints": names[:3], "trg_keypoints": seen[:2]},
            {"concept_name": "roof", "src_keypoints": ["roof"], "trg_keypoints": ["roof"]},
        ],
        **changes,
    }


def soco(root: Path) -> Path:
    """A pair of cars in all splits but cross, and there one of a bus and a car that share a wheel only."""
    for number, name in enumerate(("car_1", "car_2", "bus_1")):
        saved(root / "Images" / name.split("_")[0] / f"{name}.JPEG", number)
    for split in ("intra", "trainsplits/train", "trainsplits/test"):
        content = soco_pair("car_1", "car_2", "car")
        written(root / f"PairAnnotations/{split}/car/00001-car_1-car_2.json", json.dumps(content))
    shared = {"semantic_overlap": ["rear_left_wheel"]}
    content = soco_pair("bus_1", "car_1", "road", **shared)
    written(root / "PairAnnotations/cross/road/00001-bus_1-car_1.json", json.dumps(content))
    return root
