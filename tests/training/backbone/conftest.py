"""The drawn data sets, once for all tests of tuning; one thread, so that sums have one order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.backbone.tiny import draw_sets


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sets(tmp_path_factory.mktemp("tuning"))


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass
