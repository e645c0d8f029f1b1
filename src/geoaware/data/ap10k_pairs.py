"""The AP-10K correspondence benchmark, built from AP-10K's own annotation files (paper, appendix B).

The rules, in this order:

1. The annotation files are merged. Images on the exclusion list, with several instances, or with fewer than
   3 visible keypoints (flag 2) are dropped.
2. Per species, images are ordered by image id: the last 30 are for test, the 20 before them for validation,
   the rest for training. A species with fewer than 50 images so has none for training: it is held out.
3. Intra-species: all combinations for validation and test; for training at most 50 N of them, drawn at
   random. Of these, pairs with at least 3 keypoints visible in both.
4. Cross-species: per family with several species, 400 validation and 900 test pairs drawn from the pairs of
   different species with at least 3 keypoints in common; fewer where there are fewer.
5. Cross-family: per combination of two families, 20 validation and 30 test pairs, likewise.

The source of a pair is the image of the lower image id inside a species, else of the species or family that
comes first (by category id, by name). Everything is sorted before anything is drawn, and draws come from
SHA-256 (`sampling`): the files depend on the annotations, the exclusion list, the rules and the seed alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

from geoaware.data import fields
from geoaware.data.coco_file import (
    HIDDEN,
    REPEATED,
    CocoFile,
    content_of,
    corners,
    keypoint_places,
    read_coco,
)
from geoaware.data.dataset import Annotations, in_common, require_folders
from geoaware.data.files import read_lines
from geoaware.data.names import Names
from geoaware.data.sampling import draw
from geoaware.method.keypoints import AP10K
from geoaware.method.types import AnnotatedImage
from geoaware.runs.errors import InputError
from geoaware.runs.files import check_own, replacing

FORMAT = 1
MANIFEST, IMAGES = "manifest.json", "keypoints.json"
ANNOTATION_FILES = tuple(f"annotations/ap10k-{part}-split1.json" for part in ("train", "val", "test"))
OFFICIAL_IMAGES = 10_015

INTRA, CROSS_SPECIES, CROSS_FAMILY = "intra-species", "cross-species", "cross-family"
PAPER: Mapping[str, Mapping[str, int]] = {
    INTRA: {"trn": 260_950, "val": 8_816, "test": 20_630},
    CROSS_SPECIES: {"val": 4_300, "test": 9_619},
    CROSS_FAMILY: {"val": 4_200, "test": 6_300},
}
"""Numbers of pairs that the paper reports."""

SPLITS: Mapping[str, tuple[str, ...]] = {benchmark: tuple(counts) for benchmark, counts in PAPER.items()}


@dataclass(frozen=True)
class Rules:
    """The benchmark's numbers; the defaults are the paper's.

    Attributes:
        min_visible: visible keypoints an image must have.
        min_common: keypoints that both images of a pair must show.
        test_images: images of a species for test; ``val_images`` for validation.
        train_pairs_per_image: limit on training pairs, times the species' number of training images.
        seed: of all draws.
    """

    min_visible: int = 3
    min_common: int = 3
    test_images: int = 30
    val_images: int = 20
    train_pairs_per_image: int = 50
    seed: int = 0

    def images(self, split: str) -> int:
        """Images of a species in an evaluation split."""
        return self.test_images if split == "test" else self.val_images


@dataclass(frozen=True)
class Merged:
    """The annotation files as one.

    Images are by id, an image's annotations by annotation id, and species (name, family) by category id;
    ``crowds`` are the images with an annotation of a whole group.
    """

    images: Mapping[int, dict[str, Any]]
    annotations: Mapping[int, Mapping[int, dict[str, Any]]]
    species: Mapping[int, tuple[str, str]]
    crowds: frozenset[int]


@dataclass(frozen=True)
class Benchmark:
    """A built benchmark: its manifest as written, the folder where it was written, and what reading told."""

    manifest: Mapping[str, Any]
    folder: Path
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> Iterator[str]:
        """What a user should know before using it, one sentence each."""
        annotated = self.manifest["images"]["annotated"]
        if annotated < OFFICIAL_IMAGES:
            yield f"{annotated} annotated images, AP-10K has {OFFICIAL_IMAGES}: not the whole data set"
        for benchmark, counts in self.manifest["pairs"].items():
            for split, count in counts.items():
                if not count:
                    yield f"{benchmark} {split}: no pairs, too few images"
        yield from self.notes
        if self.manifest["held_out"]:
            yield f"held out, no training images: {', '.join(self.manifest['held_out'])}"


Splits = dict[str, list[AnnotatedImage]]
"""The images of a species by split, each list by image id.

An image's id is AP-10K's with twelve digits, its category the species; its attributes are the ``species_id``,
the ``family`` and the ``file_name`` below AP-10K's data folder.
"""


def build(
    root: Path,
    out: Path | None = None,
    annotations: Sequence[Path] | None = None,
    exclude: Path | None = None,
    rules: Rules | None = None,
) -> Benchmark:
    """Build the benchmark and write it: lists of pairs, the images' keypoints, and last the manifest.

    Nothing is written before everything is computed. A folder without a manifest is not a benchmark, so one
    that was interrupted while writing is never taken for a whole one.

    Args:
        root: AP-10K's folder, with annotations and data.
        out: where to write; ``correspondence`` in the root when not given.
        annotations: annotation files; the three of split 1 in the root when not given.
        exclude: file of images with several instances, one image id or file name a line, # for comments.
        rules: the paper's when not given.

    Raises:
        InputError: a file is missing or damaged, or no image passes the rules.
    """
    rules, folder = rules or Rules(), out or root / "correspondence"
    check_own(folder / MANIFEST, '{"format":')
    require_folders(root, () if annotations else ("annotations",), "AP-10K")
    files = annotations or [root / name for name in ANNOTATION_FILES]
    # Rule 1: which images take part.
    read = [read_coco(path) for path in sorted(files)]
    found = Annotations(said=[note for file in read for note in file.notes])
    merged = listed_once(merge(read), found)
    excluded = read_exclusions(exclude, merged, found) if exclude else frozenset[int]()
    animals, counts = select(merged, excluded, rules, found)
    if not animals:
        reasons = ", ".join(f"{count} {what}" for what, count in counts["images"].items())
        raise InputError(f"{root}: no image passes the rules ({reasons}); check the annotations")
    # Rules 2 to 5: splits, and the lines of each list of pairs.
    species = split_species(animals, rules)
    texts = {
        f"{benchmark}/{split}.jsonl": "".join(pair_lines(species, benchmark, split, rules)).encode()
        for benchmark, splits in SPLITS.items()
        for split in splits
    }
    # What goes to disk, with its hashes.
    texts[IMAGES] = images_text(animals)
    manifest = {
        "format": FORMAT,
        "rules": asdict(rules),
        "annotations_sha256": content_hash(merged),
        "excluded_images": sorted(excluded),
        **counts,
        **_of_species(species, rules),
        "pairs": _counted(texts),
        "paper": {benchmark: dict(counts) for benchmark, counts in PAPER.items()},
        "files": {name: _entry(text) for name, text in sorted(texts.items())},
    }
    write(folder, texts, manifest)
    return Benchmark(manifest, folder, tuple(found.notes()))


def _counted(lists: Mapping[str, bytes]) -> dict[str, dict[str, int]]:
    """The lines of each list of pairs, by benchmark and split."""
    return {
        benchmark: {split: lists[f"{benchmark}/{split}.jsonl"].count(b"\n") for split in splits}
        for benchmark, splits in SPLITS.items()
    }


def merge(files: Sequence[CocoFile]) -> Merged:
    """Annotation files as one; an entry that stands in several files, which must agree, counts once."""
    images: dict[int, dict[str, Any]] = {}
    annotations: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
    species: dict[int, tuple[str, str]] = {}
    for file in files:
        for number, category in file.categories.items():
            if tuple(file.names(number)) != AP10K.names:
                raise InputError(f"{file.path}: category {category['name']!r} has not AP-10K's 17 keypoints")
            named = (category["name"], category.get("supercategory", ""))
            _put(species, number, named, f"{file.path}: category")
        for number, image in file.images.items():
            _put(images, number, image, f"{file.path}: image")
        for annotation in file.annotations:
            of_image = annotations[annotation["image_id"]]
            _put(of_image, annotation["id"], annotation, f"{file.path}: annotation")
    crowds = frozenset[int]().union(*(file.crowds for file in files))
    return Merged(images, annotations, species, crowds)


def listed_once(merged: Merged, found: Annotations) -> Merged:
    """Images of one file under the first of their ids; what several ids say alike of it counts once.

    ``found`` takes every annotation that stands there twice. An image with two annotations of its own is one
    of several instances all the same.
    """
    first = {image["file_name"]: number for number, image in sorted(merged.images.items(), reverse=True)}
    annotations: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
    known = set[str]()
    for number, instances in sorted(merged.annotations.items()):
        name = merged.images[number]["file_name"]
        for key, annotation in sorted(instances.items()):
            said = content_of(annotation, name)
            if said in known:
                found.noted[REPEATED].append(f"annotation {key} of {name}")
            if said not in known or first[name] == number:
                _put(annotations[first[name]], key, annotation, "annotation")
            known.add(said)
    crowds = frozenset(first[merged.images[number]["file_name"]] for number in merged.crowds)
    return replace(merged, annotations=annotations, crowds=crowds)


def read_exclusions(path: Path, merged: Merged, found: Annotations | None = None) -> frozenset[int]:
    """Image ids of an exclusion list: one image id, file name or file name without suffix a line.

    ``found`` takes what is to be said of names that are spelled in another way.
    """
    known = defaultdict[str, set[int]](set)
    for number, image in merged.images.items():
        name = str(image["file_name"])
        for each in (str(number), name, Path(name).stem):
            known[each].add(number)
    names, excluded = Names(known), set[int]()
    for where, line in read_lines(path, "a list of images to leave out"):
        name = line.partition("#")[0].strip()
        images = known[names.find(name) or ""] if name else set()
        if name and len(images) != 1:
            what = f"no image {name!r} in the annotations"
            if images:
                what = f"{name!r} can be image {' or '.join(map(str, sorted(images)))}"
            raise InputError(f"{where}: {what}; write image ids or file names")
        excluded |= images
    if found is not None:
        found.said.extend(names.notes())
    return frozenset(excluded)


def select(
    merged: Merged, excluded: frozenset[int], rules: Rules, found: Annotations | None = None
) -> tuple[list[AnnotatedImage], dict[str, Any]]:
    """Rule 1: images of a single instance with enough visible keypoints, by image id.

    The second result is what the manifest says of them: how many images are used and dropped, by reason, and
    how many keypoints of images with a single instance do not count. ``found`` takes what is to be said.
    """
    dropped = {"excluded by the list": 0, "several instances": 0, "too few visible keypoints": 0}
    animals: list[AnnotatedImage] = []
    hidden, read = 0, found or Annotations()
    for image_id, instances in sorted(merged.annotations.items()):
        if image_id in excluded:
            dropped["excluded by the list"] += 1
        elif len(instances) > 1 or image_id in merged.crowds:
            dropped["several instances"] += 1
        else:
            (annotation,) = instances.values()
            animal = _animal(merged, merged.images[image_id], annotation, read)
            hidden += sum(flag == HIDDEN for flag in annotation["keypoints"][2::3])
            if animal.keypoints.bits.bit_count() < rules.min_visible:
                dropped["too few visible keypoints"] += 1
            else:
                animals.append(animal)
    return animals, {
        "images": {"annotated": len(merged.annotations), "used": len(animals), **dropped},
        "keypoints": {"hidden, not counted": hidden, "outside their picture, not counted": len(read.outside)},
    }


def split_species(animals: Iterable[AnnotatedImage], rules: Rules) -> dict[str, Splits]:
    """Rule 2: the images of every species, given by image id, by split; species by category id."""
    grouped: dict[int, list[AnnotatedImage]] = defaultdict(list)
    for animal in animals:
        grouped[animal.attributes["species_id"]].append(animal)
    species: dict[str, Splits] = {}
    for _, members in sorted(grouped.items()):
        # The last are for test, those before them for validation, the rest for training.
        test_from = max(0, len(members) - rules.test_images)
        val_from = max(0, test_from - rules.val_images)
        parts = members[:val_from], members[val_from:test_from], members[test_from:]
        species[members[0].category] = dict(zip(SPLITS[INTRA], parts, strict=True))
    return species


Candidates = Iterator[tuple[str, int, list[tuple[AnnotatedImage, AnnotatedImage]]]]
"""What pairs are counted under, how many are drawn, and from which."""


def intra_species(species: Mapping[str, Splits], split: str, rules: Rules) -> Candidates:
    """Rule 3, species by species."""
    for name, splits in species.items():
        pairs = list(combinations(splits[split], 2))
        limit = rules.train_pairs_per_image * len(splits[split]) if split == "trn" else len(pairs)
        yield name, limit, pairs


def cross_species(species: Mapping[str, Splits], split: str, rules: Rules) -> Candidates:
    """Rule 4, family by family; a pair is counted under its family."""
    for family, members in sorted(by_family(species, split).items()):
        pairs = [pair for one, other in combinations(members, 2) for pair in product(one, other)]
        yield family, rules.images(split) ** 2, pairs


def cross_family(species: Mapping[str, Splits], split: str, rules: Rules) -> Candidates:
    """Rule 5, combination by combination; a pair is counted under both names, joined by a plus sign."""
    families = sorted(by_family(species, split).items())
    for (one, sources), (other, targets) in combinations(families, 2):
        yield f"{one}+{other}", rules.images(split), list(product(chain(*sources), chain(*targets)))


_CANDIDATES = {INTRA: intra_species, CROSS_SPECIES: cross_species, CROSS_FAMILY: cross_family}


def pair_lines(species: Mapping[str, Splits], benchmark: str, split: str, rules: Rules) -> Iterator[str]:
    """The pairs of a list as written."""
    for category, wanted, pairs in _CANDIDATES[benchmark](species, split, rules):
        usable = partial(_usable, pairs, rules)  # asked of those that are drawn, a few of very many
        key = f"{rules.seed}/{benchmark}/{split}/{category}"
        if benchmark == INTRA:
            # Drawn first, filtered then: the paper's limit counts pairs with too little in common.
            chosen = list(filter(usable, draw(len(pairs), wanted, key)))
        else:
            chosen = draw(len(pairs), wanted, key, usable)
        for number in chosen:
            a, b = (image.id for image in pairs[number])
            yield (
                f'{{"id": "{a}-{b}", "category": {json.dumps(category)}, "source": "{a}", "target": "{b}"}}\n'
            )


def _usable(pairs: Sequence[tuple[AnnotatedImage, AnnotatedImage]], rules: Rules, number: int) -> bool:
    return in_common(*pairs[number]) >= rules.min_common


def by_family(species: Mapping[str, Splits], split: str) -> dict[str, list[list[AnnotatedImage]]]:
    """For every family with images in the split, those of each of its species."""
    families: dict[str, list[list[AnnotatedImage]]] = defaultdict(list)
    for splits in species.values():
        if splits[split]:
            families[splits[split][0].attributes["family"]].append(splits[split])
    return families


def images_text(animals: Sequence[AnnotatedImage]) -> bytes:
    """The images' file as bytes: one image a line, by image id."""
    lines = []
    for each in animals:
        places = zip(each.keypoints.xy.tolist(), each.keypoints.visible.tolist(), strict=True)
        written = {
            "file_name": each.attributes["file_name"],
            "size": each.size,
            "species": each.category,
            "family": each.attributes["family"],
            "box": each.box,
            "points": [place if visible else None for place, visible in places],
        }
        lines.append(f"{json.dumps(each.id)}: {json.dumps(written)}")
    head = f'{{"format": {FORMAT}, "keypoints": {json.dumps(AP10K.names)}, "pictures": {{\n'
    return (head + ",\n".join(lines) + "\n}}\n").encode()


def content_hash(merged: Merged) -> str:
    """SHA-256 of the annotations used, whatever their order in the files."""
    essence = ("id", "category_id", "keypoints", "bbox")
    used = [
        [
            number,
            merged.images[number]["file_name"],
            [[each.get(key) for key in essence] for _, each in sorted(instances.items())],
        ]
        for number, instances in sorted(merged.annotations.items())
    ]
    return hashlib.sha256(json.dumps([sorted(merged.species.items()), used]).encode()).hexdigest()


def write(folder: Path, texts: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Write the files, the manifest last; an older manifest goes first, so a torn folder has none."""
    try:
        (folder / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from None
    last = (json.dumps(manifest, indent=1, ensure_ascii=True) + "\n").encode()
    for name, text in [*texts.items(), (MANIFEST, last)]:
        with replacing(folder / name) as draft:
            draft.write_bytes(text)


def _entry(text: bytes) -> dict[str, Any]:
    """What the manifest says of a file, by which a reader knows it whole."""
    return {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}


def _put(known: dict[int, Any], key: int, entry: Any, where: str) -> None:
    if known.setdefault(key, entry) != entry:
        raise InputError(
            f"{where} {key} differs from the one of that id in another file; do not mix releases"
        )


def _animal(
    merged: Merged, entry: Mapping[str, Any], annotation: Mapping[str, Any], read: Annotations
) -> AnnotatedImage:
    where = f"image {entry['id']} ({entry['file_name']})"
    size = fields.size(entry.get("width"), entry.get("height"), where)
    if size is None:
        raise InputError(f"{where}: the annotations give no width and height")
    species, family = merged.species[annotation["category_id"]]
    return read.image(
        f"{entry['id']:012d}",
        Path(entry["file_name"]),
        species,
        keypoint_places(annotation["keypoints"]),
        size,
        where,
        corners(annotation, where),
        attributes={
            "species_id": annotation["category_id"],
            "family": family,
            "file_name": entry["file_name"],
        },
    )


def _of_species(species: Mapping[str, Splits], rules: Rules) -> dict[str, Any]:
    """What the manifest says of species."""
    counts = {
        name: {split: len(each) for split, each in splits.items()} for name, splits in sorted(species.items())
    }
    families = {name: next(chain(*splits.values())).attributes["family"] for name, splits in species.items()}
    enough = rules.val_images + rules.test_images
    return {
        "species": {name: {"family": families[name], **each} for name, each in counts.items()},
        "held_out": [name for name, each in counts.items() if sum(each.values()) < enough],
    }
