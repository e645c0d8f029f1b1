"""Commands that are right, with what they read; `tests.fuzz.runs` changes what they are given."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fuzz.seeds import COCO, MORE, TOY


@dataclass(frozen=True)
class Case:
    """A command that is right.

    Attributes:
        name: for the table; the first word, or the first two, and what is special.
        words: of the command line; ``{…}`` stands for one of those in `CHOICES`.
        reads: files and folders that it reads beside those that are named in the words.
        spoils: patterns of what is changed, if not everything that is read.
        owns: patterns of what it may change itself.
        fails: whether exit code 1 tells of failures among many.
        stop: after how many steps of long work it is interrupted.
        weight: how often it comes.
    """

    name: str
    words: str
    reads: tuple[str, ...] = ()
    spoils: tuple[str, ...] = ("*",)
    owns: tuple[str, ...] = ()
    fails: bool = False
    stop: int | None = None
    weight: int = 2


SAME = {"@toy": TOY, "@coco": COCO, "@more": MORE}
"""Words that many commands have."""

_SETS = {
    "coco": ("coco", "val"),
    "spair71k": ("spair", "test"),
    "pf-pascal": ("pascal", "test"),
    "pf-willow": ("willow", "test"),
    "pairs": ("pairs", "mine"),
    "spair-u": ("unseen", "test"),
    "cub": ("cub", "all"),
    "awa-pose": ("awa", "all"),
    "tss": ("tss", "test"),
    "soco": ("soco", "cross"),
}
_RUN = ("run/checkpoint.safetensors", "run/log.jsonl", "run/config.yaml", "run/last/*", "run/best/*")
_SHOWN = ("coco/images", "coco/masks")

IMAGES = (
    "a.png b.jpg cmyk.jpg progressive.jpeg lossy.webp lossless.webp c.bmp d.gif palette.png "
    "alpha.png la.png bits.png e.ppm f.pgm deep.png float.tif integer.tif deep.tif raw.tif "
    "tiff_lzw.tif tiff_adobe_deflate.tif jpeg.tif packbits.tif fax.tiff cmyk.tiff several.tiff "
    "g.avif"
)
"""One of each format and mode."""

CHOICES = {
    "image": IMAGES.split(),
    "points": ("points.csv", "plain.csv", "points.json", "named.json"),
    "pose": ("flip", "rotate", "auto"),
    "labels": ("labels.csv", "labels.json"),
    "boxes": ("megadetector.json", "results.json"),
    "by": ("category", "keypoint", "azimuth"),
    "exif": ("upright", "stored"),
    "analysis": ("table2", "table3", "fig4", "fig15"),
    "place": ("best", "last"),
}

CASES = (
    Case("match", "match img/{image} img/a.png --point 17,24 --exif {exif} @toy --json m.json", weight=8),
    Case("match", "match img/a.png img/{image} --point 17,24 @toy --out m.png", weight=8),
    Case(
        "match points",
        "match img/a.png img/c.bmp --points {points} @toy",
        spoils=("*.csv", "*.json"),
        weight=5,
    ),
    Case(
        "match heatmap", "match img/a.png img/c.bmp --points {points} @toy --out m.png --heatmap 1", weight=1
    ),
    Case("match folder", "match img/a.png coco/images --points {points} @toy --json found", fails=True),
    Case(
        "match masks",
        "match img/a.png coco/images/0.png --point 17,24 @toy --mask coco/masks/0.png "
        "--target-mask coco/masks/1.png --pose {pose}",
    ),
    Case("dense", "dense img/{image} img/a.png @toy --size 40 --out f.npz"),
    Case(
        "warp",
        "warp coco/images/0.png img/{image} @toy --size 40 --mask coco/masks/0.png --smooth 0.01 --out w.png",
    ),
    Case(
        "predict store",
        "predict @coco @toy --cache store --out new.jsonl",
        spoils=("store/*",),
        owns=("store/*",),
    ),
    Case(
        "match network",
        "match img/a.png img/c.bmp --point 17,24 @toy --post-processor network",
        spoils=("network/*",),
        weight=3,
    ),
    Case(
        "match released",
        "match img/a.png img/c.bmp --point 17,24 @toy --post-processor released/best.PTH",
        spoils=("released/*",),
    ),
    Case(
        "match tuned",
        "match img/a.png img/c.bmp --point 17,24 --extractor lite --device cpu --set weights=tuned",
        spoils=("tuned/*",),
        weight=1,
    ),
    Case("extract", "extract img --cache fresh @toy --poses identity,flip", fails=True, weight=1),
    Case(
        "extract again",
        "extract coco/images --cache store @toy --poses identity,flip",
        owns=("store/*",),
        fails=True,
    ),
    Case(
        "extract check",
        "extract coco/images --cache store @toy --poses identity,flip --check",
        owns=("store/*/manifest.json",),
        weight=1,
    ),
    *(
        Case(
            f"predict {name}", f"predict --dataset {name} --root {root} --split {split} @toy --out new.jsonl"
        )
        for name, (root, split) in _SETS.items()
    ),
    Case(
        "predict listed", "predict @coco --option pairs=pairs.jsonl @toy --out new.jsonl", spoils=("*.json*",)
    ),
    Case("predict masks", "predict @coco @toy --masks --pose flip --out new.jsonl", weight=1),
    Case(
        "predict again",
        "predict @coco @toy --out half.jsonl",
        reads=("half.jsonl.part",),
        spoils=("half.jsonl.part",),
        owns=("half.jsonl.part", "half.jsonl"),
    ),
    Case("evaluate", "evaluate @coco @toy --out new.jsonl --csv e.csv --markdown e.md --by {by}", weight=3),
    Case(
        "evaluate again",
        "evaluate @coco @toy --out p.jsonl --json",
        spoils=("p.jsonl",),
        owns=("p.jsonl", "p.jsonl.part"),
    ),
    Case("score", "score p.jsonl --by {by} --csv s.csv --markdown s.md --draws 9", weight=5),
    Case("score plots", "score p.jsonl --window-run q.jsonl --plots plots --draws 9", weight=1),
    Case("gallery", "gallery p.jsonl --root coco --out g.html", weight=3),
    Case("gallery two", "gallery p.jsonl q.jsonl --root coco --out g.html --worst 3", spoils=("*.json*",)),
    *(
        Case(f"data check {name}", f"data check {name} {root} --split {split}")
        for name, (root, split) in _SETS.items()
    ),
    Case(
        "data check coco",
        "data check coco coco --annotations train.json --pairs pairs.jsonl",
        spoils=("*.json*",),
    ),
    Case(
        "data build-ap10k",
        "data build-ap10k ap10k --out built --exclude exclude.txt",
        spoils=("*.json", "*.txt"),
    ),
    Case("pose", "pose coco/images --templates sets @toy --labels {labels} --out new.json", fails=True),
    Case(
        "pose masks", "pose coco/images --templates sets --masks coco/masks --template-masks @toy", fails=True
    ),
    Case(
        "pose again",
        "pose coco/images --templates sets @toy --out half.json",
        reads=("half.json.part",),
        spoils=("half.json.part",),
        owns=("half.json.part", "half.json"),
        fails=True,
    ),
    Case(
        "pose read",
        "pose coco/images --templates sets @toy --out poses.json",
        spoils=("poses.json",),
        fails=True,
    ),
    Case(
        "transfer",
        "transfer coco/train.json img/{image} img/a.png @toy --out new.json --review r.html",
        reads=_SHOWN,
        fails=True,
        weight=3,
    ),
    Case(
        "transfer targets",
        "transfer coco/train.json --targets more/val.json @toy --out new.json --evaluate",
        spoils=("*.json",),
        reads=(*_SHOWN, "more/images", "more/masks"),
        fails=True,
        weight=3,
    ),
    Case(
        "transfer detections",
        "transfer coco/train.json @more @toy --root . --out new.json --detections {boxes}",
        reads=_SHOWN,
        spoils=("megadetector.json", "results.json"),
        fails=True,
    ),
    Case(
        "transfer again",
        "transfer coco/train.json @more @toy --root . --out some.json",
        reads=("some.json.part", *_SHOWN),
        spoils=("some.json.part",),
        owns=("some.json.part", "some.json"),
        fails=True,
    ),
    Case(
        "transfer read",
        "transfer coco/train.json @more @toy --root . --out found.json --review r.html",
        spoils=("found.json",),
        reads=_SHOWN,
        fails=True,
    ),
    Case(
        "train",
        "train train.yaml --out new --device cpu",
        reads=("faces", "features"),
        spoils=("train.yaml",),
        owns=("features/*",),
        stop=2,
        weight=5,
    ),
    Case(
        "train data",
        "train train.yaml --out new --device cpu",
        reads=("faces", "features"),
        spoils=("faces/plain/*", "features/*"),
        owns=("features/*",),
        stop=2,
    ),
    Case(
        "train again",
        "train train.yaml --out run --device cpu",
        reads=("faces", "features"),
        spoils=_RUN,
        owns=("run/*", "features/*"),
        stop=2,
        weight=3,
    ),
    Case(
        "train start",
        "train train.yaml --out new --device cpu --set start=run/{place}",
        reads=("faces", "features"),
        spoils=("run/*",),
        owns=("features/*",),
        stop=2,
        weight=1,
    ),
    Case("tune", "tune tune.yaml --out new --device cpu", reads=("faces",), spoils=("tune.yaml",), stop=1),
    Case(
        "tune data",
        "tune tune.yaml --out new --device cpu",
        reads=("faces",),
        spoils=("faces/*",),
        stop=1,
        weight=1,
    ),
    Case(
        "ablation",
        "ablation train.yaml --out new --seeds 1 --device cpu",
        reads=("faces", "features"),
        spoils=("train.yaml",),
        owns=("features/*",),
        stop=1,
    ),
    Case("reproduce", "reproduce {analysis} @coco @toy --out new", fails=False, weight=1),
    Case(
        "reproduce study",
        "reproduce table2 --dataset study.yaml --root . @toy --out new",
        reads=("coco",),
        spoils=("study.yaml",),
        weight=1,
    ),
    Case("info", "info --json", weight=1),
    Case("info convert", "info --convert-captioner odise.pth --out c.safetensors"),
    Case("examples", "examples photos", weight=1),
    Case("demo", "demo --port 0 --device cpu", weight=1),
    Case("review", "review coco/train.json --images coco/images --suggest 3", spoils=("*.json*",)),
    Case("serve", "serve --port 0 --device cpu --host 0.0.0.0 --token 0123456789abcdef", weight=1),
)
