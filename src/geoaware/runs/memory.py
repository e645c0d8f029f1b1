"""How much of the machine's memory is free."""

from __future__ import annotations

import os
from pathlib import Path


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
