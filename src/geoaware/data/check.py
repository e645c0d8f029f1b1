"""Looks through a data set's folder and tells everything that is wrong with it, not only the first thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path
from typing import Any

from geoaware.data import (
    ap10k,
    ap10k_pairs,
    awa_pose,
    checked,
    coco,
    cub,
    load,
    pf_pascal,
    pf_willow,
    soco,
    spair,
    spair_u,
    tss,
)
from geoaware.data.dataset import (
    ALIASES,
    DOUBTFUL,
    LEFT_OUT,
    NO_SUBGROUPS,
    SPLITS,
    Annotations,
    require_folders,
)
from geoaware.data.files import first_file, read_json, reading
from geoaware.data.formats import FORMATS
from geoaware.data.images import collecting, look_at
from geoaware.data.masks import object_mask
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError, reason

SHOWN = 10
"""Problems of one kind that are listed before the rest is only counted."""


@dataclass
class Findings:
    """What a check found.

    Attributes:
        problems: what must be mended.
        warnings: what a user should know but published data may really have.
        facts: what is there.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.problems

    def add_problems(self, lines: Iterable[str]) -> None:
        """The first few problems of a kind, and how many more there are."""
        found = list(dict.fromkeys(lines))
        self.problems += found[:SHOWN]
        if len(found) > SHOWN:
            self.problems.append(f"… and {len(found) - SHOWN} more like the last")


def check(name: str, root: Path, split: str | None = None, **given: Any) -> Findings:
    """Look through a data set's folder: what is there, what is missing or inconsistent.

    Unlike loading, this opens every image's header and every annotation, and goes on after a problem.
    Keypoints outside their image and pairs without a common keypoint are left out by the loaders; they are
    problems in one's own data (coco, pairs) and warnings in published data.

    Without ``split`` every split (every annotation file) is looked at; ``given`` are options of the loader.

    Raises:
        InputError: unknown data set, or the system does not let its folder be read.
    """
    given = checked(name, given)
    findings = Findings()
    with reading(root):
        if not root.is_dir():
            findings.problems.append(f"{root}: no such folder")
            return findings
        SOURCES[name].inspect(findings, root, split, given)
    findings.problems = list(dict.fromkeys(findings.problems))
    return findings


def _inspect_spair(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    if not list(_tried(findings, require_folders, root, spair.FOLDERS, "SPair-71k")):
        return
    splits = [split] if split else SPLITS
    for each in splits:
        _look(findings, spair.NAME, root, each, given, images=False)
    own = {name: chain(*_tried(findings, spair.layout_pairs, root, name)) for name in map(_own, splits)}
    _check_spair_pairs(findings, root, own)


def _inspect_spair_u(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    if not list(_tried(findings, require_folders, root, spair_u.FOLDERS, "SPair-U")):
        return
    _look(findings, spair_u.NAME, root, split or "test", given, images=False)
    for folder in _tried(findings, spair_u.picture_folder, root, given.get("images")):
        own = {"test": chain(*_tried(findings, spair_u.pair_names, root))}
        _check_spair_pairs(findings, root, own, folder)


def _own(split: str) -> str:
    return ALIASES.get(split, split)


def _check_spair_pairs(
    findings: Findings,
    root: Path,
    splits: Mapping[str, Iterable[tuple[str, str, str, str]]],
    pictures: Path | None = None,
) -> None:
    """Every image of the pairs by split, and where an image's annotation and a pair's own disagree."""
    images: dict[tuple[str, str], AnnotatedImage | None] = {}
    for split, names in splits.items():
        disagreements: list[str] = []
        for name, source, target, category in names:
            for key in ((category, source), (category, target)):
                if key not in images:
                    read = _tried(findings, spair.read_image, root, *key, Annotations(), pictures)
                    images[key] = next(read, None)
            sides = [side for each in (source, target) if (side := images[category, each])]
            if len(sides) == 2:
                disagreements += _spair_pair_problems(root / "PairAnnotation" / split, name, sides)
        findings.add_problems(disagreements)
    _check_images(findings, [found for found in images.values() if found])


def _spair_pair_problems(folder: Path, name: str, sides: Sequence[AnnotatedImage]) -> Iterator[str]:
    """Where a pair's own annotation and those of its images disagree, if it has one."""
    # ':' cannot be stored on Windows, where unpackers write '_' for it.
    path = first_file(folder, [f"{name}.json", f"{name.replace(':', '_')}.json"])
    if path is None:
        return
    try:
        annotation = read_json(path, "the annotation of a pair")
        ids = [int(each) for each in annotation["kps_ids"]]
        for image, points in zip(sides, (annotation["src_kps"], annotation["trg_kps"]), strict=True):
            listed = [[float(value) for value in point] for point in points]
            if image.keypoints.at(ids).tolist() != listed:
                yield f"{path}: points differ from those of {image.id} in ImageAnnotation"
    except InputError as error:
        yield str(error)
    except (KeyError, TypeError, ValueError) as error:
        yield f"{path}: is not an annotation of SPair-71k ({reason(error)})"


def _inspect_pf_pascal(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    found = [each for each in SPLITS if first_file(root, pf_pascal.csv_names(each))]
    if not found and not given.get("pairs"):
        findings.problems.append(f"{root}: no list of pairs {pf_pascal.csv_names('test')[0]!r} in it")
    for each in [split] if split else found or ["test"]:
        _look(findings, pf_pascal.NAME, root, each, given)


def _inspect_pf_willow(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    for files in _tried(findings, pf_willow.image_files, root, Annotations()):
        mats = [path.with_suffix(".mat") for path in files]
        findings.add_problems(_messages(mats, pf_willow.read_points))
    _look(findings, pf_willow.NAME, root, split or "test", given)


def _inspect_ap10k(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    missing = [name for name in ap10k_pairs.ANNOTATION_FILES if not (root / name).is_file()]
    built = root / str(given.get("built") or "correspondence")
    if not (built / ap10k_pairs.MANIFEST).is_file():
        findings.add_problems(f"{root / name}: no such file" for name in missing)
        findings.problems.append(f"{built}: not built yet; run geoaware data build-ap10k {root}")
        return
    findings.warnings += [f"{root / name}: no such file, needed to build again" for name in missing]
    chosen = [str(given["benchmark"])] if given.get("benchmark") else list(ap10k.BENCHMARKS)
    for benchmark in chosen:
        for each in [split] if split else ap10k_pairs.SPLITS.get(benchmark, ("test",)):
            _look(findings, ap10k.NAME, root, each, {**given, "benchmark": benchmark})


def _inspect_cub(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    if not list(_tried(findings, require_folders, root, cub.FOLDERS, "CUB-200-2011")):
        return
    _look(findings, cub.NAME, root, split or "all", given, images=False)
    # Random pairs leave images out, so all of them are gone through here.
    images: list[AnnotatedImage] = []
    for birds in _tried(findings, lambda: list(cub.read_birds(root, cub.own_split(split or "all")))):
        findings.add_problems(
            _messages(birds, lambda bird: images.append(cub.make_image(root, bird, Annotations())))
        )
    _check_images(findings, images)


def _inspect_awa_pose(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    if not list(_tried(findings, require_folders, root, awa_pose.FOLDERS, "AwA-Pose")):
        return
    images: list[AnnotatedImage] = []
    for files in _tried(findings, awa_pose.annotation_files, root):
        findings.add_problems(
            _messages(files, lambda path: images.extend(awa_pose.read_animal(root, path, Annotations())))
        )
    _look(findings, awa_pose.NAME, root, split or "all", given, images=False)
    _check_images(findings, images)


def _inspect_tss(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    for folders in _tried(findings, tss.pair_folders, root):
        findings.add_problems(
            _messages(
                product(folders, (1, 2)),
                lambda each: tss.read_direction(root, each[0], each[1], tss.STEP, Annotations()),
            )
        )
    _look(findings, tss.NAME, root, split or "test", given)


def _inspect_soco(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    if not list(_tried(findings, require_folders, root, soco.FOLDERS, "SOCO")):
        return
    for each in [split] if split else soco.SOCO_SPLITS:
        for files in _tried(findings, soco.pair_files, root, each):
            findings.add_problems(_messages(files, soco.Reader(root).pair))
            _look(findings, soco.NAME, root, each, given)


def _inspect_coco(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    files = [each for each in ("train", "trn", "val", "test") if (root / f"{each}.json").is_file()]
    splits = [split] if split else ["all"] if given.get("annotations") else files or ["all"]
    names = {key: given[key] for key in ("annotations", "images", "masks", "exif") if given.get(key)}
    for each in splits:
        _look(findings, coco.NAME, root, each, given, images=False)
        # Random pairs leave images out, so all of them are gone through here.
        for file, images, _ in _tried(findings, coco.open_folder, root, each, **names):
            _check_images(findings, images)
            if file.format != "coco":
                findings.facts.append(f"{each}: read as {FORMATS[file.format].WHAT}")
            if any(annotation["id"] == 0 for annotation in file.annotations):
                findings.facts.append(
                    f"{each}: ids of results of a transfer begin at 1: annotation 0 gets another one"
                )


def _inspect_pairs(findings: Findings, root: Path, split: str | None, given: Mapping[str, Any]) -> None:
    _look(findings, "pairs", root, split or "all", given)


@dataclass(frozen=True)
class Source:
    """A data set's page (empty for one's own), licence, size, layout of the root, and inspector."""

    url: str
    licence: str
    size: str
    layout: str
    inspect: Callable[[Findings, Path, str | None, Mapping[str, Any]], None]


SOURCES: Mapping[str, Source] = {
    "spair71k": Source(
        "http://cvlab.postech.ac.kr/research/SPair-71k/",
        "images from PASCAL 3D+ and VOC 2012 (Flickr terms), for research; cite Min et al. 2019",
        "1,800 images, 70,958 pairs, roughly 0.2 GB to download",
        "JPEGImages/ ImageAnnotation/ PairAnnotation/ Layout/large/{trn,val,test}.txt, optionally "
        "Segmentation/",
        _inspect_spair,
    ),
    "pf-pascal": Source(
        "https://www.di.ens.fr/willow/research/proposalflow/",
        "images from PASCAL VOC (Flickr terms), for research; cite Ham et al. 2017",
        "about 1,300 images, roughly 0.1 GB",
        "JPEGImages/ Annotations/CLASS/*.mat {trn,val,test}_pairs.csv (the lists come with CNNGeometric and "
        "later papers' code)",
        _inspect_pf_pascal,
    ),
    "pf-willow": Source(
        "https://www.di.ens.fr/willow/research/proposalflow/",
        "for research; cite Ham et al. 2016",
        "100 images, 900 pairs, roughly 10 MB",
        "SUBCLASS/*.png with SUBCLASS/*.mat beside them; optionally test_pairs.csv",
        _inspect_pf_willow,
    ),
    "ap10k": Source(
        "https://github.com/AlexTheBad/AP-10K",
        "CC BY 4.0; cite Yu et al. 2021",
        "10,015 images, roughly 1 to 2 GB",
        "annotations/ap10k-{train,val,test}-split1.json data/*.jpg, and correspondence/ made by build-ap10k",
        _inspect_ap10k,
    ),
    "spair-u": Source(
        "https://github.com/VICO-UoE/JamaisVu",
        "annotations for images of SPair-71k, whose terms hold; cite Mariotti et al. 2025",
        "annotations only, beside SPair-71k",
        "ImageAnnotation/CATEGORY/*.json PairAnnotation/test/*.json, and SPair-71k's JPEGImages/ in it or in "
        "a folder SPair-71k beside it",
        _inspect_spair_u,
    ),
    "cub": Source(
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        "for research and education that are not commercial; cite Wah et al. 2011",
        "11,788 images, 1.1 GB",
        "images/SPECIES/*.jpg images.txt bounding_boxes.txt train_test_split.txt parts/parts.txt "
        "parts/part_locs.txt, optionally random_pairs.txt and segmentations/",
        _inspect_cub,
    ),
    "awa-pose": Source(
        "https://github.com/prinik/AwA-Pose",
        "see its page; the images are of Animals with Attributes 2, each with a licence; cite Banik et al. "
        "2021 and Xian et al. 2019",
        "about 10,000 annotated images",
        "JPEGImages/CLASS/*.jpg (of AwA2) Annotations/CLASS/*.pickle, optionally random_pairs.txt",
        _inspect_awa_pose,
    ),
    "tss": Source(
        "https://taniai.space/projects/cvpr16_dccs/",
        "see its page; cite Taniai et al. 2016",
        "400 pairs of images, in both directions",
        "{FG3DCar,JODS,PASCAL}/PAIR/ with image1.png image2.png mask1.png mask2.png flow1.flo flow2.flo",
        _inspect_tss,
    ),
    "soco": Source(
        "https://huggingface.co/datasets/GenIntelLab/SOCO",
        "CC BY 4.0; cite Dünkel et al. 2026",
        "4,000 images, 60,000 annotated pairs",
        "Images/CATEGORY/*.JPEG PairAnnotations/{intra,cross,trainsplits/train,trainsplits/test}/CATEGORY/"
        "*.json",
        _inspect_soco,
    ),
    "coco": Source(
        "",
        "your own",
        "",
        "annotations.json or SPLIT.json, images/, optionally masks/ (docs/data.md), or a known format "
        "(docs/formats.md)",
        _inspect_coco,
    ),
    "pairs": Source("", "your own", "", "pairs.jsonl and the images it names (docs/data.md)", _inspect_pairs),
}


def _look(
    findings: Findings, name: str, root: Path, split: str, given: Mapping[str, Any], images: bool = True
) -> None:
    """Load a split, tell what it holds and, if wanted, look at its images."""
    own = not SOURCES[name].url
    for data_set in _tried(findings, load, name, root, split, **given):
        findings.facts.append(
            f"{data_set.split}: {len(data_set)} pairs, {len(data_set.images)} images, "
            f"{len(data_set.categories)} categories"
        )
        for note in data_set.notes:
            known = note.startswith((LEFT_OUT, DOUBTFUL, NO_SUBGROUPS))
            kind = findings.warnings if known else findings.facts
            if own and note.startswith((LEFT_OUT, DOUBTFUL)):
                kind = findings.problems
            kind.append(f"{data_set.split}: {note}")
        if images:
            _check_images(findings, data_set.images)


def _tried(findings: Findings, read: Callable[..., Any], *args: Any, **options: Any) -> Iterator[Any]:
    """What ``read`` returns, or nothing and a problem."""
    try:
        result = read(*args, **options)
    except InputError as error:
        findings.problems.append(str(error))
        return
    yield result


def _messages(things: Iterable[Any], *looks: Callable[[Any], Any]) -> Iterator[str]:
    """What is wrong with each of the things."""
    for each, look in product(things, looks):
        try:
            look(each)
        except InputError as error:
            yield str(error)


def _check_images(findings: Findings, images: Iterable[AnnotatedImage]) -> None:
    with collecting() as told:
        findings.add_problems(_messages(images, look_at, object_mask))
    for texts in map(dict.fromkeys, told.values()):
        first, *others = texts
        findings.warnings.append(first + (f" ({len(others)} more like it)" if others else ""))
