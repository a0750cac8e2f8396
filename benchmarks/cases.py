"""The rules on the devices, as users put them together, beside plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import mcatrain

FLOAT32 = "torch float32, SGD"
LR = 0.05
Case = tuple[nn.Module, torch.optim.Optimizer]
#: Makes a case of a network that it may change.
Maker = Callable[[nn.Module], Case]
#: A range of seven standard deviations of the layer's weights suits every network here.
_PCM: dict[str, Any] = {"device_model": "nandakumar2018", "beta": "7sd"}
_STEP: dict[str, Any] = {"device_model": "gokmen2016"}


def float32(network: nn.Module) -> Case:
    """Plain torch."""
    return network, torch.optim.SGD(network.parameters(), lr=LR)


def mca(update: dict[str, Any] | None = None, **options: Any) -> Maker:
    """MCA around SGD; update as for `mcatrain.MCA`, options as for `mcatrain.convert`."""

    def make(network: nn.Module) -> Case:
        model = mcatrain.convert(network, **options)
        return model, mcatrain.MCA(model, torch.optim.SGD, lr=LR, **(update or {}))

    return make


def rpu(update: dict[str, Any] | None = None, **options: Any) -> Maker:
    """RPU; update as for `mcatrain.RPU`, options as for `mcatrain.convert`."""

    def make(network: nn.Module) -> Case:
        model = mcatrain.convert(network, **options)
        return model, mcatrain.RPU(model, lr=LR, **(update or {}))

    return make


#: Every non-ideality of the devices is on. RPU's own converters have 5 and 9 bits.
CASES: dict[str, Maker] = {
    FLOAT32: float32,
    "MCA, PCM pair, 8-bit converters": mca(**_PCM, periphery="mca"),
    "MCA, PCM pair, 8-bit, factored": mca({"factored": True}, **_PCM, periphery="mca"),
    "MCA, PCM pair, ideal converters": mca(**_PCM, periphery="ideal"),
    "RPU, PCM pair, its converters": rpu(**_PCM, periphery="rpu2016"),
    "RPU, PCM pair, ideal converters": rpu(**_PCM, periphery="ideal"),
    "RPU, constant step, its converters": rpu(**_STEP, periphery="rpu2016"),
    "RPU, constant step, ideal converters": rpu(**_STEP, periphery="ideal"),
}
