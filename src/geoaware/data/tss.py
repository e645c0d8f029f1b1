"""TSS (Taniai et al. 2016): pairs of images with flow fields of their foregrounds, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from geoaware.data.dataset import LEFT_OUT, Annotations, DataSet, assemble, choose_split
from geoaware.data.flow import read_flow
from geoaware.data.images import image_size, load_mask
from geoaware.method.keypoints import Schema
from geoaware.method.types import Pair
from geoaware.runs.errors import InputError

NAME = "tss"
GROUPS = ("FG3DCar", "JODS", "PASCAL")
STEP = 4

BLANK = f"{LEFT_OUT}: directions without a foreground pixel that the flow field knows"
BEYOND = f"{LEFT_OUT}: foreground pixels whose counterpart lies outside the other image"


def load(
    root: Path, split: str = "test", *, categories: Sequence[str] | None = None, step: int = STEP
) -> DataSet:
    """TSS's pairs, each in both directions; a category is a group of pairs, FG3DCar, JODS or PASCAL.

    The points of a pair are foreground pixels of its source: those inside ``maskN.png`` that ``flowN.flo``
    knows, in every so many rows and columns. Their ids count within the pair, and they are no parts with
    names.

    Args:
        root: folder with FG3DCar, JODS and PASCAL.
        split: test, the only one.
        categories: only these groups.
        step: 1 for all foreground pixels, as the data set's own evaluation counts, which needs about 16 times
            the memory and disk of 4.

    Raises:
        InputError: something is missing or damaged; the message names the file.
    """
    chosen = choose_split(split, ["test"], "TSS", {"all": "test"})
    unknown = [each for each in categories or () if each not in GROUPS]
    if unknown:
        raise InputError(f"TSS has no group {unknown[0]!r}; choose from {', '.join(GROUPS)}")
    if step < 1:
        raise InputError(f"step={step}: every first row and column at the least, 1")
    annotations, pairs = Annotations(), []
    for folder in pair_folders(root, categories):
        for number in (1, 2):
            pairs += read_direction(root, folder, number, step, annotations)
    schemas = {group: Schema(()) for group in GROUPS}
    note = "all foreground pixels" if step == 1 else f"foreground pixels of every {step}th row and column"
    return assemble(NAME, chosen, schemas, pairs, "image", [note], annotations)


def pair_folders(root: Path, categories: Sequence[str] | None = None) -> list[Path]:
    """The folder of each pair, in the order of their names; at least one."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of TSS as root")
    groups = [root / each for each in GROUPS if not categories or each in categories]
    found = [each for group in groups if group.is_dir() for each in sorted(group.iterdir()) if each.is_dir()]
    if not found:
        inner = [each for each in sorted(root.iterdir()) if any((each / group).is_dir() for group in GROUPS)]
        remedy = f"perhaps give {inner[0]}" if inner else "give the folder that holds them"
        raise InputError(
            f"{root}: is not the root of TSS, no pairs in {', '.join(categories or GROUPS)}; {remedy}"
        )
    return found


def read_direction(root: Path, folder: Path, number: int, step: int, annotations: Annotations) -> list[Pair]:
    """The pair from image ``number`` of a folder to the other one; none where nothing is known of it."""
    files = [folder / f"image{each}.png" for each in (number, 3 - number)]
    name, category, way = folder.relative_to(root).as_posix(), folder.parent.name, f"{number}to{3 - number}"
    sizes = [image_size(file) for file in files]
    starts, ends = _correspondences(folder, number, step, sizes[0])
    inside = ((ends >= 0) & (ends <= sizes[1])).all(axis=1)
    annotations.noted[BEYOND] += [f"{name}, image {number}"] * int((~inside).sum())
    if not inside.any():
        annotations.noted[BLANK].append(f"{name}, image {number}")
        return []
    masks = [folder / f"mask{each}.png" for each in (number, 3 - number)]
    # An image has other points in the other direction, so its id names the direction.
    source, target = (
        annotations.image(
            f"{name}/{file.name}@{way}",
            file,
            category,
            dict(enumerate(map(tuple, points[inside].tolist()))),
            size,
            mask_path=mask if mask.is_file() else None,
        )
        for file, size, points, mask in zip(files, sizes, (starts, ends), masks, strict=True)
    )
    return [Pair(f"{name}/{way}", category, source, target)]


def _correspondences(
    folder: Path, number: int, step: int, size: tuple[int, int]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Foreground pixels x, y of an image, and where they are in the other one."""
    path, masked = folder / f"flow{number}.flo", folder / f"mask{number}.png"
    flow, mask = read_flow(path), load_mask(masked)
    for file, shape in ((path, flow.shape[1::-1]), (masked, mask.shape[::-1])):
        if shape != size:
            raise InputError(
                f"{file}: of {shape[0]}x{shape[1]} pixels, but image{number}.png of {size[0]}x{size[1]}; "
                "fetch the data set again"
            )
    known = mask & np.isfinite(flow).all(axis=2)
    thinned = np.zeros_like(known)
    thinned[::step, ::step] = known[::step, ::step]
    rows, columns = thinned.nonzero()
    starts = np.stack([columns, rows], axis=1).astype(np.float64)
    return starts, starts + flow[rows, columns]
