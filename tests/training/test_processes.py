from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geoaware.runs.errors import InputError
from geoaware.training.processes import Shard


def test_shards_from_the_environment() -> None:
    assert Shard.from_environment({}) == Shard(0, 1, 0, 1)
    shard = Shard.from_environment(
        {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    )
    paths = [Path(str(number)) for number in range(7)]
    assert [str(path) for path in shard.of(paths)] == ["1", "4"]
    assert shard.sharers(torch.device("cpu")) == 2
    every = [path for rank in range(3) for path in Shard(rank, 3).of(paths)]
    assert sorted(every) == paths
    for wrong in ({"RANK": "3", "WORLD_SIZE": "3"}, {"RANK": "one"}, {"WORLD_SIZE": "0"}):
        with pytest.raises(InputError, match="in the environment"):
            Shard.from_environment(wrong)
