"""One training run: from options to a folder with metrics, checkpoint and result."""

from __future__ import annotations

import math
import platform
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

import mcatrain
from devicemodels.errors import InputError
from devicemodels.state import derive_seed
from devicemodels.wear import track_wear
from mcatrain.pulselog import PulseLog
from mcatrain.run import accounts, checkpoint
from mcatrain.run.accounts import Accounts
from mcatrain.run.config import TrainConfig
from mcatrain.run.folder import Metrics, begin_run, check_run, read_result, write_json
from mcatrain.run.progress import Progress
from mcatrain.run.rules import prepare
from mcatrain.run.summary import counts, histograms, remarks
from mcatrain.tasks import Task, make_task
from mcatrain.tile import tiles


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came; the run left a checkpoint."""


def train(config: TrainConfig, command: list[str] | None = None) -> dict[str, Any]:
    """Run to the end, or from the last checkpoint to the end; return what result.json holds.

    Raises InputError for bad input, Interrupted after a signal, with a checkpoint left.
    """
    device = _device(config)
    torch.set_num_threads(config.threads)
    task = make_task(config, device)
    folder = check_run(config)
    done = folder / "result.json"
    if done.exists() and not task.is_asked_to_show:
        return read_result(done)
    torch.manual_seed(derive_seed(config.seed, "torch"))
    model, optimizer = prepare(config, task.model())
    model.to(device)
    if config.wear:
        track_wear(model)
    begin_run(config)  # not before: what cannot be made must not leave a folder behind
    run = _Run(config, task, folder, model, optimizer, command or sys.argv)
    if task.is_asked_to_show and run.is_over:
        run.show()  # else the last evaluation does
    return read_result(done) if done.exists() else run.finish()


def _device(config: TrainConfig) -> torch.device:
    name = config.torch_device
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--torch-device cuda: torch finds no CUDA device here: use cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and config.batch >= 32 else "cpu"
    return torch.device(name)


class _Run:
    """The state of a run in progress; all that is not in the model or the optimizer."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        command: list[str],
    ) -> None:
        self.config, self.task, self.folder, self.command = config, task, folder, command
        self.model, self.optimizer = model, optimizer
        start: dict[str, Any] = {"epoch": 0, "at": 0, "step": 0, "loss_sum": 0.0, "seconds": 0.0}
        start |= {"evaluations": 0, "work": {}}
        progress = checkpoint.load(folder, model, optimizer, start.keys(), task) or start
        self.epoch, self.at, self.step = (int(progress[key]) for key in ("epoch", "at", "step"))
        self.loss_sum, self.seconds = float(progress["loss_sum"]), float(progress["seconds"])
        self.metrics = Metrics(folder, int(progress["evaluations"]))
        self.ledger = Metrics(folder, int(progress["evaluations"]), "ledger.jsonl")
        self.accounts = Accounts(config, model, dict(progress["work"]))
        self.log = PulseLog(model, folder / "pulses") if config.pulse_log else None
        if self.log:
            self.log.cut(self.step)

    def save(self) -> None:
        """Write a checkpoint of this instant."""
        progress = {
            "epoch": self.epoch,
            "at": self.at,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "evaluations": len(self.metrics.rows),
            "work": self.accounts.work,
        }
        if self.log:
            self.log.flush()
        checkpoint.save(self.folder, self.model, self.optimizer, progress, self.task)

    def finish(self) -> dict[str, Any]:
        """Train what is left, then write the result."""
        n, epochs = self.task.examples, self.config.epochs
        label: str = self.config.rule
        if label != "fp32":
            label += f"@{Path(self.config.device_model).stem}"
        bar = Progress(f"{label} seed {self.config.seed}", n * epochs, self.epoch * n + self.at)
        with _stop_flag() as stop:
            while not self.is_over:
                self._epoch(bar, stop)
        bar.close()
        return self._result()

    @property
    def examples(self) -> int:
        """Training examples so far."""
        return self.epoch * self.task.examples + self.at

    @property
    def is_over(self) -> bool:
        """All epochs are done, or the budget is spent and what it bought was evaluated."""
        evaluated = bool(self.metrics.rows) and self.metrics.rows[-1]["step"] == self.step
        return self.epoch == self.config.epochs or (evaluated and self._is_spent())

    def _is_spent(self) -> bool:
        return self.accounts.used_up(self.examples, self.step)

    def _epoch(self, bar: Progress, stop: list[int]) -> None:
        config = self.config
        shuffle = torch.Generator().manual_seed(
            derive_seed(config.seed, f"order of epoch {self.epoch}")
        )
        held = self.task.state()
        self.task.start_epoch(shuffle)
        if self.at:  # in the middle of an epoch
            self.task.restore(held)
        self.model.train()
        started = saved = shown = time.perf_counter()
        while self.at < self.task.examples and not (self.step and self._is_spent()):
            loss_value, examples = self._train_on()
            self.loss_sum += loss_value * examples
            self.at += examples
            self.step += 1
            bar.advance(examples)
            now = time.perf_counter()
            if stop or now - saved > config.checkpoint_every:
                self.seconds += now - started
                self.save()
                started = saved = time.perf_counter()
                if stop:
                    bar.close()
                    raise Interrupted(
                        f"interrupted after {self.step} steps; the checkpoint is in "
                        f"{self.folder}: go on with --resume"
                    )
            if now - shown > 0.5:
                shown = now
                self._show(bar)
        self.seconds += time.perf_counter() - started
        self._evaluate(bar)

    def _train_on(self) -> tuple[float, int]:
        """One step; return the loss and the number of examples."""
        rate = self.config.learning_rate * self._lr_factor()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.log:
            self.log.begin(self.step + 1)
        try:
            found = self.task.train_on(self.model, self.optimizer, self.at)
            self.accounts.first_step(found[1])
            return found
        except InputError as error:
            raise InputError(
                f"step {self.step + 1}: {error} (--lr); the last checkpoint is in {self.folder}"
            ) from None

    def _lr_factor(self) -> float:
        schedule = self.config.lr_schedule
        if schedule == "constant":
            return 1.0
        if schedule == "linear":
            return 1 - (self.epoch + self.at / self.task.examples) / self.config.epochs
        return 0.5 ** (3 * self.epoch // self.config.epochs)

    def _show(self, bar: Progress) -> None:
        pulses = counts(self.model)
        total = pulses["set_pulses"] + pulses["reset_pulses"]
        seen = self.examples
        if self.config.rule != "fp32":
            bar.show(**{"pulses/example": f"{total / max(seen, 1):.2f}"})

    def _evaluate(self, bar: Progress) -> None:
        """Close an epoch: evaluate on streams of chance of its own, log, checkpoint."""
        with self._apart("evaluation"):
            found = self.task.evaluate(self.model)
        self.show()
        # JSON knows no infinity: what has overflowed is written as null.
        measured = {key: value if math.isfinite(value) else None for key, value in found.items()}
        ended = self.at >= self.task.examples
        work = self.accounts.counts(self.examples, self.step)
        row = {
            "step": self.step,
            "epoch": self.epoch + (1 if ended else self.at / self.task.examples),
            "seconds": self.seconds,
            "train_loss": self.loss_sum / self.at,
            **measured,
            **counts(self.model),
        }
        spent = {
            "step": self.step,
            "epoch": row["epoch"],
            "energy": sum(self.accounts.energy_parts(work).values()),
            **work,
        }
        if ended:
            self.epoch, self.at, self.loss_sum = self.epoch + 1, 0, 0.0
        self.metrics.append(row)
        self.ledger.append(spent)
        name = self.task.metric
        bar.show(**{name: "none" if measured[name] is None else f"{measured[name]:.4g}"})
        self.save()

    def show(self) -> None:
        """Have the task write what its model makes: images, text."""
        with self._apart("show"):
            self.task.show(self.model, self.folder)

    @contextmanager
    def _apart(self, purpose: str) -> Iterator[None]:
        """Look at the model without shifting the random numbers of training."""
        self.model.eval()
        with ExitStack() as streams:
            for tile in tiles(self.model).values():
                streams.enter_context(tile.chance.fork(f"{purpose} at step {self.step}"))
            yield

    def _result(self) -> dict[str, Any]:
        config, last = self.config, self.metrics.rows[-1]
        metric = self.task.metric
        measured = {key: last[key] for key in ("train_loss", "test_loss", metric)}
        course = [row[metric] for row in self.metrics.rows]
        result = {
            "task": config.task,
            "rule": config.rule,
            "device": None if config.rule == "fp32" else config.device_model,
            "data": config.data,
            "seed": config.seed,
            "epochs": config.epochs,
            "metrics": measured,
            **counts(self.model),
            "seconds": self.seconds,
            "examples": self.examples,
            **self.accounts.result(self.examples, self.step, self.metrics.rows[-1]["epoch"]),
            "remarks": remarks(self.model, metric, course, config.refresh_every),
            "command": shlex.join(["mcatrain", *self.command[1:]]),
            "versions": {
                "mcatrain": mcatrain.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        if worn := accounts.wear(self.model, config.endurance):
            result["ledger"]["wear"] = {"endurance": config.endurance, "layers": worn}
        write_json(self.folder / "histograms.json", histograms(self.model))
        write_json(self.folder / "result.json", result)
        return result


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
