"""Runs at a time: each a process that stops when the one that started it does."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from mcatrain.run.config import TrainConfig
from mcatrain.run.loop import train, train_together

T = TypeVar("T")
R = TypeVar("R")
#: Chips that go together: more would share little more of the work, and take more memory.
MOST = 16


def run_all(runs: list[TrainConfig], jobs: int) -> list[dict[str, Any]]:
    """Make the runs, ``jobs`` at a time, each a process if more than one; return their results."""
    return _map(train, runs, jobs)


def run_together(runs: list[TrainConfig], jobs: int) -> list[dict[str, Any]]:
    """Make runs as `train_together` does, in groups, ``jobs`` at a time; return their results."""
    rounds = math.ceil(len(runs) / (jobs * MOST))
    size = math.ceil(len(runs) / (jobs * rounds))
    groups = [runs[k : k + size] for k in range(0, len(runs), size)]
    return [result for results in _map(train_together, groups, jobs) for result in results]


def _map(make: Callable[[T], R], work: list[T], jobs: int) -> list[R]:
    if jobs == 1:
        return [make(part) for part in work]
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ears, mouth = context.Pipe(duplex=False)
    with ProcessPoolExecutor(jobs, context, initializer=_heed, initargs=(ears,)) as pool:
        try:
            with _deaf_children():
                futures = [pool.submit(make, part) for part in work]
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            mouth.close()


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Start processes that ignore Ctrl-C: they are told by the pipe, and would each complain."""
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)


def _heed(ears: Connection) -> None:
    """Have a worker leave a checkpoint and end when the comparison stops, or is killed itself.

    Nothing is ever said: the pipe ends when the other side closes it or dies.
    """

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):
            ears.recv()
        while True:  # the first one stops a run, the next the worker that waits for another
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    threading.Thread(target=listen, daemon=True).start()
