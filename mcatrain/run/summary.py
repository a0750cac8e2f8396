"""What a finished run says of its devices: counts, histograms, remarks."""

from __future__ import annotations

import platform
import re
from typing import Any

import torch
from torch import Tensor, nn

import mcatrain
from devicemodels.wear import wear_of
from mcatrain.tile import tiles

_BINS = 80
#: Plain layers whose weights an array would hold.
_MATRICES = (nn.Linear, nn.Conv2d, nn.LSTM)
#: A run that ends this far below its best has collapsed.
_COLLAPSE = 0.2
#: ... and one below this has hardly begun.
_POOR = 0.4
#: ... and one whose bits per character or Fréchet distance end at this many times its best.
_WORSE = 1.5


def versions() -> dict[str, str]:
    """Return the versions of what computes a run."""
    return {
        "mcatrain": mcatrain.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def counts(model: nn.Module) -> dict[str, int]:
    """Return the pulses and refreshes since the start, of all tiles."""
    names = ("set_pulses", "reset_pulses", "refreshes")
    found = [tile.synapse for tile in tiles(model).values()]
    return {name: sum(getattr(synapse, name) for synapse in found) for name in names}


def histograms(model: nn.Module) -> dict[str, Any]:
    """Return histograms by layer, and the weight change of a pulse by layer.

    Of G+ and G- [µS] or w of all devices, read weights, chi; fp32: of weights. A layer on
    several tiles is one layer here.
    """
    parts: dict[str, dict[str, list[Tensor]]] = {}
    pulse: dict[str, float] = {}
    for name, tile in tiles(model).items():
        values = tile.synapse.conductances(tile.now_s)
        values |= {"weight": tile.synapse.weights(tile.now_s), "chi": tile.chi.detach()}
        if (wear := wear_of(tile.synapse)) is not None:
            values |= {"set": wear.set_pulses, "reset": wear.reset_pulses}
        layer = layer_of(name)
        pulse[layer] = tile.synapse.granularity
        for key, value in values.items():
            parts.setdefault(layer, {}).setdefault(key, []).append(value.reshape(-1))
    for name, module in model.named_modules():
        for key, value in module.named_parameters(recurse=False):
            if isinstance(module, _MATRICES) and value.dim() > 1:
                # An LSTM has two matrices a layer, which an array holds as one.
                layer = f"{name} {key[-2:]}" if isinstance(module, nn.LSTM) else name
                parts.setdefault(layer, {}).setdefault("weight", []).append(value.reshape(-1))
    layers = {
        layer: {key: _histogram(torch.cat(found)) for key, found in values.items()}
        for layer, values in parts.items()
    }
    return {"layers": layers, "pulse": pulse}


def layer_of(tile: str) -> str:
    """Return the layer that a tile belongs to: 'conv1.tile.tiles.3' is of conv1."""
    whole = re.sub(r"\.tiles\.\d+$", "", tile)
    return whole.removesuffix(".tile").replace(".arrays.", " ")


def _histogram(values: Tensor) -> dict[str, list[float]]:
    flat = values.detach().double().cpu()
    low, high = flat.min().item(), flat.max().item()
    if low == high:
        low, high = low - 0.5, high + 0.5
    counted, edges = torch.histogram(flat, _BINS, range=(low, high))
    return {"edges": edges.tolist(), "counts": [int(c) for c in counted.tolist()]}


def remarks(
    model: nn.Module, metric: str, course: list[float | None], refresh_every: int
) -> list[str]:
    """Return what a reader of the report must not miss: a training that failed.

    course: the metric at every evaluation.
    """
    said = _failure(metric, course)
    if not said:
        return []
    high = pairs = 0
    for tile in tiles(model).values() if not refresh_every else ():
        worn, number = tile.synapse.saturated(tile.now_s)
        high, pairs = high + worn, pairs + number
    if not pairs:
        return [f"Training failed: {said}."]
    return [
        f"Training collapsed without refresh: {said}. {high / pairs:.1%} of the pairs have a "
        "device above the refresh threshold: PCM conductance only grows, and what is saturated "
        "cannot be written."
    ]


def _failure(metric: str, course: list[float | None]) -> str:
    """Say how a training failed by its course; '' if it did not."""
    known = [value for value in course if value is not None]
    if not known or course[-1] is None:
        return "its last evaluation overflowed" if course else ""
    last = known[-1]
    if metric == "test_accuracy":
        best = max(known)
        failed = last < max(_POOR, best - _COLLAPSE)
        return f"it ended at {last:.1%} test accuracy (best {best:.1%})" if failed else ""
    best, name = min(known), metric.replace("_", " ").replace("frechet", "Fréchet")
    return f"its {name} ended at {last:.4g} (best {best:.4g})" if last > _WORSE * best else ""
