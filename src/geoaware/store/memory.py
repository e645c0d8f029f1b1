"""How many images at once, and in which dtype: chosen from the memory that is free on the device."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from geoaware.features.extractor import DTYPES
from geoaware.runs.errors import InputError
from geoaware.runs.memory import free_host_memory

T = TypeVar("T")

# Beyond these a larger batch no longer pays. On a CPU it never did (`benchmarks/store.py`).
LARGEST_BATCH = {"cpu": 1}
_LARGEST_ELSEWHERE = 32
# What libraries take for themselves (workspaces, fragments) is not seen by counting tensors.
_MARGIN = 1.3
_SPARE = 256 << 20

_log = logging.getLogger(__name__)


def plan_batch(each: int, device: torch.device, limit: int | None = None, sharers: int = 1) -> int:
    """The largest batch that fits the free memory; logged.

    Args:
        each: bytes that one image takes, as `measured` gives them.
        device: where it is computed; the weights are there already.
        limit: bytes that the computation may take, beside the weights; what is free if not given.
        sharers: processes that share the device and do the same.

    Raises:
        InputError: not even one image fits.
    """
    there = free_memory(device) // sharers
    free = there if limit is None else min(there, limit)
    spare = min(_SPARE, free // 4) if limit is None or limit > there else 0
    need = max(1, int(each * _MARGIN))
    batch = (free - spare) // need
    if batch < 1:
        raise InputError(
            f"one image takes {_gigabytes(need)} on {device.type}, {_gigabytes(free)} may be used; "
            "use a smaller canvas, half precision (bf16) or another device, or allow more memory"
        )
    batch = min(batch, LARGEST_BATCH.get(device.type, _LARGEST_ELSEWHERE))
    about = (device.type, _gigabytes(each), _gigabytes(free))
    _log.info("batch of %d on %s: %s an image, %s free", batch, *about)
    return batch


def choose_dtype_by_memory(
    weights: int, device: torch.device, limit: int | None = None, sharers: int = 1
) -> str:
    """``"fp32"`` where the weights leave room to compute in it, else ``"bf16"``; logged.

    MPS and GPUs that lack bf16 get ``"fp16"`` instead. ``weights`` are their bytes in fp32, ``limit`` bytes
    that all may take; ``sharers`` as for `plan_batch`.
    """
    there = free_memory(device) // sharers
    free = there if limit is None else min(there, limit)
    lacks_bf16 = device.type == "mps" or (device.type == "cuda" and not torch.cuda.is_bf16_supported())
    chosen = "fp32" if 2 * weights <= free else "fp16" if lacks_bf16 else "bf16"
    about = (device.type, _gigabytes(weights), _gigabytes(free))
    _log.info("%s on %s: weights %s in fp32, %s free", chosen, *about)
    return chosen


def weights_size(module: torch.nn.Module, dtype: str = "fp32") -> int:
    """Bytes of a module's parameters and buffers, the floating ones counted in ``dtype``."""
    width = DTYPES[dtype].itemsize
    values = [*module.parameters(), *module.buffers()]
    return sum(each.numel() * (width if each.is_floating_point() else each.element_size()) for each in values)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device, with what this process holds unused.

    MPS: up to the recommended maximum. CPU: see `free_host_memory`.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    if device.type == "mps":
        unused = torch.mps.driver_allocated_memory() - torch.mps.current_allocated_memory()
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory() + unused)
    return free_host_memory()


def measured(run: Callable[[], T], device: torch.device) -> tuple[T, int]:
    """What a function returns, and by how many bytes it raised the device's memory at its peak.

    On CUDA the allocator says it; elsewhere the tensors alive at any moment are counted.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        torch.cuda.synchronize(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    with _LiveTensors() as live:
        result = run()
    return result, live.peak


class _LiveTensors(TorchDispatchMode):
    """Bytes of the storages made by the operations inside that are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # A view or an operation in place gives back memory that was there before.
        given = {storage.data_ptr() for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage.data_ptr() not in given:
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._seen or not size:
            return
        self._seen.add(place)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, place, size).atexit = False

    def _gone(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self._now -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [each.untyped_storage() for each in tree_flatten(tree)[0] if isinstance(each, torch.Tensor)]


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
