"""The kernels for CUDA compile for the cards of today, on a machine without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compile_kernels.py")


@pytest.mark.parametrize("capability", ["90"])
def test_every_kernel_compiles(capability: str, tmp_path: Path) -> None:
    """To machine code of an H100; a process of its own, without the interpreter."""
    pytest.importorskip("triton", reason="the kernels for CUDA need triton")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), capability], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[0]) >= 8
