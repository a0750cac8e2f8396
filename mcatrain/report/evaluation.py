"""Reading after training: pictures and table of evaluation.json, and its numbers in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from devicemodels.errors import InputError
from mcatrain.report.metrics import METRICS, Metric
from mcatrain.report.pictures import Figure
from mcatrain.report.plots import MINUS, PLUS, Curve, Painter
from mcatrain.report.summary import decimal
from mcatrain.run.records import Run, number
from mcatrain.run.times import in_words

_KINDS = {"none": "no compensation", "global": "one factor a layer", "column": "one an output"}
_COLOURS = {"none": MINUS, "global": "#0072b2", "column": PLUS}


@dataclass(frozen=True)
class EvaluationSection:
    """One run's evaluation: whose, a figure of a panel a place, table rows, remarks.

    head: of the table: times. rows: (device and programming, compensation, numbers).
    """

    label: str
    figure: Figure
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    unit: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class Digest:
    """Rows of several runs that were evaluated at the same times."""

    head: tuple[str, ...]
    unit: str
    rows: tuple[tuple[str, ...], ...]


def evaluation_section(painter: Painter, run: Run, label: str) -> EvaluationSection | None:
    """Return the section of a run, None if not evaluated. Raises InputError for a damaged file."""
    if run.evaluation is None:
        return None
    try:
        return _section(painter, label, run.evaluation)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise InputError(
            f"{run.folder / 'evaluation.json'}: not as mcatrain evaluate writes it: evaluate "
            "the run again"
        ) from None


def digest(sections: Sequence[EvaluationSection]) -> list[Digest]:
    """Put the tables of several runs together, those of the same times in one."""
    found: dict[tuple[tuple[str, ...], str], list[tuple[str, ...]]] = {}
    for section in sections:
        rows = [(section.label, *row) for row in section.rows]
        found.setdefault((section.head, section.unit), []).extend(rows)
    return [Digest(head, unit, tuple(rows)) for (head, unit), rows in found.items()]


def _section(painter: Painter, label: str, evaluation: dict[str, Any]) -> EvaluationSection:
    metric, places = _metric(evaluation), _places(evaluation)
    if not places:
        raise ValueError("no entries")
    end = number(evaluation["end_of_training"])
    mark = None if end is None else ("end of training", metric.scale * end)
    panels = []
    for place in places:
        curves = [
            Curve(_KINDS[kind], _COLOURS[kind], _seeds(evaluation, place, kind, metric), dash)
            for dash, kind in enumerate(_kinds(evaluation))
        ]
        alt = f"{metric.title} against time, {_place(*place)}"
        panels.append(
            painter.against_time(
                curves, _place(*place), f"{metric.name} [{metric.unit}]", alt, mark, in_words
            )
        )
    many = evaluation["chips"]
    chips = f"mean, lowest and highest of {many} chips" if many > 1 else "one chip"
    better = "higher" if metric.higher_is_better else "lower"
    rows = []
    for place in places:
        for kind in _kinds(evaluation):
            cells = [_cell(e, metric) for e in _of(evaluation, place, kind)]
            rows.append((_place(*place), _KINDS[kind], *cells))
    return EvaluationSection(
        label,
        Figure(
            "Reading after training",
            f"{metric.title} [{metric.unit}] on the test set against the time after training, or "
            f"after programming ({chips}; {better} is better). Dotted: at the end of training. "
            "Compensation multiplies outputs by factors from calibration reads.",
            tuple(panels),
        ),
        tuple(in_words(time_s) for time_s in evaluation["times_s"]),
        tuple(rows),
        metric.unit,
        tuple(_costs(evaluation)),
    )


def evaluation_in_words(evaluation: dict[str, Any]) -> list[str]:
    """Return the numbers of an evaluation in lines."""
    metric = _metric(evaluation)
    end = number(evaluation["end_of_training"])
    at_end = decimal(None if end is None else metric.scale * end, metric.digits)
    said = [f"{metric.name} [{metric.unit}] at the end of training {at_end}"]
    for place in _places(evaluation):
        said.append(_place(*place))
        times = "".join(f"{in_words(time_s):>16}" for time_s in evaluation["times_s"])
        said.append(f"  {'compensation':18}{times}")
        for kind in _kinds(evaluation):
            cells = "".join(f"{_cell(e, metric):>16}" for e in _of(evaluation, place, kind))
            said.append(f"  {kind:18}{cells}")
    return [*said, *_costs(evaluation)]


def _metric(evaluation: dict[str, Any]) -> Metric:
    return {metric.key: metric for metric in METRICS}[evaluation["metric"]]


def _places(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    entries = evaluation["entries"]
    return list(dict.fromkeys((str(e["device"]), str(e["programming"])) for e in entries))


def _kinds(evaluation: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(str(e["compensation"]) for e in evaluation["entries"]))


def _place(device: str, programming: str) -> str:
    way = "trained devices" if programming == "own" else f"programmed, {programming}"
    return f"{device}, {way}"


def _of(evaluation: dict[str, Any], place: tuple[str, str], kind: str) -> list[dict[str, Any]]:
    """Return the entries of a place and a compensation, by time."""
    return [
        entry
        for entry in evaluation["entries"]
        if (entry["device"], entry["programming"], entry["compensation"]) == (*place, kind)
    ]


def _seeds(
    evaluation: dict[str, Any], place: tuple[str, str], kind: str, metric: Metric
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return the points (time, metric) of each chip."""
    found = []
    for chip in range(evaluation["chips"]):
        course = [(e["time_s"], number(e["values"][chip])) for e in _of(evaluation, place, kind)]
        found.append(tuple((t, metric.scale * y) for t, y in course if y is not None))
    return tuple(points for points in found if points)


def _cell(entry: dict[str, Any], metric: Metric) -> str:
    middle, sd = number(entry["mean"]), number(entry["sd"])
    shown = decimal(None if middle is None else metric.scale * middle, metric.digits)
    return shown if sd is None else f"{shown} ± {decimal(metric.scale * sd, metric.digits)}"


def _costs(evaluation: dict[str, Any]) -> list[str]:
    said = []
    for cost in evaluation["programming"]:
        text = f"{cost['device']}, {cost['programming']}: {cost['devices']:,} devices a chip, "
        pairs = str(cost.get("devices_per_weight", "1"))
        text += "" if pairs == "1" else f"{pairs} pairs a weight, "
        text += f"{cost['writes'] / cost['devices']:.2f} writes"
        if "converged" in cost:
            text += (
                f" and {cost['verify_reads'] / cost['devices']:.2f} verify reads a device; "
                f"{cost['converged']:.1%} converged within {cost['tolerance_us']:g} µS in at most "
                f"{cost['most_writes']} writes"
            )
        else:
            text += " a device, none verified"
        said.append(text)
    return said
