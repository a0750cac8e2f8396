"""The networks that are timed, and batches to train them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import LR
from mcatrain.tasks.cnn import cifar10_network
from mcatrain.tasks.lstm import CharacterModel

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
_CHARACTERS = 87
_SEQUENCE = 100


@dataclass(frozen=True)
class Network:
    """A network, batches for it, and the rounds of each size of batch.

    A round times ``burst - 1`` steps, or one where burst is 1 (`timing.alternate`). pcm, lr: see
    `cases.cases`.
    """

    title: str
    make: Callable[[], nn.Module]
    draw: Draw
    rounds: dict[int, int]
    warm_up: int
    burst: int = 1
    pcm: dict[str, Any] = field(default_factory=lambda: {"beta": "7sd"})
    lr: float = LR


class Scores(CharacterModel):
    """The character model as a network that gives scores alone, (batch time, vocabulary)."""

    def forward(self, codes: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(codes, None)[0].flatten(0, 1)


def mlp() -> nn.Sequential:
    """784-250-10, the MLP of Nandakumar et al. 2020, without its last sigmoid."""
    return nn.Sequential(nn.Linear(784, 250), nn.Sigmoid(), nn.Linear(250, 10))


def wide_mlp() -> nn.Sequential:
    """Two layers of 1024 x 1024."""
    return nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024))


def lstm(hidden: int, layers: int) -> nn.Module:
    """The character model of War and Peace (Gokmen, Rasch & Haensch 2018)."""
    return Scores(_CHARACTERS, (hidden,) * layers, 0.0)


def pixels(batch: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw images as sparse as MNIST's (one pixel in five is on) and labels."""
    x = torch.rand(batch, 784, generator=chance)
    x *= torch.rand(batch, 784, generator=chance) < 0.2
    return x, torch.randint(0, 10, (batch,), generator=chance)


def _vectors(batch: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.rand(batch, 1024, generator=chance) * 2 - 1
    return x, torch.randint(0, 1024, (batch,), generator=chance)


def images(batch: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw colour images of 32 x 32 and labels."""
    x = torch.rand(batch, 3, 32, 32, generator=chance) * 2 - 1
    return x, torch.randint(0, 10, (batch,), generator=chance)


def text(batch: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw sequences of 100 characters and the characters that follow each."""
    codes = torch.randint(0, _CHARACTERS, (batch, _SEQUENCE + 1), generator=chance)
    return codes[:, :-1], codes[:, 1:].flatten()


# On devices as fabricated, like Nandakumar et al. 2020.
MLP = Network(
    "MLP 784-250-10",
    mlp,
    pixels,
    {1: 50, 10: 30, 100: 15},
    3,
    burst=5,
    pcm={"initial": "devices"},
)
WIDE = Network("MLP 1024-1024-1024", wide_mlp, _vectors, {128: 30}, 2)
CNN = Network(
    "CNN of CIFAR-10, 1.47 M weights",
    lambda: cifar10_network(10, 0.0),
    images,
    {50: 30},
    1,
    lr=0.002,
)
LSTM = Network(
    "LSTM 2 x 256, sequences of 100, 87 characters", lambda: lstm(256, 2), text, {32: 30}, 1
)
NETWORKS = (MLP, WIDE, CNN, LSTM)
