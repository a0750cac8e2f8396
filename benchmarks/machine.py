"""The machine that a figure was measured on."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu() -> str:
    """Return the name of the processor."""
    file = Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
