"""Shapes in signatures are checked at run time in every test, by jaxtyping and beartype."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from jaxtyping import config

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers, and the programs that they start, would each take every core. Read when torch is first loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import checker

checker.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none is left to one process while the others are idle."""
    slow = {each.path for each in items if each.get_closest_marker("slow")}
    items.sort(key=lambda each: each.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each process works through files of its own, and takes from another one when it has no more."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Run without the type checks, as users do, to see the library's own refusal of wrong values."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread, so that sums have one order and two workers do not fight."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
