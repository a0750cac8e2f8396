"""What tests of several folders need."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Without a card the form of the kernels for CUDA runs in Triton's interpreter, which triton
# decides when it is imported; nothing else here imports it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


# Shells start what runs behind them with SIGINT ignored, and processes hand that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["cpu", "cuda"])
def fast(request: pytest.FixtureRequest) -> str:
    """The name of a form of the kernels other than the reference."""
    if request.param == "cuda":
        pytest.importorskip("triton", reason="the kernels for CUDA need triton")
    return str(request.param)


@pytest.fixture
def place(fast: str) -> torch.device:
    """Where that form runs: on the card if there is one."""
    return torch.device("cuda" if fast == "cuda" and torch.cuda.is_available() else "cpu")


@pytest.fixture
def empty_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, without the user's data and the disk's slow fsync; torch left as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MCATRAIN_DATA", raising=False)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_rng_state(state)
    torch.set_num_threads(threads)
