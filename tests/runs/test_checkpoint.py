"""What a checkpoint holds comes back; what is no state of the run is told before it can do harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from geoaware.runs import checkpoint
from geoaware.runs.errors import InputError


def begun() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    network = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=9)
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    schedule.step()
    return network, optimiser, schedule


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network, optimiser, schedule = begun()
    states = network.state_dict(), optimiser.state_dict(), schedule.state_dict()
    checkpoint.save(tmp_path, checkpoint.Saved(*states, checkpoint.Position(0, 1, 1, 0.5)))
    return tmp_path


def restored(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    network, optimiser, schedule = begun()
    saved = checkpoint.load(folder)
    assert saved is not None
    with checkpoint.reading(folder):
        network.load_state_dict(saved.network)
        saved.restore(optimiser, schedule)
    return network, optimiser, schedule


def test_a_state_comes_back(folder: Path) -> None:
    _, optimiser, schedule = restored(folder)
    assert schedule.last_epoch == 1
    assert optimiser.param_groups[0]["lr"] == schedule.get_last_lr()[0]
    assert checkpoint.load(folder).position == checkpoint.Position(0, 1, 1, 0.5)  # type: ignore[union-attr]


def spoil(folder: Path, way: str, value: Any) -> None:
    """Change a value of the state that is no tensor, or a tensor."""
    path = folder / checkpoint.FILE
    with safe_open(path, framework="pt") as file:
        rest = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if way in tensors:
        tensors[way] = value
    else:
        *before, last = way.split("/")
        inside = rest
        for step in before:
            inside = inside[int(step) if isinstance(inside, list) else step]
        inside[last] = value
    save_file(tensors, path, {"state": json.dumps(rest)})


@pytest.mark.parametrize(
    ("way", "value", "why"),
    [
        ("progress/step", 1.5, "progress: step: input should be a valid integer"),
        ("progress/total", -1, "a run cannot be at "),
        ("progress/stage", "x", "progress: stage: input should be a valid integer"),
        ("schedule/last_epoch", "x", "the state of the optimiser or of its schedule is of another kind"),
        ("schedule", 7, "the state of the optimiser or of its schedule is of another kind"),
        ("groups/0/lr", None, "the state of the optimiser or of its schedule is of another kind"),
        ("groups/0/betas", [0.9], "the state of the optimiser or of its schedule is of another kind"),
        ("groups", [], "the state of the optimiser or of its schedule is of another kind"),
        ("network.weight", torch.ones(5), "Error(s) in loading state_dict for Linear"),
        ("optimiser.0.exp_avg", torch.ones(4), "exp_avg has the shape (4,) of no parameter"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_a_state_of_another_kind_is_told(folder: Path, way: str, value: Any, why: str) -> None:
    spoil(folder, way, value)
    with pytest.raises(InputError) as caught:
        restored(folder)
    assert str(caught.value).startswith(f"{folder / checkpoint.FILE}: damaged, cannot be read ({why}")
    assert caught.value.parameter == "restart"
