"""The drawn data set and its features, once for all tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.tiny import draw_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("training") / "faces")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled by the first run that needs it."""
    return tmp_path_factory.mktemp("training_cache")
