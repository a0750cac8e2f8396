"""convert(): put the layers of any torch model on simulated analog arrays, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from devicemodels.errors import InputError, closest
from devicemodels.library import DeviceModel
from mcatrain.clock import SECONDS_PER_EXAMPLE, Clock
from mcatrain.nn.attention import AnalogAttention
from mcatrain.nn.conv import AnalogConv
from mcatrain.nn.linear import AnalogLinear
from mcatrain.nn.options import Foundry, LayerOptions
from mcatrain.nn.recurrent import AnalogRecurrent

#: Analog form of torch's layers.
_FORMS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Linear: AnalogLinear,
    nn.Conv1d: AnalogConv,
    nn.Conv2d: AnalogConv,
    nn.LSTM: AnalogRecurrent,
    nn.GRU: AnalogRecurrent,
    nn.MultiheadAttention: AnalogAttention,
}
_ANALOG = (AnalogLinear, AnalogConv, AnalogRecurrent, AnalogAttention)
#: Layers whose weights multiply a vector as an array would, for which there is no analog form.
_UNSUPPORTED: dict[type[nn.Module], str] = {
    nn.Conv3d: "use Conv2d",
    nn.ConvTranspose1d: "use upsampling and Conv1d",
    nn.ConvTranspose2d: "use upsampling and Conv2d",
    nn.ConvTranspose3d: "use upsampling and Conv2d",
    nn.RNN: "use LSTM or GRU",
    nn.RNNCell: "use LSTM or GRU",
    nn.LSTMCell: "use LSTM",
    nn.GRUCell: "use GRU",
    nn.Bilinear: "use Linear",
}


def convert(
    model: nn.Module,
    device_model: str | Path | DeviceModel = "nandakumar2018",
    *,
    seed: int = 0,
    overrides: Mapping[str, Mapping[str, Any] | None] | None = None,
    seconds_per_example: float = SECONDS_PER_EXAMPLE,
    **options: Any,
) -> nn.Module:
    """Return the model with its layers on analog arrays; the rest stays as it is.

    Linear, Conv1d, Conv2d, LSTM, GRU and MultiheadAttention are converted; embeddings, norms and
    whatever holds no weight matrix stay digital. The model is changed in place (a bare layer is
    replaced). options: see `LayerOptions`. overrides: options for single layers by their name
    in the model; None leaves a layer digital. seconds_per_example: simulated time of a training
    example [s]. Each array's random numbers come from (seed, layer name). A layer used twice
    stays one array. Raises InputError for an unknown option or layer name, for a layer that has
    no analog form (say ConvTranspose2d), and for a model without layers to convert.
    """
    common = LayerOptions().changed({**options, "device_model": device_model}, "convert()")
    overrides = dict(overrides or {})
    found = _layers(model)
    for name in overrides:
        if name not in found:
            raise InputError(f"overrides: no layer {name!r} to convert: {closest(name, found)}")
    chosen = {n: m for n, m in found.items() if overrides.get(n, {}) is not None}
    for name, layer in chosen.items():
        if reason := _unfit(layer, model):
            raise InputError(
                f"layer {name or 'itself'!r} is a {type(layer).__name__}, which has no analog "
                f"form: {reason}, or leave it digital with overrides={{{name!r}: None}}"
            )
    if not chosen:
        raise InputError(
            "convert(): the model has no layer to put on an array (nn.Linear, Conv1d, Conv2d, "
            "LSTM, GRU, MultiheadAttention)"
        )
    foundry = Foundry(Clock(seconds_per_example), seed)
    twins: dict[nn.Module, nn.Module] = {}
    for name, layer in chosen.items():
        layer_options = common.changed(overrides.get(name) or {}, f"overrides[{name!r}]")
        kind = _kind(layer)
        assert kind is not None
        twin = _FORMS[kind](layer, name or kind.__name__.lower(), layer_options, foundry)
        twins[layer] = _in_place_of(layer, twin)
    return _without_fused_paths(_replace(model, twins))


def unconvert(model: nn.Module) -> nn.Module:
    """Return the model with plain torch layers, their weights read now, without noise.

    The model is changed in place (a bare analog layer is replaced); drift up to the clock's
    time is in the weights. Raises InputError for a model without analog layers.
    """
    analog = [m for m in model.modules() if isinstance(m, _ANALOG)]
    inner = {child for m in analog for child in m.modules() if child is not m}
    twins: dict[nn.Module, nn.Module] = {}
    for layer in analog:
        if layer not in inner:
            twins[layer] = _in_place_of(layer, layer.unconvert())
    if not twins:
        raise InputError("unconvert(): the model has no analog layers")
    return _replace(model, twins)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return by name the layers that an array could hold, or that are known not to fit one."""
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    known: tuple[type[nn.Module], ...] = (*_FORMS, *_UNSUPPORTED)
    for name, module in model.named_modules():
        if module in inside:
            continue
        if isinstance(module, known):
            found[name] = module
            inside |= set(module.modules())
    return found


def _kind(layer: nn.Module) -> type[nn.Module] | None:
    """Return the torch layer that this one is, or computes as (a subclass without a forward)."""
    for kind in _FORMS:
        if isinstance(layer, kind) and type(layer).forward is kind.forward:
            return kind
    return None


def _unfit(layer: nn.Module, model: nn.Module) -> str:
    """Say what to do about a layer that no array can stand for; '' if one can."""
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return "initialise it by a forward pass first"
    for kind, hint in _UNSUPPORTED.items():
        if isinstance(layer, kind):
            return hint
    if _kind(layer) is None:
        return "its class computes something of its own; use torch's layer"
    within = set(layer.modules())
    if parametrize.is_parametrized(layer) or any(m._forward_pre_hooks for m in within):
        return "its weight is computed from others (parametrization); remove that first"
    own = set(layer.parameters())
    for name, other in model.named_modules():
        if other not in within and own & set(other._parameters.values()):
            return f"it shares a weight with {name!r}, and an array holds its own; untie them"
    return ""


def _in_place_of(layer: nn.Module, twin: nn.Module) -> nn.Module:
    """Bring the twin to the layer's mode and device; frozen if all of the layer is."""
    parameters = list(layer.parameters())
    if not any(p.requires_grad for p in parameters):
        twin.requires_grad_(False)
    return twin.train(layer.training).to(parameters[0].device)


def _without_fused_paths(model: nn.Module) -> nn.Module:
    """Keep torch's encoders from their fused inference: it would pass the arrays by."""
    for module in model.modules():
        encoder = isinstance(module, nn.TransformerEncoder)
        if not encoder and not isinstance(module, nn.TransformerEncoderLayer):
            continue
        if any(isinstance(m, _ANALOG) for m in module.modules()):
            name = "use_nested_tensor" if encoder else "activation_relu_or_gelu"
            setattr(module, name, False)
    return model


def _replace(model: nn.Module, twins: dict[nn.Module, nn.Module]) -> nn.Module:
    if model in twins:
        return twins[model]
    # One layer can sit under several names; each is put in the same array's place.
    for parent in list(model.modules()):
        for child_name, child in list(parent._modules.items()):
            if child is not None and child in twins:
                parent._modules[child_name] = twins[child]
    return model
