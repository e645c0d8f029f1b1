"""Which of several training processes this one is, as their launcher says it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from geoaware.runs.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Which part of the work is this process's: its number of how many, in all and on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Shard:
        """As ``torchrun`` and ``accelerate launch`` say it; values that make no sense are an `InputError`."""
        values = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        for name in values.keys() & environment.keys():
            try:
                values[name] = int(environment[name])
            except ValueError:
                raise InputError(
                    f"{name} in the environment is {environment[name]!r}, a whole number was expected"
                ) from None
        rank, world, local_rank, local_world = values.values()
        if not 0 <= rank < world:
            raise InputError(
                f"RANK {rank} and WORLD_SIZE {world} in the environment do not go together; RANK is 0 … "
                "WORLD_SIZE - 1 (unset both for a single process)"
            )
        return cls(rank, world, local_rank, max(1, local_world))

    def of(self, whole: Sequence[T]) -> list[T]:
        """This process's share, of images say."""
        return list(whole[self.rank :: self.world])

    def device(self, wanted: str) -> str:
        """The device asked for; with ``auto`` or ``cuda`` on several GPUs, the one of this process."""
        gpus = torch.cuda.device_count()
        if wanted in ("auto", "cuda") and gpus and self.world > 1:
            return f"cuda:{self.local_rank % gpus}"
        return wanted

    def sharers(self, device: torch.device) -> int:
        """How many processes of this machine use the same device."""
        gpus = torch.cuda.device_count() if device.type == "cuda" else 1
        return -(-self.local_world // max(1, gpus))
