"""One run's state: what is not in its model or optimizer, its folder, evaluations and result."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from devicemodels.errors import InputError
from devicemodels.state import derive_seed
from mcatrain.pulselog import PulseLog
from mcatrain.run import accounts, checkpoint, trackers
from mcatrain.run.accounts import Accounts
from mcatrain.run.config import TrainConfig
from mcatrain.run.folder import Metrics, write_json
from mcatrain.run.summary import counts, histograms, remarks, versions
from mcatrain.tasks import Task
from mcatrain.tile import apart


class Run:
    """A run in progress, from its last checkpoint on if it has one.

    torch_state: the state of torch's own generator that belongs to this run, where several
    runs share a process (they draw nothing from it while they train); None for a lone run.
    """

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
        checkpoint.remove_others(folder, progress)  # what a kill kept `save` from removing
        self.epoch, self.at, self.step = (int(progress[key]) for key in ("epoch", "at", "step"))
        self.loss_sum, self.seconds = float(progress["loss_sum"]), float(progress["seconds"])
        self.metrics = Metrics(folder, int(progress["evaluations"]))
        self.ledger = Metrics(folder, int(progress["evaluations"]), "ledger.jsonl")
        self.accounts = Accounts(config, model, dict(progress["work"]))
        self.log = PulseLog(model, folder / "pulses") if config.pulse_log else None
        if self.log:
            self.log.cut(self.step)
        self.torch_state: Tensor | None = None
        self._tracker: trackers.Tracker | None = None

    @property
    def position(self) -> tuple[int, int]:
        """Epoch, and the example in it at which the next step begins."""
        return self.epoch, self.at

    @property
    def seen(self) -> int:
        """Training examples so far."""
        return self.epoch * self.task.examples + self.at

    @property
    def is_trained(self) -> bool:
        """Whether all epochs are done, or the budget is spent and what it bought was evaluated."""
        evaluated = bool(self.metrics.rows) and self.metrics.rows[-1]["step"] == self.step
        return self.epoch >= self.config.epochs or (evaluated and self.is_spent)

    @property
    def is_spent(self) -> bool:
        """Whether the budget is, if there is one; it buys at least one step."""
        return self.step > 0 and self.accounts.used_up(self.seen, self.step)

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Tell the tracker of the run, if it has one, of what comes; close it at the end."""
        options = self.config.table()
        with trackers.told(self.config.tracker, self.folder, options, self.step) as tracker:
            self._tracker = tracker
            yield

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
        if self.torch_state is not None:
            torch.set_rng_state(self.torch_state)
        checkpoint.save(self.folder, self.model, self.optimizer, progress, self.task)

    def begin_epoch(self) -> None:
        """Order the examples of the epoch; go on in its middle if it was broken there."""
        shuffle = torch.Generator().manual_seed(
            derive_seed(self.config.seed, f"order of epoch {self.epoch}")
        )
        held = self.task.state()
        self.task.start_epoch(shuffle)
        if self.at:  # in the middle of an epoch
            self.task.restore(held)
        self.model.train()

    def begin_step(self) -> None:
        """Give the optimizer the learning rate of the step that comes, and the log its number."""
        if self.log:
            self.log.begin(self.step + 1)
        rate = self.config.learning_rate * self._lr_factor()
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _lr_factor(self) -> float:
        schedule = self.config.lr_schedule
        if schedule == "constant":
            return 1.0
        if schedule == "linear":
            return 1 - (self.epoch + self.at / self.task.examples) / self.config.epochs
        return 0.5 ** (3 * self.epoch // self.config.epochs)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Tell in which step an input turned out bad, and where to go on from."""
        try:
            yield
        except InputError as error:
            raise InputError(
                f"step {self.step + 1}: {error} (--lr); the last checkpoint is in {self.folder}"
            ) from None

    def count(self, loss: float, examples: int) -> None:
        """Take in what a step did: its mean loss, over so many examples."""
        self.accounts.first_step(examples)
        self.loss_sum += loss * examples
        self.at += examples
        self.step += 1

    def pulses_per_example(self) -> float:
        """Return the pulses sent so far, over the examples so far."""
        pulses = counts(self.model)
        return (pulses["set_pulses"] + pulses["reset_pulses"]) / max(self.seen, 1)

    def evaluate(self) -> float | None:
        """Close an epoch, or a budget: evaluate on streams of chance of its own, log, checkpoint.

        Returns the task's metric.
        """
        with self._apart("evaluation"):
            found = self.task.evaluate(self.model)
        self.show()
        # JSON knows no infinity: what has overflowed is written as null.
        measured = {key: value if math.isfinite(value) else None for key, value in found.items()}
        ended = self.at >= self.task.examples
        work = self.accounts.counts(self.seen, self.step)
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
        if self._tracker:  # before the checkpoint, so that a kill between them loses no row
            told = {f"ledger/{name}": value for name, value in spent.items()}
            numbers = trackers.numbers_of({**row, **told})
            # Of a copy: to read weights can bring devices up to date that training would later.
            found = histograms(copy.deepcopy(self.model))["layers"]
            self._tracker.log(self.step, numbers, found)
        self.save()
        return measured[self.task.metric]

    def show(self) -> None:
        """Have the task write what its model makes: images, text."""
        with self._apart("show"):
            self.task.show(self.model, self.folder)

    @contextmanager
    def _apart(self, purpose: str) -> Iterator[None]:
        """Look at the model without shifting the random numbers of training."""
        self.model.eval()
        with apart(self.model, f"{purpose} at step {self.step}"):
            yield

    def result(self) -> dict[str, Any]:
        """Write the result of a finished run, and return it."""
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
            "examples": self.seen,
            **self.accounts.result(self.seen, self.step, last["epoch"]),
            "remarks": remarks(self.model, metric, course, config.refresh_every),
            "command": shlex.join(["mcatrain", *self.command[1:]]),
            "versions": versions(),
        }
        if worn := accounts.wear(self.model, config.endurance):
            result["ledger"]["wear"] = {"endurance": config.endurance, "layers": worn}
        write_json(self.folder / "histograms.json", histograms(self.model))
        write_json(self.folder / "result.json", result)
        if self._tracker:
            self._tracker.finish(result)
        return result
