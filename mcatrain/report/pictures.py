"""The pictures of training, by epoch, each with its caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from mcatrain.report.metrics import Metric, losses_of
from mcatrain.report.plots import MINUS, Curve, Painter, rule_colour
from mcatrain.report.summary import Group, losses, significant
from mcatrain.run.records import Run, number

Points = tuple[tuple[float, float], ...]
#: With more layers than this a figure gets the page's whole width.
_FEW_PANELS = 3


@dataclass(frozen=True)
class Figure:
    """One figure of the page: a picture, or a row of panels, under one caption."""

    title: str
    caption: str
    panels: tuple[Markup, ...]
    across: bool = False
    """Whether several panels, however few, lie side by side across the page."""

    @property
    def shape(self) -> str:
        """How the page lays the panels out: one, a column beside others, or the page's width."""
        if len(self.panels) == 1:
            return "single"
        return "row wide" if self.across or len(self.panels) > _FEW_PANELS else "row"


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
        curves = curves_of(groups, lambda group: tuple(map(read, group.runs)))
        if axis == "counts":  # no line for float32, nor for devices that are never refreshed
            curves = [curve for curve in curves if any(curve.points())]
        alt = f"{title}: " + "; ".join(ending(curve) for curve in curves if curve.seeds)
        picture = painter.lines(curves, ylabel, alt, axis=axis)
        if picture is not None:
            figures.append(Figure(title, caption, (picture,)))

    if metric.key != "test_loss":
        add(
            f"{metric.title} by epoch",
            f"{metric.title} [{metric.unit}] on the test set against passes through the training "
            f"set (epochs); {'higher' if metric.higher_is_better else 'lower'} is better.",
            f"{metric.name} [{metric.unit}]",
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
    loss = losses(groups)
    for part, what in (("test", "the test set"), ("train", "the training set")):
        add(
            f"{part.capitalize()} {loss.name} by epoch",
            f"{loss.name.capitalize()} [{loss.unit}] on {what}; {loss.meaning}.",
            f"{part} {loss.name}",
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


def course_figure(painter: Painter, run: Run, metric: Metric, label: str) -> Figure | None:
    """Return the small curves of one run by epoch; None before its first evaluation."""
    loss, colour = losses_of(run.config), rule_colour(run.rule)
    both = [
        ("test", colour, _points(run, "test_loss")),
        ("train", MINUS, _points(run, "train_loss")),
    ]
    wanted = [(f"{loss.name} [{loss.unit}]", both)]
    if metric.key != "test_loss":
        points = _points(run, metric.key, metric.scale)
        wanted.insert(0, (f"{metric.name} [{metric.unit}]", [(metric.name, colour, points)]))
    wanted.append(("pulses per epoch", [("", colour, _rates(run, "set_pulses", "reset_pulses"))]))
    wanted.append(("refreshes per epoch", [("", colour, _rates(run, "refreshes"))]))
    panels = []
    for title, curves in wanted:
        held = [curve for curve in curves if any(y for _, y in curve[2])]
        if held:  # nothing that never happened: pulses of float32
            ends = "; ".join(f"{n or title} ends at {significant(p[-1][1])}" for n, _, p in held)
            panels.append(painter.course(held, "", title, f"{label}, {title} by epoch: {ends}"))
    if not panels:
        return None
    return Figure("By epoch", "What was measured after each evaluation of this run.", tuple(panels))


def curves_of(groups: Sequence[Group], read: Callable[[Group], tuple[Points, ...]]) -> list[Curve]:
    """Colour by rule and dash by device model, the same in every picture; read: of every run."""
    devices = list(dict.fromkeys(g.device for g in groups if g.device))
    curves = []
    for group in groups:
        seeds = tuple(points for points in read(group) if points)
        dash = devices.index(group.device) if group.device else 0
        curves.append(Curve(group.label, rule_colour(group.rule), seeds, dash))
    return curves


def ending(curve: Curve) -> str:
    """Say where a curve ends, in the mean over seeds."""
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
