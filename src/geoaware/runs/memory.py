"""How much of the machine's memory is free, and what becomes of memory that this process frees."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""Settings of glibc's ``mallopt``."""


def keep_freed_memory() -> None:
    """Have freed blocks kept for the next image.

    glibc gives large ones back to the system, which must clear them anew for each image: a fifth of the time
    that one takes.
    """
    _allocate({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: (1 << 31) - 1})


def return_freed_memory() -> None:
    """Have large blocks go back to the system when they are freed: glibc keeps those of each thread."""
    _allocate({_M_MMAP_THRESHOLD: 4 << 20})


def _allocate(settings: dict[int, int]) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            for name, value in settings.items():
                ctypes.CDLL(None).mallopt(name, value)


def free_host_memory() -> int:
    """Bytes that can still be allocated in the machine's memory.

    What the system calls available (where it does not say, half of the machine's memory), within the limit of
    the container.
    """
    return min(_available(), _container())


def _available() -> int:
    facts = Path("/proc/meminfo")
    for line in facts.read_text(encoding="ascii").splitlines() if facts.is_file() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30


def _container() -> int:
    """What a control group still allows (version 2, then 1); without one, no limit."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):
            continue
    return 1 << 62
