"""What a benchmark's figures were measured on; noted beside them."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

import geoaware


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "geoaware": geoaware.__version__,
    }
