"""Runs of one network on several chips, step by step together: each computes what it would alone.

The chips share the loop, one autograd graph and the passes over inputs and outputs; every chip
keeps its model, its optimizer and its streams of random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch

from devicemodels.errors import InputError
from mcatrain.nn.together import LinearTogether, together
from mcatrain.optim.base import PulsedOptimizer
from mcatrain.run.config import TrainConfig
from mcatrain.run.single import Run
from mcatrain.tasks.mlp import MLPTask

#: Does one step of each of some runs; returns the mean losses and numbers of examples.
Stepper = Callable[[], list[tuple[float, int]]]


def serves(config: TrainConfig) -> bool:
    """Whether chips of this run can go together: fully connected layers, on the CPU.

    A budget may end each chip at another step.
    """
    on_cpu = config.torch_device == "cpu" or not torch.cuda.is_available()
    return config.task == "mlp" and on_cpu and config.budget_amount is None


def stepper(runs: Sequence[Run]) -> Stepper:
    """Return what does the next step of all of the runs, which are at the same one."""
    tasks = [cast(MLPTask, run.task) for run in runs]
    data = tasks[0]  # all share it
    layers = [together(same) for same in zip(*(run.model.children() for run in runs), strict=True)]
    arrays = [layer for layer in layers if isinstance(layer, LinearTogether)]
    optimizers = [cast(PulsedOptimizer, run.optimizer) for run in runs]
    keep_factors = all(optimizer.keeps_factors for optimizer in optimizers)

    def step() -> list[tuple[float, int]]:
        part = torch.stack([task.part(runs[0].at) for task in tasks])
        y, targets = data.train_x[part], data.train_y[part]
        for layer in layers:
            y = layer(y)
        with torch.no_grad():  # a sum over all chips would round in another way
            pairs = zip(y.unbind(), targets.unbind(), strict=True)
            losses = [data.loss(*own).item() for own in pairs]
        for run, loss in zip(runs, losses, strict=True):
            with run.explaining():
                if not math.isfinite(loss):
                    raise InputError("the loss is not finite: lower the learning rate")
        for optimizer in optimizers:
            optimizer.zero_grad()
        n = part.shape[1]
        (data.summed_loss(y.flatten(0, 1), targets.flatten(0, 1)) / n).backward()
        # One look at all gradients; where one is not finite, the chip's own step says so.
        finite = keep_factors and all(layer.is_finite for layer in arrays)
        with torch.no_grad():
            for run, optimizer in zip(runs, optimizers, strict=True):
                with run.explaining():
                    optimizer._apply() if finite else optimizer.step()
        return [(loss, n) for loss in losses]

    return step
