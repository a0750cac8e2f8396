"""The networks that are trained: mlp, cnn, lstm, gan."""

from __future__ import annotations

import torch

from mcatrain.run.options import Options
from mcatrain.tasks.base import Task


def make_task(options: Options, device: torch.device) -> Task:
    """Return the task of the options with its data loaded."""
    # One import a task: scipy and the feature network are for the gan alone.
    if options.task == "lstm":
        from mcatrain.tasks.lstm import LSTMTask

        return LSTMTask(options, device)
    if options.task == "gan":
        from mcatrain.tasks.gan import GANTask

        return GANTask(options, device)
    if options.task == "cnn":
        from mcatrain.tasks.cnn import CNNTask

        return CNNTask(options, device)
    from mcatrain.tasks.mlp import MLPTask

    return MLPTask(options, device)
