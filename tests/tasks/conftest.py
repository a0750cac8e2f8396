"""What the tests of the tasks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from mcatrain.run.config import TrainConfig
from mcatrain.run.rules import prepare
from mcatrain.tasks import Task, make_task

Made = tuple[Task, nn.Module, torch.optim.Optimizer]


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture
def make() -> Callable[..., Made]:
    """Return a function: a task with its model under a rule, and the rule's optimizer."""

    def build(**options: Any) -> Made:
        config = TrainConfig(**{"out": "unused", "rule": "fp32", **options})
        task = make_task(config, torch.device("cpu"))
        torch.manual_seed(config.seed)
        return task, *prepare(config, task.model())

    return build
