"""Flow fields in Middlebury's format (Baker et al. 2011): where each pixel of an image moves to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from geoaware.data.fields import LARGEST
from geoaware.data.files import reading
from geoaware.runs.errors import InputError
from geoaware.runs.files import refuse_pretender

_MARK, UNKNOWN = 202021.25, 1e9
"""What a file begins with, and the least that stands where nothing is known."""

_WRITTEN = 1e10


def read_flow(path: Path) -> Float[np.ndarray, "h w 2"]:
    """How far right and down each pixel moves, in pixels; NaN where nothing is known.

    Raises:
        InputError: the file is missing, is of another format, or is damaged.
    """
    with reading(path, "a flow field (.flo)"):
        raw = path.read_bytes()
    head = np.frombuffer(raw[:12], "<i4") if len(raw) >= 12 else np.zeros(3, "<i4")
    if head[:1].view("<f4")[0] != np.float32(_MARK):
        refuse_pretender(path)
        raise InputError(f"{path}: is no flow field of Middlebury's format (.flo); fetch it again")
    width, height = map(int, head[1:])
    if min(width, height) < 1 or width * height > LARGEST or len(raw) != 12 + 8 * width * height:
        raise InputError(
            f"{path}: damaged, {len(raw):,} bytes are not a flow field of {width}x{height}; fetch it again"
        )
    flow = np.frombuffer(raw, "<f4", offset=12).reshape(height, width, 2).astype(np.float64)
    return np.where(np.abs(flow).max(axis=2, keepdims=True) < UNKNOWN, flow, np.nan)


def write_flow(path: Path, flow: Float[np.ndarray, "h w 2"]) -> None:
    """Write a flow field; NaN where nothing is known."""
    with path.open("wb") as file:
        np.array([_MARK], "<f4").tofile(file)
        np.array(flow.shape[1::-1], "<i4").tofile(file)
        np.nan_to_num(flow, nan=_WRITTEN).astype("<f4").tofile(file)
