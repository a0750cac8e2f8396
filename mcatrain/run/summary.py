"""What a finished run says of its devices: counts, histograms, remarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from devicemodels.synapses.pair import DifferentialPair
from mcatrain.tile import tiles

_BINS = 80
#: A run that ends this far below its best has collapsed.
_COLLAPSE = 0.2


def counts(model: nn.Module) -> dict[str, int]:
    """Return the pulses and refreshes since the start, of all tiles."""
    names = ("set_pulses", "reset_pulses", "refreshes")
    found = [tile.synapse for tile in tiles(model).values()]
    return {name: sum(getattr(synapse, name) for synapse in found) for name in names}


def histograms(model: nn.Module) -> dict[str, Any]:
    """Return histograms by layer: G+ and G- [µS] or w, read weights, chi; fp32 only weights."""
    layers: dict[str, Any] = {}
    for name, tile in tiles(model).items():
        values = tile.synapse.conductances(tile.now_s)
        values |= {"weight": tile.synapse.weights(tile.now_s), "chi": tile.chi.detach()}
        layers[name.removesuffix(".tile")] = {k: _histogram(v) for k, v in values.items()}
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            layers[name] = {"weight": _histogram(module.weight.detach())}
    return {"layers": layers}


def _histogram(values: Tensor) -> dict[str, list[float]]:
    flat = values.reshape(-1).double().cpu()
    low, high = flat.min().item(), flat.max().item()
    if low == high:
        low, high = low - 0.5, high + 0.5
    counted, edges = torch.histogram(flat, _BINS, range=(low, high))
    return {"edges": edges.tolist(), "counts": [int(c) for c in counted.tolist()]}


def remarks(model: nn.Module, accuracies: list[float], refresh_every: int) -> list[str]:
    """Return what a reader of the report must not miss."""
    if not accuracies or accuracies[-1] >= max(0.6, max(accuracies) - _COLLAPSE):
        return []
    best = max(accuracies)
    text = f"Training failed: it ended at {accuracies[-1]:.1%} test accuracy (best {best:.1%})."
    pairs = [t for t in tiles(model).values() if isinstance(t.synapse, DifferentialPair)]
    if pairs and not refresh_every:
        share = _saturated(pairs)
        text = (
            f"Training collapsed without refresh: it ended at {accuracies[-1]:.1%} test accuracy "
            f"(best {best:.1%}). {share:.1%} of the pairs have a device above the refresh "
            "threshold: PCM conductance only grows, and what is saturated cannot be written."
        )
    return [text]


def _saturated(pairs: list[Any]) -> float:
    high = total = 0
    for tile in pairs:
        synapse = tile.synapse
        g = synapse.conductances(tile.now_s)
        high += int((torch.maximum(g["G+"], g["G-"]) > synapse.pair.refresh_above).sum())
        total += synapse.size
    return high / total
