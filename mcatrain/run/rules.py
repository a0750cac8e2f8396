"""The three rules of a comparison: what each makes of the same network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from devicemodels.errors import InputError, closest
from devicemodels.wear import track_wear
from mcatrain.nn.convert import convert
from mcatrain.optim.mca import MCA
from mcatrain.optim.rpu import RPU
from mcatrain.run import values
from mcatrain.run.config import TrainConfig

_BASE: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
}


def prepare(config: TrainConfig, model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Put the model on the rule's arrays (fp32: leave it) and make its optimizer.

    PCM devices start as fabricated, as in Front. Neurosci. 14:406, or hold the network's initial
    weights, as --initial says; bipolar ones hold the weights. Raises InputError for what the model
    or its devices do not have: a layer of --devices-per-weight, a symmetry point to measure.
    """
    base = _BASE[config.base_optimizer]
    extra: dict[str, Any] = {}
    if config.base_optimizer == "momentum":
        extra["momentum"] = config.momentum
    if config.rule == "fp32":
        return model, base(model.parameters(), lr=config.learning_rate, **extra)  # type: ignore[call-arg]
    device_model = config.load_device_model()
    model = convert(
        model,
        device_model,
        seed=config.seed if config.device_seed is None else config.device_seed,
        periphery=config.rule_periphery,
        initial=config.initial,
        bias=config.bias,
        # Devices that hold weights directly have no beta.
        beta=config.layer_beta if device_model.synapse else None,
        array_size=config.array_limit,
        zero_shift=config.zero_shift,
        seconds_per_example=config.seconds_per_example,
        **devices_by_layer(config.devices_per_weight, model),
    )
    if config.wear:
        track_wear(model)
    if config.rule == "mca":
        return model, MCA(
            model,
            base,
            lr=config.learning_rate,
            epsilon=config.epsilon,
            refresh_every=config.refresh_every,
            # Factors save work where an example is one vector.
            factored=config.task == "mlp" and config.base_optimizer == "sgd",
            **extra,
        )
    return model, RPU(
        model,
        lr=config.learning_rate,
        pulse_length=config.pulse_length,
        update_management=config.update_management,
        bl_management=config.bl_management,
        sequential={"default": None, "on": True, "off": False}[config.sequential],
        refresh_every=config.refresh_every,
    )


def devices_by_layer(text: str, model: nn.Module) -> dict[str, Any]:
    """Return the options of `convert` for a --devices-per-weight, such as 4 or conv2=13.

    Raises InputError for a layer that the model does not have.
    """
    number = values.devices(text)
    shared = number.pop("", 1)
    layers = [name for name, m in model.named_modules() if any(True for _ in m.parameters(False))]
    for layer in number:
        if layer not in layers:
            raise InputError(
                f"--devices-per-weight {text!r}: no layer {layer!r}: {closest(layer, layers)}"
            )
    overrides = {layer: {"devices_per_weight": n} for layer, n in number.items()}
    return {"devices_per_weight": shared, "overrides": overrides}
