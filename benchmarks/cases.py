"""The rules on the devices, as users put them together, beside plain torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import mcatrain

FLOAT32 = "torch float32, SGD"
MCA = "MCA, PCM pair, 8-bit converters"
MCA_FACTORED = "MCA, PCM pair, 8-bit, factored"
RPU = "RPU, constant step, its converters"
LR = 0.05
Case = tuple[nn.Module, torch.optim.Optimizer]
#: Makes a case of a network that it may change.
Maker = Callable[[nn.Module], Case]


def float32(network: nn.Module, lr: float = LR) -> Case:
    """Plain torch."""
    return network, torch.optim.SGD(network.parameters(), lr=lr)


def mca(update: dict[str, Any] | None = None, **options: Any) -> Maker:
    """MCA around SGD; update as for `mcatrain.MCA`, options as for `mcatrain.convert`."""

    def make(network: nn.Module) -> Case:
        model = mcatrain.convert(network, **options)
        return model, mcatrain.MCA(model, torch.optim.SGD, **{"lr": LR, **(update or {})})

    return make


def rpu(update: dict[str, Any] | None = None, **options: Any) -> Maker:
    """RPU; update as for `mcatrain.RPU`, options as for `mcatrain.convert`."""

    def make(network: nn.Module) -> Case:
        model = mcatrain.convert(network, **options)
        return model, mcatrain.RPU(model, **{"lr": LR, **(update or {})})

    return make


def cases(pcm: dict[str, Any], lr: float = LR) -> dict[str, Maker]:
    """Return what is timed beside each other; pcm: how a network's weights go on PCM pairs.

    lr: small enough that plain torch does not diverge, nor RPU so far that it asks for more pulses
    than there is memory for. Every non-ideality of the devices is on. RPU's own converters have 5
    and 9 bits.
    """
    rate: dict[str, Any] = {"lr": lr}
    pair = {"device_model": "nandakumar2018", **pcm}
    step: dict[str, Any] = {"device_model": "gokmen2016"}
    return {
        FLOAT32: partial(float32, lr=lr),
        MCA: mca(rate, **pair, periphery="mca"),
        MCA_FACTORED: mca(rate | {"factored": True}, **pair, periphery="mca"),
        "MCA, PCM pair, ideal converters": mca(rate, **pair, periphery="ideal"),
        "RPU, PCM pair, its converters": rpu(rate, **pair, periphery="rpu2016"),
        "RPU, PCM pair, ideal converters": rpu(rate, **pair, periphery="ideal"),
        RPU: rpu(rate, **step, periphery="rpu2016"),
        "RPU, constant step, ideal converters": rpu(rate, **step, periphery="ideal"),
    }
