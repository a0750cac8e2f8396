"""Making up for drift digitally: a factor on the outputs of an array, or batch norm anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from devicemodels.errors import InputError
from devicemodels.state import derive_seed
from mcatrain.tile import Tile, tiles

#: none: outputs as they come; global: one factor an array; column: one an output.
KINDS = ("none", "global", "column")
#: Vectors of a calibration.
READS = 256


class Calibration:
    """Fixed reads of every array of a model, first at its reference time: that of construction.

    A factor is alpha = sum|I(t0)| / sum|I(t)| over `READS` vectors, the same every time, with
    entries U(-1, 1) (Joshi et al., Nat. Commun. 11:2473, 2020); I are the outputs after the ADC,
    read noise and all. 'global' sums over the outputs of an array too: one factor a layer, or one
    for each of the arrays that a layer is split over.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tiles = list(tiles(model).values())
        self._vectors = [_vectors(tile) for tile in self._tiles]
        self._reference = self._sums()

    def _sums(self) -> list[Tensor]:
        """Return the summed outputs (out,), float64, of each array, without its scale."""
        found = []
        for tile, x in zip(self._tiles, self._vectors, strict=True):
            kept, tile.output_scale = tile.output_scale, None
            with torch.no_grad():
                found.append(tile(x).double().abs().sum(0))
            tile.output_scale = kept
        return found

    def factors(self) -> dict[str, list[Tensor]]:
        """Read now; return the factors of each kind but 'none', float32, by array."""
        pairs = list(zip(self._reference, self._sums(), strict=True))
        return {
            "global": [_ratio(then.sum(0, keepdim=True), now.sum(0)) for then, now in pairs],
            "column": [_ratio(then, now) for then, now in pairs],
        }

    def use(self, factors: list[Tensor] | None) -> None:
        """Multiply the outputs of each array by its factors from now on; None: not at all."""
        for k, tile in enumerate(self._tiles):
            tile.output_scale = None if factors is None else factors[k]


def _vectors(tile: Tile) -> Tensor:
    chance = torch.Generator().manual_seed(derive_seed(0, f"calibration of {tile.name}"))
    return torch.rand(READS, tile.shape[1], generator=chance).mul_(2).sub_(1).to(tile.chi.device)


def _ratio(then: Tensor, now: Tensor) -> Tensor:
    """Return then / now, 1 where an output is dead."""
    alive = (then > 0) & (now > 0)
    return torch.where(alive, then / now, torch.ones_like(then)).float()


def recalibrate_batchnorm(model: nn.Module, feed: Callable[[], object]) -> None:
    """Measure the statistics of all batch norm layers anew, as they are over what ``feed`` runs.

    feed: passes inputs, at best training data, through the model in batches; the statistics are
    means over the batches. Everything else stays as it is, so that what is random in training
    (dropout) stays off. Raises InputError for a model without batch norm.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        raise InputError("there is no batch norm in the model whose statistics could be measured")
    momenta, modes = [m.momentum for m in layers], [m.training for m in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over batches
            layer.train()
        with torch.no_grad():
            feed()
    finally:
        for layer, momentum, mode in zip(layers, momenta, modes, strict=True):
            layer.momentum = momentum
            layer.train(mode)
