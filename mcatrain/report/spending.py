"""Energy epoch by epoch, from the ledger: the metric against what it took, and the parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean

from markupsafe import Markup

from devicemodels.errors import InputError
from mcatrain import energy
from mcatrain.report.energy import COLUMNS
from mcatrain.report.metrics import Metric
from mcatrain.report.pictures import Figure, Points, curves_of, ending
from mcatrain.report.plots import PART_COLOURS, Curve, Painter
from mcatrain.report.summary import Group
from mcatrain.run.records import Run, number


def spending_figures(
    painter: Painter, groups: Sequence[Group], metric: Metric, over: str
) -> list[Figure]:
    """Return the metric against energy, a line a rule, and each rule's energy per epoch by part.

    over: what the runs of a group differ in. None where no ledger tells it.
    """
    found = []
    curves = curves_of(groups, lambda group: _against_energy(group, metric))
    several = f" Of several {over}s the energy is the mean." if _are_several(groups) else ""
    title = f"{metric.title} against energy"
    alt = f"{title}: " + "; ".join(ending(curve) for curve in curves if curve.seeds)
    better = "higher" if metric.higher_is_better else "lower"
    linear = "linear" if metric.key == "test_accuracy" else "auto"
    unit = f"[{metric.unit}]"
    picture = painter.lines(curves, f"{metric.name} {unit}", alt, axis=linear, energy=True)
    if picture is not None:
        caption = (
            f"{metric.title} {unit} on the test set against the energy [J] of all training until "
            f"then, a point an evaluation; {better} and further left is better.{several}"
        )
        found.append(Figure(title, caption, (picture,)))
    panels = [panel for group in groups if (panel := _panel(painter, group))]
    if panels:
        caption = (
            "Energy [J] of one epoch by part, from the ledger's counts at the evaluations; parts "
            "that take nothing, and epochs in which one takes nothing, are left out."
        )
        found.append(Figure("Energy per epoch by part", caption, tuple(panels), across=True))
    return found


def _are_several(groups: Sequence[Group]) -> bool:
    return max(len(group.runs) for group in groups) > 1


def _against_energy(group: Group, metric: Metric) -> tuple[Points, ...]:
    """Return (energy, metric) at every evaluation of each run.

    Runs of one group take nearly the same: the k-th evaluations of all stand at their mean.
    """
    courses = [course for run in group.runs if (course := _course(run, metric))]
    most = max(map(len, courses), default=0)
    x = [mean(course[k][0] for course in courses if k < len(course)) for k in range(most)]
    return tuple(
        tuple((x[k], y) for k, (_, y) in enumerate(course) if y is not None) for course in courses
    )


def _course(run: Run, metric: Metric) -> list[tuple[float, float | None]]:
    """Return (energy, metric) at every evaluation; the metric None where it overflowed."""
    measured = {row.get("step"): number(row.get(metric.key)) for row in run.history}
    course = []
    for row in run.spent:
        joule, value = number(row.get("energy")), measured.get(row.get("step"))
        if joule:
            course.append((joule, None if value is None else metric.scale * value))
    return course


def _panel(painter: Painter, group: Group) -> Markup | None:
    runs = [parts for run in group.runs if (parts := _by_part(run))]
    curves = []
    for k, name in enumerate(COLUMNS):
        seeds = tuple(points for parts in runs if (points := parts.get(name)))
        if seeds:
            curves.append(Curve(name, PART_COLOURS[k], seeds, k))
    alt = f"Energy per epoch of {group.label}: " + "; ".join(
        ending(curve) for curve in curves if curve.seeds
    )
    return painter.lines(curves, "energy per epoch [J]", alt, axis="energy", title=group.label)


def _by_part(run: Run) -> dict[str, Points]:
    """Return the energy [J] of every epoch by part, above 0; {} where it cannot be told."""
    try:
        model = energy.load(str(run.config.get("energy_model")))
    except InputError:  # a file of the user's that is no longer there
        return {}
    bipolar = run.model is not None and run.model.device_type != "pcm"
    totals: list[tuple[float, dict[str, float]]] = [(0.0, {})]
    for row in run.spent:
        try:
            parts = (
                model.digital(row) if run.rule == "fp32" else model.training(row, bipolar=bipolar)
            )
        except KeyError:  # of another version
            return {}
        totals.append((float(row["epoch"]), parts))
    found: dict[str, Points] = {}
    for column, names in COLUMNS.items():
        course = [(x, sum(parts.get(name, 0.0) for name in names)) for x, parts in totals]
        rates = ((x1, (y1 - y0) / (x1 - x0)) for (x0, y0), (x1, y1) in pairwise(course) if x1 > x0)
        if points := tuple((x, y) for x, y in rates if y > 0):
            found[column] = points
    return found
