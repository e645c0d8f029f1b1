"""Valid input of every command, made once in a folder; runs copy what they need and change it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, features
from safetensors.torch import save_file

from geoaware.features.tuned import TunedNetwork, TunedShape
from geoaware.method.post_processor import PostProcessor
from geoaware.studies.tiny_networks import odise_state
from tests.data import benchmarks
from tests.data import test_pairs as pairs
from tests.data import test_proposal_flow as flow
from tests.data import test_spair as spair
from tests.data.ap10k_files import annotation, write_files
from tests.fuzz import frame
from tests.toys import face
from tests.training.backbone.tiny import draw_sets
from tests.training.backbone.tiny import settings as tuning

SIDE = 48
POINTS = ((17, 24), (31, 24), (24, 33))
NAMES = ("left eye", "right eye", "nose")
TOY = ("--extractor", "toy", "--device", "cpu")
MORE = ("img/a.png", "img/c.bmp")
COCO = ("--dataset", "coco", "--root", "coco", "--split", "val")


def make(root: Path) -> Path:
    """Write everything; what commands wrote themselves (predictions, parts, features, runs) is real."""
    root.mkdir(parents=True)
    _images(root / "img")
    _points(root)
    _boxes(root)
    _coco(root / "coco", ("orange", "gray", "white", "khaki"))
    _coco(root / "more", ("tan", "sienna"))
    _other_sets(root)
    _templates(root)
    _networks(root)
    _configurations(root)
    _results(root)
    for rubbish in ("tmp", "cache"):
        shutil.rmtree(root / rubbish, ignore_errors=True)
    return root


def _face(colour: str = "orange", side: int = SIDE) -> Image.Image:
    return face(side, side, colour=colour)


def _images(folder: Path) -> None:
    """One of each format and mode that is read."""
    folder.mkdir()
    image, grey = _face(), _face().convert("L")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "a.png")
    image.save(folder / "b.jpg", exif=turned)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.save(folder / "progressive.jpeg", progressive=True)
    image.save(folder / "lossy.webp")
    image.save(folder / "lossless.webp", lossless=True, exif=turned)
    image.save(folder / "c.bmp")
    image.convert("P").save(folder / "d.gif", save_all=True, append_images=[_face("khaki").convert("P")])
    image.convert("P").save(folder / "palette.png", transparency=3)
    image.convert("RGBA").save(folder / "alpha.png")
    image.convert("LA").save(folder / "la.png")
    image.convert("1").save(folder / "bits.png")
    image.save(folder / "e.ppm")
    grey.save(folder / "f.pgm")
    deep = np.asarray(grey).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep.astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(deep.astype(np.int32)).save(folder / "integer.tif")
    Image.fromarray(deep).save(folder / "deep.tif", exif=turned)
    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        image.save(folder / f"{name}.tif", compression=name)
    image.convert("1").save(folder / "fax.tiff", compression="group4")
    image.convert("CMYK").save(folder / "cmyk.tiff")
    image.save(folder / "several.tiff", save_all=True, append_images=[grey])
    if features.check("avif"):
        image.save(folder / "g.avif", exif=turned)


def _points(root: Path) -> None:
    rows = [f"{name},{x},{y}" for name, (x, y) in zip(NAMES, POINTS, strict=True)]
    (root / "points.csv").write_text("name,x,y\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (root / "plain.csv").write_text("".join(f"{x};{y}\n" for x, y in POINTS), encoding="utf-8")
    content = {"points": [[*point] for point in POINTS], "names": [*NAMES], "flip_pairs": [[0, 1]]}
    _json(root / "points.json", content)
    _json(root / "named.json", dict(zip(NAMES, ([*point] for point in POINTS), strict=True)))


def _boxes(root: Path) -> None:
    """What detectors write of `MORE`."""
    seen = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.5, 0.6]}
    images = [{"file": MORE[0], "detections": [seen, {**seen, "category": "2"}]}]
    images += [{"file": "C:\\" + MORE[1].replace("/", "\\"), "failure": "cannot open"}]
    names = {"1": "animal", "2": "person"}
    _json(root / "megadetector.json", {"images": images, "detection_categories": names})
    results = [{"file_name": each, "category_id": 1, "bbox": [2, 3, 20, 30], "score": 0.9} for each in MORE]
    _json(root / "results.json", results)


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _coco(root: Path, colours: tuple[str, ...]) -> None:
    """Faces with boxes, polygons, a mask, an azimuth, flip pairs and a skeleton; and a list of pairs."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    kept: dict[str, list[Any]] = {"images": [], "annotations": []}
    for number, colour in enumerate(colours):
        _face(colour).save(root / "images" / f"{number}.png")
        _face().convert("L").point(lambda value: 255 * (value > 110)).save(root / "masks" / f"{number}.png")
        kept["images"].append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        if number == 1:
            kept["images"][-1]["mask_file_name"] = "1.png"
        shown = [value for point in POINTS for value in (*point, 2)]
        box = [7, 5, 34, 40]
        outline = [[7, 5, 41, 5, 41, 45, 7, 45]]
        entry = {"id": number + 1, "image_id": number, "category_id": 1, "keypoints": shown, "bbox": box}
        kept["annotations"].append({**entry, "segmentation": outline, "iscrowd": 0, "azimuth_id": number})
    category = {"id": 1, "name": "cat", "keypoints": [*NAMES], "skeleton": [[1, 3], [2, 3]]}
    content = {**kept, "categories": [{**category, "supercategory": "animal", "flip_pairs": [[0, 1]]}]}
    _json(root / "val.json", content)
    _json(root / "train.json", {**content, "flip_pairs": [[0, 1]], "keypoint_groups": [[0, 1]]})
    lines = [{"source": f"{a}.png", "target": f"{b}.png"} for a, b in ((0, 1), (2, 3))]
    (root / "pairs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")


def _other_sets(root: Path) -> None:
    spair.made_up(root / "spair")
    benchmarks.spair_u(root / "unseen")
    (root / "SPair-71k" / "JPEGImages").rename(root / "unseen" / "JPEGImages")
    shutil.rmtree(root / "SPair-71k")
    for name, make in (("cub", benchmarks.cub), ("awa", benchmarks.awa_pose)):
        make(root / name)
    benchmarks.tss(root / "tss")
    benchmarks.soco(root / "soco")
    flow.willow(root / "willow")
    flow.willow_list(root / "willow" / "test_pairs.csv", ("car(S)/c.png", "car(S)/a.png"))
    flow.pascal(root / "pascal")
    described = {"category": "chair", "keypoints": ["left leg", "right leg", "seat"]}
    boxed = {"category": "chair", "source_box": [0, 0, 9, 9], "target_box": [1, 2, 20, 15]}
    pairs.written(root / "pairs", {**pairs.PAIR, **boxed, "azimuth_difference": 3}, described)
    several = [annotation(number, name) for number in range(12) for name in ("dog", "cat")[number % 2 :][:1]]
    ap10k = write_files(root / "ap10k", several)
    (ap10k / "data").mkdir()
    for number in range(12):
        Image.new("RGB", (100, 80), (number * 20, 90, 30)).save(ap10k / "data" / f"{number:012d}.jpg")
    (root / "exclude.txt").write_text("5\n000000000007.jpg\n", encoding="utf-8")


def _templates(root: Path) -> None:
    for pose, colour in zip(("left", "right", "front", "back"), ("red", "gray", "tan", "blue"), strict=True):
        folder = root / "sets" / "one"
        folder.mkdir(parents=True, exist_ok=True)
        _face(colour).save(folder / f"{pose}.png")
        _face().convert("L").save(folder / f"{pose}_mask.png")
    (root / "labels.csv").write_text("image,pose\n0.png,left\n1.png,front\n", encoding="utf-8")
    _json(root / "labels.json", {"0.png": "left", "1.png": "front"})


def _networks(root: Path) -> None:
    torch.manual_seed(0)
    network = PostProcessor((18,), width=128, grid=7)
    network.save_pretrained(root / "network")
    (root / "released").mkdir()
    torch.save(network.state_dict(), root / "released" / "best.PTH")
    state = {key: value[..., :4].contiguous() for key, value in odise_state(tokens=4, text=4, time=4).items()}
    torch.save({"model": state}, root / "odise.pth")
    save_file({key.rsplit(".")[-1]: value for key, value in state.items()}, root / "some.safetensors")
    from geoaware.features.efficientnet_lite import imagenet_network

    TunedNetwork(TunedShape(8, 16, (1,), 0), imagenet_network()).save_pretrained(root / "tuned")


def _configurations(root: Path) -> None:
    draw_sets(root / "faces")
    training = {
        "extractor": "toy",
        "extractor_settings": {"weight": 1.5},
        "root": "faces",
        "cache": "features",
        "network": {"width": 128, "grid": 7},
        "stages": [
            {
                "data": [{"name": "coco", "root": "plain", "split": "train", "options": {"pairs": 6}}],
                "steps": 2,
            }
        ],
        "validation": {"data": [{"name": "coco", "root": "plain", "split": "val"}], "every": 2, "pairs": 3},
        "matching": {"window": 3},
        "save_every": 1,
    }
    tune = {**tuning(Path("faces"), Path("cache")), "steps": 1, "warmup": 1, "workers": 1, "size": 32}
    for name, content in (("train", training), ("tune", tune)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    one = {"label": "cats", "name": "coco", "root": "coco", "split": "val"}
    (root / "study.yaml").write_text(yaml.safe_dump({"about": "cats", "sets": [one]}), encoding="utf-8")


def _results(root: Path) -> None:
    """What commands write, also those that were stopped."""
    for path in (root / "coco" / "images").iterdir():
        os.utime(path, (1e9, 1e9))  # old enough to be remembered by the store's index
    predict, pose = ["predict", *COCO, *TOY], ["pose", "coco/images", "--templates", "sets", *TOY]
    transfer = ["transfer", "coco/train.json", *MORE, "--root", ".", *TOY, "--out"]
    _do(root, [*predict, "--out", "p.jsonl"])
    _do(root, [*predict, "--out", "q.jsonl", "--set", "window=5"])
    _do(root, [*predict, "--out", "half.jsonl"], stop=3)
    _do(root, [*pose, "--out", "poses.json"])
    _do(root, [*pose, "--out", "half.json"], stop=2)
    _do(root, [*transfer, "found.json"])
    _do(root, [*transfer, "some.json"], stop=1)
    _do(root, ["extract", "coco/images", "--cache", "store", *TOY, "--poses", "identity,flip"])
    _do(root, ["train", "train.yaml", "--out", "run", "--device", "cpu"], stop=2)


def _do(root: Path, words: list[str], stop: int | None = None) -> None:
    ended = frame.run(words, root, stop)
    shutil.rmtree(root / "tmp")
    if ended.trouble or ended.code != (0 if stop is None else 130):
        raise RuntimeError(f"{' '.join(words)}: {ended}")
