"""The pictures, as inline SVG whose colours follow the page's light or dark scheme.

matplotlib's object interface only: nothing here touches pyplot or leaves a figure open.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mcatrain.report import drawing
from mcatrain.report.response import Response

#: Drawn colours (Okabe & Ito 2008, safe for colour-blind readers) and their CSS names: the page
#: gives each name a value for the light and one for the dark scheme.
_INK, _MUTED, _GRID = "#1c2430", "#6b7684", "#dfe4ea"
_FP32, _MCA, _RPU = "#4d555f", "#0072b2", "#d55e00"
PLUS, MINUS = "#009e73", "#aa3377"
_DEVICE = "#56609e"
_OTHERS = ("#cc79a7", "#8c6d00")
#: Of what is neither a rule nor a device: the parts of a whole.
PART_COLOURS = (_DEVICE, PLUS, MINUS, _OTHERS[1], _OTHERS[0], _MUTED)
CSS_NAMES = {
    _INK: "ink", _MUTED: "muted", _GRID: "grid", _FP32: "fp32", _MCA: "mca", _RPU: "rpu",
    PLUS: "plus", MINUS: "minus", _OTHERS[0]: "other0", _OTHERS[1]: "other1",
    _DEVICE: "device",
}  # fmt: skip
_MARKERS = ("o", "s", "^", "D")
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
_WIDE, _PANEL = (5.4, 3.1), (3.5, 2.3)
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mcatrain",
    "svg.fonttype": "none",  # real text: the page's font, and small files
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def rule_colour(rule: str) -> str:
    """Return the one colour that a rule has in every picture."""
    known = {"fp32": _FP32, "mca": _MCA, "rpu": _RPU}
    return known.get(rule) or _OTHERS[sum(rule.encode()) % len(_OTHERS)]


def css_name(colour: str) -> str:
    """Return the CSS variable of a drawn colour."""
    return CSS_NAMES[colour]


@dataclass(frozen=True)
class Curve:
    """One line of a picture: points (x, y) of each seed, some. dash: which of the line styles."""

    label: str
    colour: str
    seeds: tuple[tuple[tuple[float, float], ...], ...]
    dash: int = 0

    def points(self) -> Iterator[float]:
        return (y for seed in self.seeds for _, y in seed)

    def common(self) -> tuple[list[float], list[list[float]]]:
        """Return the x that every seed has and the seeds' y there, (x, seeds)."""
        tables = [dict(seed) for seed in self.seeds]
        shared = sorted(set.intersection(*(set(table) for table in tables)))
        return shared, [[table[x] for table in tables] for x in shared]


class Painter:
    """Makes the pictures of one page; numbers them so that no two share an SVG id."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def lines(
        self,
        curves: Sequence[Curve],
        ylabel: str,
        alt: str,
        *,
        axis: str = "auto",
        energy: bool = False,
        title: str = "",
    ) -> Markup | None:
        """Draw curves by epoch: mean, min-max band, thin seeds. None if there is no point.

        axis: 'linear'; 'auto', logarithmic where the values span more than a factor of 10;
        'counts', numbers of events, which may be 0 beside large ones; or 'energy', above 0 [J].
        energy: x are energies [J] too, not epochs. title: of one panel among others.
        """
        curves = [curve for curve in curves if curve.seeds]
        if not curves:
            return None
        with self._figure(_PANEL if title else _WIDE) as (fig, ax):
            for curve in curves:
                _draw(ax, curve)
            ax.set_title(title, fontsize=9.5, loc="left")
            ax.set_ylabel(ylabel)
            along = [x for curve in curves for seed in curve.seeds for x, _ in seed]
            if energy:
                ax.set_xlabel("training energy [J]")
                _scale_energy(ax.xaxis, ax.set_xscale, along)
            else:
                ax.set_xlabel("epoch")
                ticks = MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=max(along) >= 2)
                ax.xaxis.set_major_locator(ticks)
            if axis == "energy":
                _scale_energy(ax.yaxis, ax.set_yscale, [y for c in curves for y in c.points()])
            elif axis != "linear":
                _scale(ax, [y for curve in curves for y in curve.points()], axis == "counts")
            if len(curves) > 1:
                self._legend(fig, [curve.label for curve in curves])
            return self._svg(fig, alt)

    def against_time(
        self,
        curves: Sequence[Curve],
        title: str,
        ylabel: str,
        alt: str,
        mark: tuple[str, float] | None,
        words: Callable[[float], str],
    ) -> Markup:
        """Draw curves against a time [s] on a log axis whose ticks are the points' times.

        mark: a dotted level and its name. words: writes a time.
        """
        with self._figure(_PANEL) as (fig, ax):
            for curve in (curve for curve in curves if curve.seeds):
                _draw(ax, curve)
            if mark is not None:
                ax.axhline(mark[1], color=_INK, linestyle=_DASHES[2], linewidth=1, label=mark[0])
            times = sorted({x for curve in curves for seed in curve.seeds for x, _ in seed})
            if times:
                ax.set_xscale("log")
                ax.set_xticks(times, [words(time) for time in times])
                ax.xaxis.set_minor_formatter(NullFormatter())
                ax.tick_params(axis="x", which="minor", length=0)
            ax.set_title(title, fontsize=9.5, loc="left")
            ax.set_ylabel(ylabel)
            self._legend(fig, ax.get_legend_handles_labels()[1])
            return self._svg(fig, alt)

    def histogram(
        self,
        series: Sequence[tuple[str, str, dict[str, Any]]],
        title: str,
        xlabel: str,
        alt: str,
        mark: Sequence[float] = (),
    ) -> Markup:
        """Draw the shares [%] of (label, colour, {edges, counts}); dotted lines at ``mark``."""
        bars = [(label, css_name(c), data["edges"], data["counts"]) for label, c, data in series]
        return drawing.histogram(bars, title, xlabel, alt, mark)

    def course(
        self,
        series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],
        title: str,
        ylabel: str,
        alt: str,
    ) -> Markup:
        """Draw one run's (label, colour, points) by epoch, small."""
        curves = [(label, css_name(colour), points) for label, colour, points in series]
        return drawing.course(curves, title, ylabel, alt)

    def response(
        self,
        response: Response,
        xlabel: str,
        ylabel: str,
        alt: str,
        mark: tuple[str, float] | None = None,
        traces: int = 6,
    ) -> Markup:
        """Draw mean, ±1 standard deviation, 5-95 % and a few single devices."""
        x, values = response.pulse, response.values
        centre, spread = values.mean(axis=1), values.std(axis=1)
        with self._figure(_WIDE) as (fig, ax):
            outer = response.percentile(5), response.percentile(95)
            inner = centre - spread, centre + spread
            band: dict[str, Any] = {"color": _DEVICE, "linewidth": 0}
            ax.fill_between(x, *outer, alpha=0.14, label="5–95 % of devices", **band)
            ax.fill_between(x, *inner, alpha=0.24, label="mean ± 1 sd", **band)
            for trace in range(min(traces, values.shape[1])):
                label = "single devices" if trace == 0 else None
                ax.plot(x, values[:, trace], color=_MUTED, linewidth=0.8, label=label)
            ax.plot(x, centre, color=_DEVICE, linewidth=2.2, label="mean")
            if mark is not None:
                ax.axhline(mark[1], color=_INK, linestyle=_DASHES[2], linewidth=1, label=mark[0])
            ax.set_xlim(x[0], x[-1])
            ax.set_xlabel(xlabel)
            ax.set_ylabel(ylabel)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
            self._legend(fig, ax.get_legend_handles_labels()[1], columns=3)
            return self._svg(fig, alt)

    @contextmanager
    def _figure(self, size: tuple[float, float]) -> Iterator[tuple[Figure, Axes]]:
        with matplotlib.rc_context(_STYLE):
            fig = Figure(figsize=size, layout="constrained", facecolor="none")
            yield fig, fig.add_subplot()
            fig.clear()

    @staticmethod
    def _legend(fig: Figure, labels: Sequence[str], columns: int = 2) -> None:
        longest = max(len(label) for label in labels)
        fit = max(1, min(columns, 72 // (longest + 8)))
        fig.legend(loc="outside upper left", ncols=fit, handlelength=3.2, columnspacing=1.6)

    def _svg(self, fig: Figure, alt: str) -> Markup:
        buffer = io.StringIO()
        # metadata of None: no date and no tool version, so the same files give the same page
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        fig.savefig(buffer, format="svg", metadata=nothing)
        return Markup(_inline(buffer.getvalue(), f"p{next(self._numbers)}", alt))


def _draw(ax: Axes, curve: Curve) -> None:
    colour = curve.colour
    shared, values = curve.common()
    if len(curve.seeds) > 1:
        for place, seed in enumerate(curve.seeds):
            label = None if shared or place else curve.label
            ax.plot(*zip(*seed, strict=True), color=colour, linewidth=0.7, alpha=0.45, label=label)
    if not shared:
        return
    if len(curve.seeds) > 1:
        low, high = [min(v) for v in values], [max(v) for v in values]
        ax.fill_between(shared, low, high, color=colour, alpha=0.16, linewidth=0)
    centre = [sum(v) / len(v) for v in values]
    style = {"linestyle": _DASHES[curve.dash % len(_DASHES)], "label": curve.label}
    marker = _MARKERS[curve.dash % len(_MARKERS)] if len(shared) <= 40 else ""
    ax.plot(shared, centre, color=colour, linewidth=1.9, marker=marker, markersize=3.4, **style)


def _scale_energy(axis: Axis, set_scale: Callable[[str], None], values: Sequence[float]) -> None:
    """Make an axis of energies logarithmic where they span much; ticks with a metric prefix."""
    if max(values) > 10 * min(values):
        decades = np.log10(max(values) / min(values))
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 3) if decades < 2 else (1,)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(EngFormatter(sep=""))


def _scale(ax: Axes, values: Sequence[float], counts: bool) -> None:
    """Choose a linear or logarithmic y axis and readable ticks for ``values``."""
    positive = [value for value in values if value > 0]
    wide = bool(positive) and max(positive) > 10 * min(positive)
    all_positive = len(positive) == len(values)
    if counts:
        ax.yaxis.set_major_formatter(EngFormatter(sep=""))
        if wide or (positive and not all_positive and max(positive) > 50):
            if all_positive:
                ax.set_yscale("log")
            else:
                ax.set_yscale("symlog", linthresh=1)
            ax.yaxis.set_major_formatter(EngFormatter(sep=""))
            ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            ax.set_ylim(bottom=0)
    elif wide and all_positive:
        ax.set_yscale("log")
        decades = np.log10(max(positive) / min(positive))
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())


def _inline(svg: str, prefix: str, alt: str) -> str:
    """Make a matplotlib SVG fit to stand in a page: own ids, page colours, an alt text."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    view = re.search(r'viewBox="([^"]+)"', body)
    assert view is not None
    body = body[body.index(">") + 1 :].replace("xlink:href", "href")
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)  # it would style the whole page
    body = re.sub(r'<g id="[^"]+"', "<g", body)
    body = re.sub(r' id="([^"]+)"', rf' id="{prefix}-\1"', body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(r'font: ([0-9.]+px) [^;"]+', r"font-size: \1", body)
    body = re.sub(r'font-family: [^;"]+(; )?', "", body)  # the page's own font
    body = re.sub(r"#[0-9a-f]{6}\b", _css_colour, body)
    head = f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(alt)}">'
    return f"{head}<title>{escape(alt)}</title>{body.strip()}"


def _css_colour(match: re.Match[str]) -> str:
    name = CSS_NAMES.get(match[0])
    return f"var(--{name})" if name else match[0]
