"""The cnn task: convolutional classification; each image set has its network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from mcatrain.tasks.classify import ImageTask

Layers = list[tuple[str, nn.Module]]


def _cifar10(classes: int, dropout: float | None) -> Layers:
    """Nine layers, 1.47 M weights, of the form of Nandakumar et al. 2020 (widths are ours).

    3 x [2 conv 3x3 ReLU, max-pool, dropout 0.25], 3 fully connected with dropout 0.5; initial
    weights of He et al. 2015.
    """
    layers: Layers = []
    fan_in = 3
    for stage, channels in enumerate((48, 96, 192), start=1):
        for part in "ab":
            layers.append((f"conv{stage}{part}", nn.Conv2d(fan_in, channels, 3, padding=1)))
            layers.append((f"relu{stage}{part}", nn.ReLU()))
            fan_in = channels
        layers.append((f"pool{stage}", nn.MaxPool2d(2)))
        layers.append((f"drop{stage}", nn.Dropout(0.25 if dropout is None else dropout)))
    layers.append(("flat", nn.Flatten()))
    for k, (wide, narrow) in enumerate(((192 * 16, 256), (256, 128)), start=1):
        layers.append((f"fc{k}", nn.Linear(wide, narrow)))
        layers.append((f"relu_fc{k}", nn.ReLU()))
        layers.append((f"drop_fc{k}", nn.Dropout(0.5 if dropout is None else dropout)))
    layers.append(("fc3", nn.Linear(128, classes)))
    for _, layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # Nine layers without normalisation: torch's own start would not let a signal through.
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return layers


def _mnist(classes: int, dropout: float | None) -> Layers:
    """The network of Gokmen, Onen & Haensch 2017: arrays 16x26, 32x401, 128x513, 10x129."""
    return [
        ("conv1", nn.Conv2d(1, 16, 5)),
        ("tanh1", nn.Tanh()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(16, 32, 5)),
        ("tanh2", nn.Tanh()),
        ("pool2", nn.MaxPool2d(2)),
        ("flat", nn.Flatten()),
        ("fc1", nn.Linear(512, 128)),
        ("tanh3", nn.Tanh()),
        ("fc2", nn.Linear(128, classes)),
    ]


def _digits(classes: int, dropout: float | None) -> Layers:
    """A small one for images of 8x8 pixels, to try things out."""
    return [
        ("conv1", nn.Conv2d(1, 8, 3, padding=1)),
        ("tanh1", nn.Tanh()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(8, 16, 3, padding=1)),
        ("tanh2", nn.Tanh()),
        ("pool2", nn.MaxPool2d(2)),
        ("flat", nn.Flatten()),
        ("fc1", nn.Linear(64, 32)),
        ("tanh3", nn.Tanh()),
        ("fc2", nn.Linear(32, classes)),
    ]


def cifar10_network(classes: int, dropout: float | None = None) -> nn.Sequential:
    """Return the network of CIFAR-10; dropout replaces its own 0.25 and 0.5."""
    return nn.Sequential(OrderedDict(_cifar10(classes, dropout)))


_NETWORKS: dict[str, Callable[[int, float | None], Layers]] = {
    "cifar10": _cifar10,
    "mnist": _mnist,
    "digits": _digits,
}


class CNNTask(ImageTask):
    """Colour images are scaled to [-1, 1], the others to [0, 1]."""

    evaluation_batch = 250

    def _images(self, pixels: Tensor) -> Tensor:
        images = pixels.view(-1, *self.data.image_shape).to(self.device)
        return images * 2 - 1 if self.data.image_shape[0] == 3 else images

    def model(self) -> nn.Module:
        layers = _NETWORKS[self.options.data](self.data.classes, self.options.dropout)
        if self.options.loss == "mse":
            layers.append(("sigmoid", nn.Sigmoid()))
        return nn.Sequential(OrderedDict(layers))
