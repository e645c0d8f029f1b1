"""Reading MATLAB files of the Proposal Flow data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geoaware.runs.errors import InputError


def read_mat(path: Path, key: str, columns: int | None = None) -> np.ndarray:
    """One matrix of a MAT file as float64 (rows, columns).

    Args:
        path: the file.
        key: name of the variable.
        columns: how many it must have, if that is known.

    Raises:
        InputError: the file is missing or damaged, or has no such matrix.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a MAT file with {key!r}")
    try:
        content = loadmat(path, variable_names=[key])
    # scipy raises whatever a broken byte leads to: ValueError, TypeError, struct.error, zlib.error, …
    except Exception as error:
        raise InputError(f"{path}: damaged, no valid MAT file ({error}); fetch it again") from None
    try:
        values = np.asarray(content[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: has no matrix {key!r}; is it of this data set?") from None
    if values.ndim != 2 or (columns is not None and values.shape[1] != columns):
        wanted = "" if columns is None else f" with {columns} columns"
        raise InputError(f"{path}: {key!r} has shape {values.shape}; expected a matrix{wanted}")
    return values
