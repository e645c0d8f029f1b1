"""The state of a run in one file, which is there whole or not at all.

Tensors (weights and the optimiser's moments) and, as the file's metadata, the rest as JSON: floats written by
Python come back bit for bit. Random numbers need no state: they are drawn anew from the seed at each step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from geoaware.runs.errors import InputError
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
        """Put an optimiser and its schedule in the state that was saved."""
        optimiser.load_state_dict(self.optimiser)
        # Moments as read from a file would be slow to update: they lie in memory as their parameters do.
        for parameter, state in optimiser.state.items():
            for name, value in state.items():
                if value.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter).copy_(value)
        schedule.load_state_dict(self.schedule)


def save(folder: Path, state: Saved) -> None:
    """Write the run's state to its folder."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.items()}
    for number, values in state.optimiser["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in values.items()}
    groups = state.optimiser["param_groups"]
    rest = {"progress": asdict(state.position), "groups": groups, "schedule": state.schedule}
    # A single entry: the format writes several in an order that changes.
    write_safetensors(folder / FILE, tensors, {"state": json.dumps(rest)})


def load(folder: Path) -> Saved | None:
    """The state that was saved last; ``None`` where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            rest = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        groups, schedule, position = rest["groups"], rest["schedule"], Position(**rest["progress"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: damaged, cannot be read ({error}); restart to begin anew, with the weights saved last "
            "as start to go on from them",
            "restart",
        ) from None
    network: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "network":
            network[rest] = tensor
        else:
            number, _, key = rest.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
    return Saved(network, {"state": moments, "param_groups": groups}, schedule, position)
