"""PF-PASCAL (Ham et al. 2017): lists of pairs as CSV, points in MAT files."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path, PurePosixPath

from geoaware.data.dataset import (
    SPLITS,
    Annotations,
    DataSet,
    assemble,
    choose_split,
    keypoint_counts,
    require_folders,
)
from geoaware.data.fields import whole
from geoaware.data.files import first_file, numbers, read_csv, read_mat
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, Pair
from geoaware.runs.errors import InputError

NAME = "pf-pascal"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""PASCAL VOC's 20 classes; the lists number them from 1."""

_CSV_FORM = "source_image, target_image, class[, flip][, XA, YA, XB, YB with ';' between numbers]"
_COLUMNS = ("source_image", "target_image", "class", "xa", "ya", "xb", "yb")


def csv_names(split: str) -> list[str]:
    """Names under which a split's list of pairs is known."""
    stems = ("trn", "train") if split == "trn" else (split,)
    return [f"{stem}_pairs{end}.csv" for stem in stems for end in ("", "_pf_pascal")]


def load(root: Path, split: str, *, pairs: str | None = None) -> DataSet:
    """PF-PASCAL's pairs of a split.

    Points come from ``Annotations/CLASS/IMAGE.mat`` (``kps``, one row x y a keypoint, NaN where it is not
    annotated; the row is the id). Where that file is absent they come from the list of pairs, whose columns
    hold the pair's common points only: ids then count within the pair, and each pair has its own images.

    Training lists may hold pairs a second time to be used mirrored (column ``flip``): mirroring is the
    training's business here, so each pair counts once and the rest is noted.

    Args:
        root: folder with JPEGImages, the lists of pairs and, for training pairs, Annotations.
        split: trn (or train), val or test.
        pairs: the CSV file; looked for in the root when not given.

    Raises:
        InputError: something is missing or damaged; the message names the file.
    """
    require_folders(root, ("JPEGImages",), "PF-PASCAL")
    chosen = choose_split(split, SPLITS, "PF-PASCAL")
    listed = Path(pairs) if pairs else first_file(root, csv_names(chosen))
    if listed is None:
        raise InputError(
            f"{root}: no list of pairs {csv_names(chosen)[0]!r} in it; fetch it, or name it by pairs=FILE"
        )
    reader, rows = _Reader(root), read_csv(listed, 3, _CSV_FORM, _COLUMNS)
    made: dict[str, Pair] = {}
    for where, row in rows:
        pair = reader.pair(row, where)
        made.setdefault(pair.id, pair)
    notes = [f"pairs of {listed.name}"]
    if len(made) < len(rows):
        notes.append(
            f"{len(rows) - len(made)} rows repeat a pair (mirrored copies, say): each pair counts once"
        )
    if reader.from_list:
        notes.append(f"{reader.from_list} pairs without MAT files: keypoint ids count within the pair")
    counts = keypoint_counts(image for pair in made.values() for image in (pair.source, pair.target))
    schemas = {category: Schema(tuple(map(str, range(count)))) for category, count in counts.items()}
    return assemble(NAME, chosen, schemas, list(made.values()), "image", notes, reader.annotations)


class _Reader:
    """Reads each annotation once while going through a list of pairs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.annotations = Annotations()
        self.from_list = 0
        self._images: dict[tuple[str, str], AnnotatedImage] = {}

    def pair(self, row: list[str], where: str) -> Pair:
        category = _category(row[2], where)
        names = [PurePosixPath(text.replace("\\", "/")).name for text in row[:2]]
        stems = [Path(name).stem for name in names]
        files = [self.root / "Annotations" / category / f"{stem}.mat" for stem in stems]
        pair_id = f"{category}/{stems[0]}-{stems[1]}"
        if all(path.is_file() for path in files):
            source, target = (self._annotated(category, *each) for each in zip(names, files, strict=True))
        elif len(row) >= len(_COLUMNS):
            self.from_list += 1
            source, target = self._listed(category, names, row[-4:], pair_id, where)
        else:
            raise InputError(
                f"{files[0]}: no such file, and {where} gives no points; fetch PF-PASCAL's Annotations"
            )
        return Pair(pair_id, category, source, target)

    def _annotated(self, category: str, name: str, path: Path) -> AnnotatedImage:
        if (category, name) not in self._images:
            points = {
                row: None if math.isnan(x + y) else (float(x), float(y))
                for row, (x, y) in enumerate(read_mat(path, "kps", columns=2))
            }
            box = read_mat(path, "bbox", columns=4, rows=1)[0].tolist()
            file = self.annotations.file(self.root / "JPEGImages", name)
            self._images[category, name] = self.annotations.image(
                f"{category}/{name}", file, category, points, box=box
            )
        return self._images[category, name]

    def _listed(
        self, category: str, names: list[str], columns: list[str], pair_id: str, where: str
    ) -> list[AnnotatedImage]:
        values = [numbers(column.split(";"), where) for column in columns]
        counts = [len(each) for each in values]
        if len(set(counts)) > 1:
            raise InputError(f"{where}: {counts} numbers in XA, YA, XB, YB; must be equal")
        sides = []
        for name, xs, ys in zip(names, values[::2], values[1::2], strict=True):
            # The same image has other points in another pair, so its id names the pair too.
            file = self.annotations.file(self.root / "JPEGImages", name)
            points = self.annotations.listed([list(each) for each in zip(xs, ys, strict=True)], where)
            key = f"{category}/{name}@{pair_id}"
            sides.append(self.annotations.image(key, file, category, points, where=f"{where}: {name}"))
        return sides


def _category(text: str, where: str) -> str:
    """A class by its name or its number from 1."""
    if text in CLASSES:
        return text
    with suppress(InputError):
        if 1 <= (number := whole(text, where)) <= len(CLASSES):
            return CLASSES[number - 1]
    raise InputError(
        f"{where}: class {text!r} is neither a class of PASCAL VOC nor a number 1 … {len(CLASSES)}"
    )
