"""Histograms of devices and weights at the end of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from devicemodels.devices.pcm import PCMParameters
from mcatrain.report.pictures import Figure
from mcatrain.report.plots import MINUS, PLUS, Painter, rule_colour
from mcatrain.run.records import Run, number


@dataclass(frozen=True)
class _Kind:
    """A figure of one panel a layer. series: (key in the file, label, colour).

    marks: where the dotted lines of a layer's panel stand.
    """

    title: str
    caption: str
    xlabel: str
    series: Sequence[tuple[str, str, str]]
    marks: Callable[[str], list[float]] = lambda layer: []


def distribution_figures(painter: Painter, run: Run, label: str) -> list[Figure]:
    """Return the histograms at the end of training of a run, none if it left none."""
    figures = []
    for kind in _kinds(run, rule_colour(run.rule)):
        panels = []
        for layer, held in run.histograms.items():
            series = [(label, c, held[key]) for key, label, c in kind.series if key in held]
            if series:
                centres = "; ".join(map(_centre, series))
                alt = f"{kind.title} of layer {layer}, {label}: {centres}"
                title, marks = f"layer {layer}", kind.marks(layer)
                panels.append(painter.histogram(series, title, kind.xlabel, alt, marks))
        if panels:
            figures.append(Figure(kind.title, kind.caption, tuple(panels)))
    return figures


def _kinds(run: Run, colour: str) -> list[_Kind]:
    model = run.model
    threshold = model.synapse.refresh_above if model is not None and model.synapse else None
    several = str(run.config.get("devices_per_weight", "1")) != "1"
    has_epsilon = any(_epsilon(run, layer) for layer in run.histograms)
    return [
        _Kind(
            "Conductances G+ and G−",
            "Conductance [µS] of the two PCM devices of each weight, W = (G+ − G−)/β"
            + (", the mean over its pairs" if several else "")
            + (f"; dotted: pairs above {threshold:g} µS are refreshed." if threshold else "."),
            "conductance [µS]",
            (("G+", "G+", PLUS), ("G-", "G−", MINUS)),
            lambda layer: [threshold] if threshold else [],
        ),
        _Kind(
            "Device states w",
            "State of the bipolar devices, in units of the weight that each one holds"
            + ("; a weight is the mean of several." if several else "."),
            "device state [weight]",
            (("w", "w", colour),),
        ),
        _Kind(
            "Weights",
            "Weights of the network (no unit), as its devices read without noise."
            if model is not None
            else "Weights of the network (no unit).",
            "weight",
            (("weight", "weight", colour),),
        ),
        _Kind(
            "Accumulated changes χ",
            "The part of the weight changes that is kept in digital memory until it is worth a "
            "pulse [weight]" + ("; dotted: ±ε, the change of one pulse." if has_epsilon else "."),
            "χ [weight]",
            (("chi", "χ", colour),) if run.rule == "mca" else (),
            lambda layer: [sign * eps for eps in [_epsilon(run, layer)] if eps for sign in (-1, 1)],
        ),
        _Kind(
            "Wear",
            "Pulses that each device has had: SET, or up, and RESET, or down.",
            "pulses of a device",
            (("set", "SET or up", PLUS), ("reset", "RESET or down", MINUS)),
        ),
    ]  # fmt: skip


def _epsilon(run: Run, layer: str) -> float | None:
    """Return the option epsilon, or what stands for it where none is given: the granularity."""
    given = number(run.config.get("epsilon"))
    if given is not None and given > 0:
        return given
    if layer in run.pulse:
        return run.pulse[layer]
    if run.model is None:
        return None
    device, pair = run.model.device, run.model.synapse
    if isinstance(device, PCMParameters):
        return device.mean_step / pair.beta if pair else None
    names = ("dw_min", "step", "granularity")
    return number(next((getattr(device, name) for name in names if hasattr(device, name)), None))


def _centre(series: tuple[str, str, dict[str, Any]]) -> str:
    label, _, data = series
    edges, counts = data["edges"], data["counts"]
    middle = sum(n * (a + b) / 2 for n, (a, b) in zip(counts, pairwise(edges), strict=True))
    return f"{label} has mean {middle / max(sum(counts), 1):.3g}"
