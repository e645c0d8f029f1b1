"""Batch and dtype from free memory."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from geoaware.runs import memory as host
from geoaware.runs.errors import InputError
from geoaware.runs.work import is_out_of_memory
from geoaware.store import memory
from geoaware.store.memory import (
    choose_dtype_by_memory,
    free_memory,
    measured,
    plan_batch,
    weights_size,
)
from tests.store.toy_extraction import Toy
from tests.toys import noise

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Set what is free on every device."""
    return lambda count: monkeypatch.setattr(memory, "free_memory", lambda _: count)


def test_free_memory_of_this_machine() -> None:
    assert 50e6 < free_memory(CPU) < 1e15


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_container", lambda: 1000)
    assert free_memory(CPU) == 1000


def test_tensors_alive_are_counted_at_their_peak() -> None:
    def chain() -> torch.Tensor:
        a = torch.ones(1000, 1000)
        b = a + 1
        del a
        c = b * 2
        c.add_(1)
        return c.view(-1)[:10]

    def together() -> list[torch.Tensor]:
        a = torch.ones(1000, 1000)
        b = a + 1
        return [a, b, b * 2]

    for run, megabytes in ((chain, 8), (together, 12)):
        for inference in (False, True):
            with torch.inference_mode(inference):
                assert measured(run, CPU)[1] == megabytes * 1_000_000


def test_two_images_take_twice_as_much_as_one() -> None:
    extractor, image = Toy(), noise(40, 40, 0)
    one, two = (measured(lambda n=n: extractor.levels_of([image] * n), CPU)[1] for n in (1, 2))
    assert one > 0
    assert 1.8 < two / one < 2.2


@pytest.mark.parametrize(
    ("space", "each", "limit", "sharers", "device", "batch"),
    [
        (20e9, 1e9, None, 1, CUDA, 15),  # (20 - 0.27) / 1.3
        (20e9, 1e9, None, 2, CUDA, 7),
        (20e9, 1e9, 5e9, 1, CUDA, 3),
        (20e9, 1e9, 50e9, 1, CUDA, 15),
        (20e9, 1e6, None, 1, CUDA, 32),
        (20e9, 1e6, None, 1, CPU, 1),
        (2e9, 1e9, None, 1, MPS, 1),
    ],
)
def test_the_largest_batch_that_fits(free, space, each, limit, sharers, device, batch) -> None:
    free(int(space))
    assert plan_batch(int(each), device, None if limit is None else int(limit), sharers) == batch


def test_what_does_not_fit_is_refused_with_remedies(free) -> None:
    free(10**9)
    with pytest.raises(InputError, match=r"one image takes 1\.30 GB on cuda, 1\.00 GB may be used; use a"):
        plan_batch(10**9, CUDA)


def test_the_choice_is_logged(free, caplog: pytest.LogCaptureFixture) -> None:
    free(20 * 10**9)
    with caplog.at_level(logging.INFO, "geoaware"):
        plan_batch(10**9, CUDA)
        choose_dtype_by_memory(10**9, CPU)
    assert "batch of 15 on cuda: 1.00 GB an image, 20.00 GB free" in caplog.text
    assert "fp32 on cpu: weights 1.00 GB in fp32, 20.00 GB free" in caplog.text


def test_half_precision_where_fp32_leaves_no_room(free, monkeypatch: pytest.MonkeyPatch) -> None:
    free(4 * 10**9)
    assert choose_dtype_by_memory(2 * 10**9, CPU) == "fp32"
    assert choose_dtype_by_memory(3 * 10**9, CPU) == "bf16"
    assert choose_dtype_by_memory(2 * 10**9, CPU, sharers=2) == "bf16"
    assert choose_dtype_by_memory(2 * 10**9, CPU, limit=10**9) == "bf16"
    assert choose_dtype_by_memory(3 * 10**9, MPS) == "fp16"
    for supported, dtype in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        assert choose_dtype_by_memory(3 * 10**9, CUDA) == dtype


def test_weights_are_counted_in_a_dtype() -> None:
    module = nn.BatchNorm1d(10)  # 4 x 10 floats, one int64
    assert weights_size(module) == 168
    assert weights_size(module, "bf16") == 88


def test_out_of_memory_by_any_name() -> None:
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("x"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
