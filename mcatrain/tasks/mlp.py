"""The mlp task: fully connected classification of images."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mcatrain.tasks.classify import ImageTask


class MLPTask(ImageTask):
    """784-250-10 of Nandakumar et al. 2020, 784-256-128-10 of Gokmen & Vlasov 2016, and alike."""

    def _images(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device)

    def model(self) -> nn.Module:
        widths = [self.data.train_x.shape[1], *self.options.hidden_layers, self.data.classes]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.Sigmoid()]
        if self.options.loss == "cross-entropy":
            layers.pop()  # the softmax is part of the loss
        return nn.Sequential(*layers)
