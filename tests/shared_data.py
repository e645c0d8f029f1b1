"""Where real annotated images lie, when they are there; nothing of them is in the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """Folder of a data set beside the checkout or under $GEOAWARE_DATA; skips the test without it."""
    folder = Path(os.environ.get("GEOAWARE_DATA", _BESIDE)) / name
    if not folder.is_dir():
        pytest.skip(
            f"needs the annotated images of {name!r}: put them beside the checkout or set GEOAWARE_DATA"
        )
    return folder
