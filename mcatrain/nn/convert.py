"""convert(): put the linear layers of any torch model on simulated analog arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import devicemodels
from devicemodels.errors import InputError, closest
from devicemodels.library import DeviceModel
from devicemodels.state import Chance
from mcatrain.clock import SECONDS_PER_EXAMPLE, Clock
from mcatrain.nn.linear import AnalogLinear, Bias
from mcatrain.periphery import Periphery, preset
from mcatrain.tile import Tile


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """How a layer is put on an array; ``convert`` takes these for all layers or for one.

    device_model: name, path or DeviceModel. periphery: preset name or Periphery. bias: of layers
    that have one. initial: 'weights' writes the layer's own weights (as a perfect program-and-
    verify would, within the device's range), 'devices' leaves the devices as fabricated (models
    that state no such distribution get the weights). beta: conductance of a weight of 1 [µS],
    None for the model's. drift_tolerance: relative error of cached reads; 0 reads exactly.
    """

    device_model: str | Path | DeviceModel = "nandakumar2018"
    periphery: str | Periphery = "mca"
    bias: Bias = "analog"
    initial: Literal["weights", "devices"] = "weights"
    beta: float | None = None
    drift_tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.bias not in ("analog", "digital"):
            raise InputError(f"bias {self.bias!r}: give 'analog' or 'digital'")
        if self.initial not in ("weights", "devices"):
            raise InputError(f"initial {self.initial!r}: give 'weights' or 'devices'")


def convert(
    model: nn.Module,
    device_model: str | Path | DeviceModel = "nandakumar2018",
    *,
    seed: int = 0,
    overrides: Mapping[str, Mapping[str, Any] | None] | None = None,
    seconds_per_example: float = SECONDS_PER_EXAMPLE,
    **options: Any,
) -> nn.Module:
    """Return the model with its nn.Linear layers on analog arrays; the rest stays as it is.

    The model is changed in place (a bare nn.Linear is replaced). options: see `LayerOptions`.
    overrides: options for single layers by their name in the model; None leaves a layer
    digital. seconds_per_example: simulated time of a training example [s]. Each array's random
    numbers come from (seed, layer name). A layer used twice stays one array.
    Raises InputError for an unknown option or layer name and for a model without linear layers.
    """
    common = _options({**options, "device_model": device_model}, "convert()")
    linear = {n: m for n, m in model.named_modules() if type(m) is nn.Linear}
    overrides = dict(overrides or {})
    for name in overrides:
        if name not in linear:
            raise InputError(f"overrides: no linear layer {name!r}: {closest(name, linear)}")
    chosen = {n: m for n, m in linear.items() if overrides.get(n, {}) is not None}
    if not chosen:
        raise InputError("convert(): the model has no nn.Linear layer to put on an array")
    clock = Clock(seconds_per_example)
    loaded: dict[str, DeviceModel] = {}
    twins: dict[nn.Module, AnalogLinear] = {}
    for name, layer in chosen.items():
        changed = overrides.get(name) or {}
        layer_options = _options(changed, f"overrides[{name!r}]", common)
        twins[layer] = _analog(layer, name or "linear", layer_options, clock, seed, loaded)
    if isinstance(model, nn.Linear):
        model = twins[model]
    else:
        # One layer can sit under several names; each is put in the same array's place.
        for parent in list(model.modules()):
            for child_name, child in list(parent._modules.items()):
                if child is not None and child in twins:
                    parent._modules[child_name] = twins[child]
    return model


def _options(
    given: Mapping[str, Any], where: str, base: LayerOptions | None = None
) -> LayerOptions:
    known = [item.name for item in fields(LayerOptions)]
    for key in given:
        if key not in known:
            raise InputError(f"{where}: unknown option {key!r}: {closest(key, known)}")
    return replace(base or LayerOptions(), **given)


def _analog(
    layer: nn.Linear,
    name: str,
    options: LayerOptions,
    clock: Clock,
    seed: int,
    loaded: dict[str, DeviceModel],
) -> AnalogLinear:
    device_model = options.device_model
    if not isinstance(device_model, DeviceModel):
        key = str(device_model)
        if key not in loaded:
            loaded[key] = devicemodels.load(key)
        device_model = loaded[key]
    weights = layer.weight.detach().float().cpu()
    bias: torch.Tensor | None = layer.bias
    if bias is not None and options.bias == "analog":
        weights = torch.cat([weights, bias.detach().float().cpu().unsqueeze(1)], dim=1)
        bias = None
    extra = {"beta": options.beta, "drift_tolerance": options.drift_tolerance}
    given = {key: value for key, value in extra.items() if value is not None}
    shape = (weights.shape[0], weights.shape[1])
    synapse = device_model.build(shape, Chance(seed, name), **given)
    if not (options.initial == "devices" and synapse.fabricate()):
        synapse.program(weights, clock.now_s)
    periphery = options.periphery
    tile = Tile(
        name, synapse, preset(periphery) if isinstance(periphery, str) else periphery, clock
    )
    twin = AnalogLinear(layer.in_features, layer.out_features, tile, bias)
    twin.train(layer.training)
    return twin.to(layer.weight.device)
