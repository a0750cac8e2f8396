"""Classification of images: what the mlp and cnn tasks share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from mcatrain.data import Dataset, load_images
from mcatrain.run.options import Options
from mcatrain.tasks.base import Task, descend


class ImageTask(Task):
    """Images in, class scores out; loss 'mse' or 'cross-entropy'."""

    metric = "test_accuracy"
    evaluation_batch = 2000

    def __init__(self, options: Options, device: torch.device) -> None:
        super().__init__(options, device)
        data = load_images(options.data, options.data_dir, options.train_limit)
        self.data: Dataset = data
        self.examples = len(data.train_y)
        self.train_x, self.train_y = self._images(data.train_x), self._targets(data.train_y)
        self.test_x, self.test_y = self._images(data.test_x), data.test_y.to(device)
        self.test_targets = self._targets(data.test_y)
        self._order = torch.arange(self.examples)

    @abstractmethod
    def _images(self, pixels: Tensor) -> Tensor:
        """Return the network's input for pixels (n, features) in [0, 1]."""

    def _targets(self, labels: Tensor) -> Tensor:
        if self.options.loss == "mse":
            return one_hot(labels, self.data.classes).float().to(self.device)
        return labels.to(self.device)

    def start_epoch(self, shuffle: torch.Generator) -> None:
        self._order = torch.randperm(self.examples, generator=shuffle).to(self.device)

    def train_on(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, at: int
    ) -> tuple[float, int]:
        part = self.part(at)
        loss = self.loss(model(self.train_x[part]), self.train_y[part])
        return descend(loss, optimizer), len(part)

    def part(self, at: int) -> Tensor:
        """Return which examples the step takes that begins at example ``at``."""
        return self._order[at : at + self.options.batch]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the examples: half the summed square error, or the cross-entropy [nats]."""
        return self.summed_loss(output, target) / len(output)

    def summed_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Sum of the `loss` over the examples."""
        if self.options.loss == "mse":
            return 0.5 * (output - target).square().sum()
        return cross_entropy(output, target, reduction="sum")

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return test_loss and test_accuracy (a fraction)."""
        loss, right = 0.0, 0
        with torch.no_grad():
            for at in range(0, len(self.test_x), self.evaluation_batch):
                part = slice(at, at + self.evaluation_batch)
                output = model(self.test_x[part])
                loss += self.loss(output, self.test_targets[part]).item() * len(output)
                right += int((output.argmax(1) == self.test_y[part]).sum())
        return {
            "test_loss": loss / len(self.test_x),
            "test_accuracy": right / len(self.test_x),
        }
