"""How a layer is put on arrays, and the arrays made so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import devicemodels
from devicemodels.errors import InputError, closest
from devicemodels.library import DeviceModel
from devicemodels.state import Chance
from mcatrain.clock import Clock
from mcatrain.grid import Array, TileGrid
from mcatrain.periphery import Periphery, preset
from mcatrain.tile import Block, Tile


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """How a layer is put on an array; ``convert`` takes these for all layers or for one.

    device_model: name, path or DeviceModel. periphery: preset name or Periphery. bias: of layers
    that have one. initial: 'weights' writes the layer's own weights (as a perfect program-and-
    verify would, within the device's range), 'devices' leaves the devices as fabricated (models
    that state no such distribution get the weights). beta: conductance of a weight of 1 [µS],
    None for the model's, or 'Nsd' such as '3.5sd' for the one at which a device reaches the
    refresh threshold at N standard deviations of the layer's own initial weights: the fewer, the
    finer a pulse and the narrower the range. drift_tolerance: relative error of
    cached reads; 0 reads exactly. array_size: (rows, columns) of the largest array; a larger
    layer is split, every part converted by itself. devices_per_weight, selection: N devices a
    weight, pulsed 'all' alike or one after the other by a 'counter'. zero_shift: pulses of the
    symmetry-point measurement whose result becomes the reference of step devices; 0 for none.
    """

    device_model: str | Path | DeviceModel = "nandakumar2018"
    periphery: str | Periphery = "mca"
    bias: Literal["analog", "digital"] = "analog"
    initial: Literal["weights", "devices"] = "weights"
    beta: float | str | None = None
    drift_tolerance: float | None = None
    array_size: tuple[int, int] | None = None
    devices_per_weight: int = 1
    selection: Literal["all", "counter"] | None = None
    zero_shift: int = 0

    def __post_init__(self) -> None:
        if self.bias not in ("analog", "digital"):
            raise InputError(f"bias {self.bias!r}: give 'analog' or 'digital'")
        if self.initial not in ("weights", "devices"):
            raise InputError(f"initial {self.initial!r}: give 'weights' or 'devices'")
        if isinstance(self.beta, str):
            deviations(self.beta)  # raises for what cannot be read
        size = self.array_size
        if size is None:
            return
        if not isinstance(size, tuple | list) or len(size) != 2 or min(size) < 1:
            raise InputError(f"array_size = {size}: give (rows, columns) of 1 or more, or None")

    def changed(self, given: Mapping[str, Any], where: str) -> LayerOptions:
        """Return the options with some changed. Raises InputError for an unknown name."""
        known = [item.name for item in fields(LayerOptions)]
        for key in given:
            if key not in known:
                raise InputError(f"{where}: unknown option {key!r}: {closest(key, known)}")
        return replace(self, **given)


def deviations(text: str) -> float:
    """Return the N of a beta 'Nsd'. Raises InputError for any other text."""
    number = text.removesuffix("sd")
    try:
        value = float(number) if number != text else math.nan
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(
            f"beta {text!r}: give a conductance [uS], or standard deviations such as '3.5sd'"
        )
    return value


class Foundry:
    """Makes the arrays of one model: one clock, random streams of (seed, array name)."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self.clock, self.seed = clock, seed
        self._loaded: dict[str, DeviceModel] = {}

    def array(
        self,
        name: str,
        weights: Tensor,
        options: LayerOptions,
        blocks: Sequence[Block] | None = None,
    ) -> Array:
        """Return ``weights`` (out, in) on one tile, or on several if they are too large for one.

        blocks: the parts of the matrix that exist; None for all of it.
        """
        weights = weights.detach().float().cpu()
        whole = Block(slice(0, weights.shape[0]), slice(0, weights.shape[1]))
        parts = [whole] if blocks is None else list(blocks)
        if options.array_size is not None:
            parts = [piece for part in parts for piece in part.split(options.array_size)]
        beta = self._beta(name, [weights[p.rows, p.columns] for p in parts], options)
        if parts == [whole]:
            return self._tile(name, weights, options, beta)
        made = [
            self._tile(f"{name}[{k}]", weights[p.rows, p.columns], options, beta)
            for k, p in enumerate(parts)
        ]
        return TileGrid((whole.rows.stop, whole.columns.stop), parts, made)

    def _tile(self, name: str, weights: Tensor, options: LayerOptions, beta: float | None) -> Tile:
        given = {"beta": beta, "drift_tolerance": options.drift_tolerance}
        extra = {key: value for key, value in given.items() if value is not None}
        synapse = self._model(options.device_model).build(
            (weights.shape[0], weights.shape[1]),
            Chance(self.seed, name),
            devices_per_weight=options.devices_per_weight,
            selection=options.selection,
            zero_shift=options.zero_shift,
            **extra,
        )
        if not (options.initial == "devices" and synapse.fabricate()):
            synapse.program(weights, self.clock.now_s)
        p = options.periphery
        return Tile(name, synapse, preset(p) if isinstance(p, str) else p, self.clock)

    def _beta(self, name: str, parts: list[Tensor], options: LayerOptions) -> float | None:
        if not isinstance(options.beta, str):
            return options.beta
        model = self._model(options.device_model)
        spread = torch.cat([part.reshape(-1) for part in parts]).std().item()
        if model.full_us is None:
            raise InputError(
                f"beta={options.beta!r} does not apply to {model.name!r}: its devices hold "
                "weights directly; only PCM pairs have it"
            )
        if not spread > 0:
            raise InputError(
                f"beta={options.beta!r}: the weights of {name!r} are all alike: give a number"
            )
        return model.full_us / (deviations(options.beta) * spread)

    def _model(self, device_model: str | Path | DeviceModel) -> DeviceModel:
        if isinstance(device_model, DeviceModel):
            return device_model
        key = str(device_model)
        if key not in self._loaded:
            self._loaded[key] = devicemodels.load(key)
        return self._loaded[key]


def with_bias(weights: Tensor, bias: Tensor | None, options: LayerOptions) -> Tensor:
    """Return the weights (out, in) with an analog bias as one more column."""
    if bias is None or options.bias == "digital":
        return weights.detach().float()
    column = bias.detach().float().unsqueeze(1)
    return torch.cat([weights.detach().float(), column], dim=1)


def digital_bias(bias: Tensor | None, options: LayerOptions) -> torch.nn.Parameter | None:
    """Return the bias as an ordinary parameter where it is digital, else None."""
    if bias is None or options.bias == "analog":
        return None
    return torch.nn.Parameter(bias.detach().clone())
