"""Training: runs from their options to their folders, alone or step by step together."""

from __future__ import annotations

import copy
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from devicemodels.errors import InputError
from devicemodels.state import derive_seed
from mcatrain.run import lockstep
from mcatrain.run.config import TrainConfig
from mcatrain.run.folder import begin_run, check_run, read_result
from mcatrain.run.progress import Progress
from mcatrain.run.rules import prepare
from mcatrain.run.single import Run
from mcatrain.tasks import Task, make_task


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came; the run left a checkpoint."""


def train(config: TrainConfig, command: list[str] | None = None) -> dict[str, Any]:
    """Run to the end, or from the last checkpoint to the end; return what result.json holds.

    Raises InputError for bad input, Interrupted after a signal, with a checkpoint left.
    """
    return train_together([config], command)[0]


def train_together(
    configs: Sequence[TrainConfig], command: list[str] | None = None
) -> list[dict[str, Any]]:
    """Make runs that differ in seeds and devices alone, as `train` makes each; return the results.

    Several must be such that `lockstep.serves` them: each then computes what it would alone.
    """
    first = configs[0]
    torch.set_num_threads(first.threads)
    task = make_task(first, pick_device(first))
    runs: dict[int, Run] = {}
    results: dict[int, dict[str, Any]] = {}
    for k, config in enumerate(configs):
        done = check_run(config) / "result.json"
        if not done.exists() or task.is_asked_to_show:
            run = _begin(config, task, command or sys.argv)
            if len(configs) > 1:
                run.torch_state = torch.get_rng_state()
            if task.is_asked_to_show and run.is_trained:
                run.show()  # else the last evaluation does
            runs[k] = run
        if done.exists():
            results[k] = read_result(done)
    unfinished = {k: run for k, run in runs.items() if k not in results}
    with ExitStack() as trackers:
        for run in unfinished.values():
            trackers.enter_context(run.tracked())
        if unfinished:
            _Loop(list(unfinished.values())).finish()
        results |= {k: run.result() for k, run in unfinished.items()}
    return [results[k] for k in range(len(configs))]


def _begin(config: TrainConfig, task: Task, command: list[str]) -> Run:
    """Make the model and optimizer of a run, and its folder; take them from its checkpoint."""
    own = copy.copy(task)  # shares the data
    own.options = config
    torch.manual_seed(derive_seed(config.seed, "torch"))
    model, optimizer = prepare(config, own.model())
    model.to(task.device)
    begin_run(config)  # not before: what cannot be made must not leave a folder behind
    return Run(config, own, Path(config.out), model, optimizer, command)


def pick_device(config: TrainConfig) -> torch.device:
    """Return where a run's tensors live. Raises InputError if there is no such device."""
    name = config.torch_device
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--torch-device cuda: torch finds no CUDA device here: use cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and config.batch >= 32 else "cpu"
    return torch.device(name)


class _Loop:
    """Brings runs to their ends; those at the same step do it together."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs, first = runs, runs[0]
        label: str = first.config.rule
        if label != "fp32":
            label += f"@{Path(first.config.device_model).stem}"
        label += f" seed {first.config.seed}" if len(runs) == 1 else f", {len(runs)} chips"
        self.examples, self.every = first.task.examples, first.config.checkpoint_every
        total = self.examples * first.config.epochs * len(runs)
        self.bar = Progress(label, total, sum(run.seen for run in runs))

    def finish(self) -> None:
        """Train what is left."""
        with _stop_flag() as stop:
            while left := [run for run in self.runs if not run.is_trained]:
                # A kill can leave some a checkpoint ahead: the others catch up first.
                last, *ahead = sorted({run.position for run in left})
                group = [run for run in left if run.position == last]
                next_ = ahead[0] if ahead else (last[0] + 1, 0)
                until = next_[1] if next_[0] == last[0] else self.examples
                self._advance(group, until, stop)
        self.bar.close()

    def _advance(self, group: list[Run], until: int, stop: list[int]) -> None:
        """Train runs at the same step up to an example of their epoch; evaluate at its end.

        A run with a budget is alone, and may end earlier.
        """
        for run in group:
            run.begin_epoch()
        step = _alone(group[0]) if len(group) == 1 else lockstep.stepper(group)
        started = saved = shown = time.perf_counter()
        while group[0].at < until and not group[0].is_spent:
            for run in group:
                run.begin_step()
            for run, (loss, examples) in zip(group, step(), strict=True):
                run.count(loss, examples)
                self.bar.advance(examples)
            now = time.perf_counter()
            if stop or now - saved > self.every:
                _share(group, now - started)
                for run in group:
                    run.save()
                started = saved = time.perf_counter()
                if stop:
                    self._interrupt(group)
            if now - shown > 0.5:
                shown = now
                if group[0].config.rule != "fp32":
                    pulses = sum(run.pulses_per_example() for run in group) / len(group)
                    self.bar.show(**{"pulses/example": f"{pulses:.2f}"})
        _share(group, time.perf_counter() - started)
        if group[0].at < self.examples and not group[0].is_spent:
            return
        found = [run.evaluate() for run in group]
        known = [value for value in found if value is not None]
        mean = f"{sum(known) / len(known):.4g}" if len(known) == len(found) else "none"
        self.bar.show(**{group[0].task.metric: mean})

    def _interrupt(self, group: list[Run]) -> None:
        self.bar.close()
        first = group[0]
        where = first.folder if len(self.runs) == 1 else first.folder.parent
        raise Interrupted(
            f"interrupted after {first.step} steps; the checkpoint is in {where}: go on with "
            "--resume"
        )


def _share(group: list[Run], seconds: float) -> None:
    """Count the time of steps made together, the same part of it for each run."""
    for run in group:
        run.seconds += seconds / len(group)


def _alone(run: Run) -> lockstep.Stepper:
    """Return what does one step of a run."""

    def step() -> list[tuple[float, int]]:
        with run.explaining():
            return [run.task.train_on(run.model, run.optimizer, run.at)]

    return step


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying, for the loop to look at."""
    caught: list[int] = []
    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        kept[number] = signal.signal(number, lambda n, _: caught.append(n))
    try:
        yield caught
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
