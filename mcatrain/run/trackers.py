"""Trackers: programs that show runs while they train, told of a run by one small interface.

``--tracker tensorboard`` writes event files to RUN/tensorboard. A tracker of your own is a class
that does what `Tracker` says, named MODULE:CLASS wherever tensorboard could be; it is made with
the run's folder, for chips each with its own. One for a service such as W&B::

    class Wandb:
        def __init__(self, folder):
            self.folder = folder

        def start(self, options, step):
            self.run = wandb.init(project="pcm", name=str(self.folder), config=options)

        def log(self, step, numbers, histograms):
            self.run.log(numbers, step=step)

        def finish(self, result):
            self.run.summary.update(result["metrics"])

        def close(self):
            self.run.finish()

metrics.jsonl stays the record of a run; a tracker only tells of it, and cannot change it.
"""

from __future__ import annotations

import math
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from devicemodels.errors import InputError


class Tracker(Protocol):
    """What is told of a run. What raises after `start` is warned of once, then told no more."""

    def start(self, options: Mapping[str, Any], step: int) -> None:
        """Begin, or go on after ``step``, that of the checkpoint: later steps come once more."""

    def log(self, step: int, numbers: Mapping[str, float], histograms: Mapping[str, Any]) -> None:
        """Take an evaluation: the row of metrics.jsonl, and ledger/NAME, that of ledger.jsonl.

        What overflowed is not among the numbers. histograms: those of histograms.json, by layer
        and quantity: edges, and counts between them.
        """

    def finish(self, result: Mapping[str, Any]) -> None:
        """Take what result.json holds. Not called for a run that is interrupted."""

    def close(self) -> None:
        """End, whether the run has finished or not."""


class TensorBoard:
    """Event files for TensorBoard, in FOLDER/tensorboard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"
        self.options: dict[str, Any] = {}

    def start(self, options: Mapping[str, Any], step: int) -> None:
        # Here: it takes a fifth of a second to import.
        from torch.utils.tensorboard import SummaryWriter

        self.options = dict(options)
        # What is there of later steps, written between a checkpoint and a kill, is not shown.
        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1)
        text = "\n".join(f"| {name} | {value} |" for name, value in self.options.items())
        self.writer.add_text("options", f"| option | value |\n|---|---|\n{text}", step)

    def log(self, step: int, numbers: Mapping[str, float], histograms: Mapping[str, Any]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        for layer, quantities in histograms.items():
            for name, found in quantities.items():
                edges, counts = found["edges"], found["counts"]
                middles = [(a + b) / 2 for a, b in pairwise(edges)]
                sums = [sum(n * x**k for n, x in zip(counts, middles, strict=True)) for k in (1, 2)]
                self.writer.add_histogram_raw(
                    f"{name}/{layer}",
                    min=edges[0],
                    max=edges[-1],
                    num=sum(counts),
                    sum=sums[0],
                    sum_squares=sums[1],
                    bucket_limits=edges[1:],
                    bucket_counts=counts,
                    global_step=step,
                )
        self.writer.flush()

    def finish(self, result: Mapping[str, Any]) -> None:
        found = {f"final/{name}": value for name, value in numbers_of(result["metrics"]).items()}
        self.writer.add_hparams(self.options, found, run_name=".")

    def close(self) -> None:
        self.writer.close()


def find(name: str) -> Callable[[Path], Tracker]:
    """Return what makes a tracker: ``tensorboard``, or MODULE:CLASS. Raises InputError."""
    if name == "tensorboard":
        if find_spec("tensorboard") is None:
            raise InputError(
                "--tracker tensorboard: the package is not installed: pip install "
                "'mcatrain[tracking]', or leave it out"
            )
        return TensorBoard
    try:
        if ":" not in name:
            raise ValueError("no such tracker")
        found = pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(
            f"--tracker {name!r}: {error}: give tensorboard, or MODULE:CLASS that Python can import"
        ) from None
    missing = [part for part in ("start", "log", "finish", "close") if not hasattr(found, part)]
    if missing:
        raise InputError(f"--tracker {name!r}: has no {missing[0]}: see mcatrain.run.trackers")
    made: Callable[[Path], Tracker] = found
    return made


@contextmanager
def told(
    name: str | None, folder: Path, options: Mapping[str, Any], step: int
) -> Iterator[Tracker | None]:
    """Start a tracker of a run and close it at the end; None where there is none to tell.

    Raises InputError where it cannot start: nothing is lost yet. Later it must not end a training
    of days: what it raises becomes one warning, and the run goes on without it.
    """
    if name is None:
        yield None
        return
    try:
        tracker = find(name)(folder)
        tracker.start(options, step)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"--tracker {name}: cannot start in {folder} ({_said(error)}): mend it, or leave it out"
        ) from None
    careful = _Careful(name, folder, tracker)
    try:
        yield careful
    finally:
        careful.close()


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a finite number of a row."""
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


class _Careful:
    """A tracker that is left out after its first error, with a warning."""

    def __init__(self, name: str, folder: Path, tracker: Tracker) -> None:
        self.name, self.folder = name, folder
        self._tracker: Tracker | None = tracker

    def start(self, options: Mapping[str, Any], step: int) -> None:
        self._tell("start", options, step)

    def log(self, step: int, numbers: Mapping[str, float], histograms: Mapping[str, Any]) -> None:
        self._tell("log", step, numbers, histograms)

    def finish(self, result: Mapping[str, Any]) -> None:
        self._tell("finish", result)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, what: str, *given: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, what)(*given)
        except Exception as error:
            self._tracker = None
            warnings.warn(
                f"--tracker {self.name}: failed at {what} of {self.folder} ({_said(error)}): the "
                "run goes on without it; metrics.jsonl has every number",
                RuntimeWarning,
                stacklevel=2,
            )


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
