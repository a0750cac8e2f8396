"""What the training loop asks of a task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from devicemodels.errors import InputError
from mcatrain.run.options import Options


class Task(ABC):
    """A network, its data and its loss. One epoch is ``examples`` training examples.

    metric: key of the number that the evaluation judges by.
    """

    metric: ClassVar[str]
    examples: int

    def __init__(self, options: Options, device: torch.device) -> None:
        self.options, self.device = options, device

    @abstractmethod
    def model(self) -> nn.Module:
        """Make the network."""

    @abstractmethod
    def start_epoch(self, shuffle: torch.Generator) -> None:
        """Put the training examples in the order of a new epoch."""

    @abstractmethod
    def train_on(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, at: int
    ) -> tuple[float, int]:
        """Do the step that begins at example ``at``; return the mean loss and how many it took."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return what is measured on the test set, the metric and ``test_loss`` among it."""

    def feed(self, model: nn.Module) -> None:  # noqa: B027 - only batch norm asks for it
        """Pass inputs as in training through what has batch norm, to measure its statistics."""

    def state(self) -> dict[str, Tensor]:
        """Return what else a checkpoint must hold, e.g. the state of a recurrent network."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - nothing is a state too
        """Take back what `state` gave."""

    @property
    def is_asked_to_show(self) -> bool:
        """Did the user ask for what `show` writes, even of a run that is finished?"""
        return False

    def show(self, model: nn.Module, folder: Path) -> None:  # noqa: B027 - most have nothing
        """Write what the model makes, if that can be looked at, into the run folder."""

    def facts(self) -> dict[str, Any]:
        """Return what a resumed run must find as it was, e.g. the vocabulary (JSON values)."""
        return {}


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> float:
    """Do one step down the loss and return its value. Raises InputError if it is not finite."""
    value = loss.item()
    if not math.isfinite(value):
        raise InputError("the loss is not finite: lower the learning rate")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value
