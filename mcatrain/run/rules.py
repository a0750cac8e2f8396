"""The three rules of a comparison: what each makes of the same network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mcatrain.nn.convert import convert
from mcatrain.optim.mca import MCA
from mcatrain.optim.rpu import RPU
from mcatrain.run.config import TrainConfig

_BASE: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
}


def prepare(config: TrainConfig, model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Put the model on the rule's arrays (fp32: leave it) and make its optimizer.

    PCM devices start as fabricated, as in Front. Neurosci. 14:406; bipolar ones hold the
    network's own initial weights.
    """
    base, extra = _BASE[config.base_optimizer]
    if config.rule == "fp32":
        return model, base(model.parameters(), lr=config.learning_rate, **extra)  # type: ignore[call-arg]
    model = convert(
        model,
        config.load_device_model(),
        seed=config.seed,
        periphery=config.periphery_name,
        initial="devices",
        seconds_per_example=config.seconds_per_example,
    )
    if config.rule == "mca":
        return model, MCA(
            model,
            base,
            lr=config.learning_rate,
            epsilon=config.epsilon,
            refresh_every=config.refresh_every,
            factored=config.base_optimizer == "sgd",
            **extra,
        )
    return model, RPU(
        model,
        lr=config.learning_rate,
        pulse_length=config.pulse_length,
        update_management=config.update_management,
        bl_management=config.bl_management,
        sequential=config.sequential,
        refresh_every=config.refresh_every,
    )
