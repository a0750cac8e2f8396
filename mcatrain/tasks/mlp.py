"""The mlp task: fully connected classification of images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from mcatrain.data import Dataset, load_images
from mcatrain.run.config import Options

_EVALUATION_BATCH = 2000


class MLPTask:
    """784-250-10 of Nandakumar et al. 2020, 784-256-128-10 of Gokmen & Vlasov 2016, and alike."""

    def __init__(self, options: Options, device: torch.device) -> None:
        self.options = options
        folder = Path(options.data_dir) if options.data_dir else None
        data = load_images(options.data, folder, options.train_limit)
        self.data: Dataset = data
        self.train_x, self.train_y = data.train_x.to(device), self._targets(data.train_y, device)
        self.test_x, self.test_y = data.test_x.to(device), data.test_y.to(device)
        self.test_targets = self._targets(data.test_y, device)

    def _targets(self, labels: Tensor, device: torch.device) -> Tensor:
        if self.options.loss == "mse":
            return one_hot(labels, self.data.classes).float().to(device)
        return labels.to(device)

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self.train_x)

    def model(self) -> nn.Module:
        """Make the network, with torch's own initial weights."""
        widths = [self.data.train_x.shape[1], *self.options.hidden_layers, self.data.classes]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.Sigmoid()]
        if self.options.loss == "cross-entropy":
            layers.pop()  # the softmax is part of the loss
        return nn.Sequential(*layers)

    def epoch(self, order: Tensor) -> tuple[Tensor, Tensor]:
        """Return the training examples and their targets in the given order."""
        return self.train_x[order], self.train_y[order]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the examples: half the summed square error, or the cross-entropy [nats]."""
        if self.options.loss == "mse":
            return 0.5 * (output - target).square().sum() / len(output)
        return cross_entropy(output, target)

    def evaluate(self, model: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return test_loss and test_accuracy (a fraction)."""
        loss, right = 0.0, 0
        with torch.no_grad():
            for at in range(0, len(self.test_x), _EVALUATION_BATCH):
                part = slice(at, at + _EVALUATION_BATCH)
                output = model(self.test_x[part])
                loss += self.loss(output, self.test_targets[part]).item() * len(output)
                right += int((output.argmax(1) == self.test_y[part]).sum())
        return {
            "test_loss": loss / len(self.test_x),
            "test_accuracy": right / len(self.test_x),
        }
