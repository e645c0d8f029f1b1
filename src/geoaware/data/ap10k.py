"""The AP-10K correspondence benchmark as built by ``geoaware data build-ap10k``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from geoaware.data.ap10k_pairs import CROSS_FAMILY, CROSS_SPECIES, FORMAT, IMAGES, INTRA, MANIFEST, SPLITS
from geoaware.data.dataset import Annotations, DataSet, assemble, choose_split
from geoaware.data.files import read_json, reading
from geoaware.data.pairs import read_pair_list
from geoaware.method.keypoints import AP10K
from geoaware.runs.errors import InputError

NAME = "ap10k"
BENCHMARKS = (INTRA, CROSS_SPECIES, CROSS_FAMILY)


def load(
    root: Path,
    split: str,
    *,
    benchmark: str = INTRA,
    built: str = "correspondence",
    images: str = "data",
) -> DataSet:
    """Pairs of one of the three benchmarks.

    An image's category is its species, its attributes are species and family. A pair is counted under its
    species, its family, or both families, by benchmark. Boxes are (x1, y1, x2, y2).

    Args:
        root: AP-10K's folder; the other names are relative to it.
        split: trn (or train; intra-species only), val or test.
        benchmark: intra-species, cross-species or cross-family.
        built: folder that the builder wrote.
        images: folder of the images.

    Raises:
        InputError: the benchmark is not built, or its files are missing or not as the builder wrote them.
    """
    if benchmark not in BENCHMARKS:
        raise InputError(f"AP-10K has no benchmark {benchmark!r}; choose {', '.join(BENCHMARKS)}")
    chosen = choose_split(split, SPLITS[benchmark], f"AP-10K {benchmark}")
    folder = root / built
    manifest = read_manifest(folder)
    annotations = Annotations()
    content = json.loads(checked_bytes(folder, IMAGES, manifest))
    annotated = {
        name: annotations.image(
            name,
            annotations.file(root / images, entry["file_name"]),
            entry["species"],
            dict(enumerate(entry["points"])),
            (entry["size"][0], entry["size"][1]),
            where=name,
            box=entry["box"],
            attributes={"species": entry["species"], "family": entry["family"]},
        )
        for name, entry in content["pictures"].items()
    }
    name = f"{benchmark}/{chosen}.jsonl"
    checked_bytes(folder, name, manifest)
    if not manifest["pairs"][benchmark][chosen]:
        raise InputError(
            f"{folder / name}: has no pairs, AP-10K's annotations were too few; see {MANIFEST} there"
        )
    pairs = read_pair_list(folder / name, annotated)
    categories = {pair.category for pair in pairs} | {image.category for image in annotated.values()}
    schemas = dict.fromkeys(sorted(categories), AP10K)
    rules = manifest["rules"]
    notes = [f"AP-10K {benchmark}, built with seed {rules['seed']}"]
    return assemble(NAME, chosen, schemas, pairs, "box", notes, annotations, rules["min_common"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The builder's manifest, if it is of this version of the builder."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; build the benchmark first: geoaware data build-ap10k {folder.parent}"
        )
    manifest = read_json(path, "the manifest of the builder")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: is not of this version's builder; run geoaware data build-ap10k again")
    return manifest


def checked_bytes(folder: Path, name: str, manifest: dict[str, Any]) -> bytes:
    """A file of the benchmark, if it is still as the manifest says."""
    path = folder / name
    with reading(path, "a file of the benchmark; run geoaware data build-ap10k again"):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest["files"].get(name, {}).get("sha256"):
        raise InputError(f"{path}: is not as the manifest says; run geoaware data build-ap10k again")
    return content
