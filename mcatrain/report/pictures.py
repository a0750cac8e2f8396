"""Which pictures a report shows, each with its caption: training, distributions, devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from devicemodels import DeviceModel
from devicemodels.devices.pcm import PCMParameters
from mcatrain.report.plots import MINUS, PLUS, Curve, Painter, rule_colour
from mcatrain.report.records import Run, number
from mcatrain.report.response import set_response, up_down_response
from mcatrain.report.summary import Group, Metric, loss_unit, significant

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Figure:
    """One figure of the page: a picture, or a row of panels, under one caption."""

    title: str
    caption: str
    panels: tuple[Markup, ...]

    @property
    def is_row(self) -> bool:
        return len(self.panels) > 1


@dataclass(frozen=True)
class DeviceSection:
    """A device model, who used it, its response, and its parameters as (row, ...)."""

    model: DeviceModel
    users: str
    without: tuple[str, ...]
    figure: Figure
    parameters: tuple[dict[str, Any], ...] = field(default=())

    @property
    def unsure(self) -> int:
        """Number of values that are recalled or assumed rather than verified."""
        return sum(q.status in ("recalled", "assumed") for q in self.model.quantities)


def training_figures(painter: Painter, groups: Sequence[Group], metric: Metric) -> list[Figure]:
    """Return quality, losses, pulses and refreshes by epoch."""
    figures: list[Figure] = []

    def add(
        title: str,
        caption: str,
        ylabel: str,
        read: Callable[[Run], Points],
        axis: str = "auto",
    ) -> None:
        curves = _curves(groups, read)
        if axis == "counts":  # no line for float32, nor for devices that are never refreshed
            curves = [curve for curve in curves if any(curve.points())]
        alt = f"{title}: " + "; ".join(_ending(curve) for curve in curves if curve.seeds)
        picture = painter.lines(curves, ylabel, alt, axis=axis)
        if picture is not None:
            figures.append(Figure(title, caption, (picture,)))

    if metric.key != "test_loss":
        name, unit = metric.name.capitalize(), metric.unit or "no unit"
        add(
            f"{name} by epoch",
            f"{name} [{unit}] on the test set against passes through the training set "
            f"(epochs); {'higher' if metric.higher_is_better else 'lower'} is better.",
            f"{metric.name} [{unit}]",
            lambda run: _points(run, metric.key, metric.scale),
            axis="linear" if metric.key == "test_accuracy" else "auto",
        )
    if metric.key == "test_accuracy":
        add(
            "Test error by epoch",
            "Share of wrongly classified test examples [%], 100 % less the accuracy: the same "
            "data, on an axis that tells small errors apart.",
            "test error [%]",
            lambda run: tuple((x, 100 - y) for x, y in _points(run, "test_accuracy", 100)),
        )
    for part, what in (("test", "the test set"), ("train", "the training set")):
        add(
            f"{part.capitalize()} loss by epoch",
            f"Loss [{loss_unit(groups)}] on {what}; lower is better.",
            f"{part} loss",
            lambda run, key=f"{part}_loss": _points(run, key),  # type: ignore[misc]
        )
    add(
        "Pulses per epoch",
        "Programming pulses that all devices received in one epoch (SET raises a conductance, "
        "RESET lowers it; both are counted): the cost in energy and wear of the update.",
        "pulses per epoch",
        lambda run: _rates(run, "set_pulses", "reset_pulses"),
        axis="counts",
    )
    add(
        "Refreshes per epoch",
        "Device pairs rewritten in one epoch: a pair whose conductances have nearly reached "
        "their maximum is RESET and only the difference is written back.",
        "refreshes per epoch",
        lambda run: _rates(run, "refreshes"),
        axis="counts",
    )
    return figures


def _curves(groups: Sequence[Group], read: Callable[[Run], Points]) -> list[Curve]:
    """Colour by rule and dash by device model, the same in every picture."""
    devices = list(dict.fromkeys(g.device for g in groups if g.device))
    curves = []
    for group in groups:
        seeds = tuple(points for points in map(read, group.runs) if points)
        dash = devices.index(group.device) if group.device else 0
        curves.append(Curve(group.label, rule_colour(group.rule), seeds, dash))
    return curves


def _ending(curve: Curve) -> str:
    last = sum(seed[-1][1] for seed in curve.seeds) / len(curve.seeds)
    return f"{curve.label} ends at {significant(last)}"


def _points(run: Run, key: str, scale: float = 1.0) -> Points:
    values = ((record["epoch"], number(record.get(key))) for record in run.history)
    return tuple((float(x), scale * y) for x, y in values if y is not None)


def _rates(run: Run, *keys: str) -> Points:
    """Return the counts per epoch between evaluations, at the later of each two."""
    known = [(float(r["epoch"]), [number(r.get(key)) for key in keys]) for r in run.history]
    totals = [(x, sum(v for v in vs if v is not None)) for x, vs in known if any(
        v is not None for v in vs
    )]  # fmt: skip
    if totals and totals[0][0] > 0:
        totals.insert(0, (0.0, 0.0))
    return tuple((x1, (y1 - y0) / (x1 - x0)) for (x0, y0), (x1, y1) in pairwise(totals) if x1 > x0)


def distribution_figures(painter: Painter, group: Group) -> list[Figure]:
    """Return the histograms at the end of training, of the first seed that has them."""
    run = next((run for run in group.runs if run.histograms), None)
    if run is None:
        return []
    colour, model = rule_colour(group.rule), run.model
    threshold = model.synapse.refresh_above if model is not None and model.synapse else None
    pair = (("G+", "G+", PLUS), ("G-", "G−", MINUS))
    kinds: list[tuple[str, str, str, Sequence[tuple[str, str, str]], Sequence[float]]] = [
        (
            "Conductances G+ and G−",
            "Conductance [µS] of the two PCM devices of each weight, W = (G+ − G−)/β"
            + (f"; dotted: pairs above {threshold:g} µS are refreshed." if threshold else "."),
            "conductance [µS]",
            pair,
            [threshold] if threshold else [],
        ),
        (
            "Device states w",
            "State of the bipolar devices, in units of the weight that each one holds.",
            "device state [weight]",
            (("w", "w", colour),),
            (),
        ),
        (
            "Weights",
            "Weights of the network (no unit), as its devices read without noise."
            if model is not None
            else "Weights of the network (no unit).",
            "weight",
            (("weight", "weight", colour),),
            (),
        ),
        (
            "Accumulated changes χ",
            "The part of the weight changes that is kept in digital memory until it is worth a "
            "pulse [weight]" + ("; dotted: ±ε, the change of one pulse." if _epsilon(run) else "."),
            "χ [weight]",
            (("chi", "χ", colour),) if group.rule == "mca" else (),
            [sign * eps for eps in [_epsilon(run)] if eps for sign in (-1, 1)],
        ),
    ]
    figures = []
    for title, caption, xlabel, wanted, marks in kinds:
        panels = []
        for layer, held in run.histograms.items():
            series = [(label, c, held[key]) for key, label, c in wanted if key in held]
            if series:
                alt = f"{title} of layer {layer}, {group.label}: " + "; ".join(map(_centre, series))
                panels.append(painter.histogram(series, f"layer {layer}", xlabel, alt, marks))
        if panels:
            figures.append(Figure(title, caption, tuple(panels)))
    return figures


def _epsilon(run: Run) -> float | None:
    """Return the option epsilon, or what stands for it where none is given: the granularity."""
    given = number(run.config.get("epsilon"))
    if given is not None and given > 0:
        return given
    if run.model is None:
        return None
    device, pair = run.model.device, run.model.synapse
    if isinstance(device, PCMParameters):
        return device.mean_step / pair.beta if pair else None
    return number(getattr(device, "dw_min", getattr(device, "step", None)))


def _centre(series: tuple[str, str, dict[str, Any]]) -> str:
    label, _, data = series
    edges, counts = data["edges"], data["counts"]
    middle = sum(n * (a + b) / 2 for n, (a, b) in zip(counts, pairwise(edges), strict=True))
    return f"{label} has mean {middle / max(sum(counts), 1):.3g}"


def device_sections(painter: Painter, groups: Sequence[Group]) -> list[DeviceSection]:
    """Return one section for each distinct device: the same file with the same switches."""
    found: dict[tuple[str, tuple[str, ...]], tuple[DeviceModel, list[str]]] = {}
    for group in groups:
        run = next((run for run in group.runs if run.model is not None), None)
        if run is not None and run.model is not None:
            _, users = found.setdefault((run.model.text, run.without), (run.model, []))
            users.append(group.rule_name)
    return [
        DeviceSection(model, ", ".join(users), without, _response(painter, model), _rows(model))
        for (_, without), (model, users) in found.items()
    ]


def _response(painter: Painter, model: DeviceModel) -> Figure:
    if isinstance(model.device, PCMParameters):
        response = set_response(model.device)
        end, noisy = response.values[-1].mean(), response.values[-1].std() > 0.05
        mark = ("refresh above", model.synapse.refresh_above) if model.synapse else None
        picture = painter.response(
            response,
            "SET pulses since RESET",
            "conductance [µS]",
            f"SET response of {model.name}: mean conductance {end:.3g} µS after 20 pulses",
            mark,
        )
        return Figure(
            "SET response",
            f"Conductance [µS] of {response.values.shape[1]:,} simulated devices after 0 to 20 "
            f"SET pulses from RESET, as stated {model.device.t0_s:g} s after programming and "
            "without read noise" + (": no two pulses do the same." if noisy else "."),
            (picture,),
        )
    response = up_down_response(model)
    picture = painter.response(
        response,
        "pulse number",
        "weight",
        f"Up and down pulse response of {model.name}: highest mean weight "
        f"{response.values.mean(axis=1).max():.3g}",
    )
    return Figure(
        "Up and down response",
        f"Weight (no unit) held by {response.values.shape[1]:,} simulated devices under "
        f"{response.pulse[-1] / 2:,.0f} up pulses and then as many down pulses, from 0.",
        (picture,),
    )


def _rows(model: DeviceModel) -> tuple[dict[str, Any], ...]:
    """Return the parameter table; ``here`` is the value where the run changed the file's."""
    rows = []
    for q in model.quantities:
        used = getattr(model.device, q.name, getattr(model.synapse, q.name, q.value))
        rows.append(
            {
                "name": q.name,
                "value": f"{q.value:g}".replace("-", "−"),
                "here": None if used == q.value else f"{used:g}".replace("-", "−"),
                "unit": "–" if q.unit == "1" else q.unit,
                "about": q.about,
                "status": q.status,
                "source": q.source,
            }
        )
    return tuple(rows)
