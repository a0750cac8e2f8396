"""The machine that a figure was measured on."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from pathlib import Path

import numba
import torch

import mcatrain


def cpu() -> str:
    """Return the name of the processor."""
    file = Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def setting(clock: str) -> dict[str, str]:
    """Return what a figure depends on beside the code: machine, threads, versions, date, command.

    load: processes that wanted a core in the minute before, as the system counts them; taken before
    anything is measured, they are others'.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    prefix = f"OMP_NUM_THREADS={threads} " if threads else ""
    return {
        "machine": f"{cpu()}, {os.cpu_count()} cores",
        "load": f"{os.getloadavg()[0]:.1f}",
        "threads": str(torch.get_num_threads()),
        "clock": clock,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "mcatrain": mcatrain.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": f"{prefix}python -m benchmarks {shlex.join(sys.argv[1:])}".strip(),
    }
