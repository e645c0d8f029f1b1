"""The state of a run in one file, which is there whole or not at all.

Tensors (weights and the optimiser's moments) and, as the file's metadata, the rest as JSON: floats written by
Python come back bit for bit. Random numbers need no state: they are drawn anew from the seed at each step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from geoaware.runs.errors import InputError, reason
from geoaware.runs.settings import checked
from geoaware.runs.weights import write_safetensors

FILE = "checkpoint.safetensors"


@dataclass
class Position:
    """Where a run is.

    Attributes:
        stage: number of the stage.
        step: steps of the stage that are done.
        total: steps of the run that are done.
        best: highest validation figure so far, a share; -1 before the first.
    """

    stage: int = 0
    step: int = 0
    total: int = 0
    best: float = -1.0

    def __post_init__(self) -> None:
        if min(self.stage, self.step, self.total) < 0:
            raise ValueError(f"a run cannot be at {self}")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: the states of network, optimiser and schedule, and where the run is."""

    network: dict[str, Tensor]
    optimiser: dict[str, Any]
    schedule: dict[str, Any]
    position: Position

    def restore(
        self, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> None:
        """Put an optimiser and its schedule in the state that was saved.

        Raises:
            ValueError: it is none of theirs.
        """
        saved = self.optimiser["param_groups"], self.schedule
        if not _are_alike(saved, (optimiser.state_dict()["param_groups"], schedule.state_dict())):
            raise ValueError("the state of the optimiser or of its schedule is of another kind")
        optimiser.load_state_dict(self.optimiser)
        # Moments as read from a file would be slow to update: they lie in memory as their parameters do.
        for parameter, state in optimiser.state.items():
            for name, value in state.items():
                if value.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter).copy_(value)
                elif value.numel() != 1:
                    raise ValueError(f"{name} has the shape {tuple(value.shape)} of no parameter")
        schedule.load_state_dict(self.schedule)


def _are_alike(found: Any, fresh: Any) -> bool:
    """Whether values of a file are of the kinds of others, at any depth; keys may have come or gone."""
    if isinstance(fresh, dict):
        both = isinstance(found, dict) and found.keys() & fresh.keys()
        return isinstance(found, dict) and all(_are_alike(found[key], fresh[key]) for key in both or ())
    if isinstance(fresh, list | tuple):
        fits = isinstance(found, list | tuple) and len(found) == len(fresh)
        return fits and all(map(_are_alike, found, fresh))
    if fresh is None or isinstance(fresh, bool):
        return found is None or isinstance(found, bool)
    if isinstance(fresh, int | float):
        return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return type(found) is type(fresh)


def save(folder: Path, state: Saved) -> None:
    """Write the run's state to its folder."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.items()}
    for number, values in state.optimiser["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in values.items()}
    groups = state.optimiser["param_groups"]
    rest = {"progress": asdict(state.position), "groups": groups, "schedule": state.schedule}
    # A single entry: the format writes several in an order that changes.
    write_safetensors(folder / FILE, tensors, {"state": json.dumps(rest)})


def position(folder: Path) -> Position | None:
    """Where the run of a folder is; ``None`` where it has no checkpoint.

    Raises:
        InputError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    with reading(folder) as path, safe_open(path, framework="pt") as file:
        return _rest(file)[0]


def load(folder: Path) -> Saved | None:
    """The state that was saved last; ``None`` where there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    with reading(folder) as path, safe_open(path, framework="pt") as file:
        where, rest = _rest(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Saved(*_states(tensors, rest["groups"]), rest["schedule"], where)


def _rest(file: Any) -> tuple[Position, dict[str, Any]]:
    """Where the run is, and the rest of what is no tensor, of an open checkpoint."""
    rest = json.loads(file.metadata()["state"])
    return Position(**checked(Position, rest["progress"], "progress")), rest


@contextmanager
def reading(folder: Path) -> Iterator[Path]:
    """Turn whatever goes wrong while the checkpoint of a folder is understood into an error with the remedy.

    Raises:
        InputError: it is damaged.
    """
    path = folder / FILE
    try:
        yield path
    # RuntimeError: torch's, of tensors that do not fit the network.
    except (
        SafetensorError,
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise InputError(
            f"{path}: damaged, cannot be read ({reason(error)}); restart to begin anew, with the weights "
            "saved last as start to go on from them",
            "restart",
        ) from None


def _states(tensors: Mapping[str, Tensor], groups: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The states of network and optimiser."""
    network: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "network":
            network[rest] = tensor
        else:
            number, _, key = rest.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
    return network, {"state": moments, "param_groups": groups}
