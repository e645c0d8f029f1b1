"""The drawn data set of training, for what the studies train."""

from __future__ import annotations

from tests.training.conftest import cache, data

__all__ = ["cache", "data"]
