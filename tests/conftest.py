"""What tests of several folders need."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


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
