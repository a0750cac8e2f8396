"""Small pictures written straight as SVG: histograms, and curves of one run.

A page holds hundreds of them: 2 KB and a millisecond each, where matplotlib takes 15 KB and 50.
Colours are CSS variables of the page, sizes those of matplotlib's panels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 252.0, 166.0
_LEFT, _RIGHT, _BOTTOM = 42.0, 8.0, 32.0
#: Mean width of a character, in units of the font's size.
_CHARACTER = 0.56
#: Points of a curve that are drawn, at most.
_MOST_POINTS = 300
#: Share [%] of one bin from which a histogram needs a logarithmic axis to show the others.
_SPIKE = 30.0

Series = tuple[str, str, Sequence[tuple[float, float]]]


def histogram(
    series: Sequence[tuple[str, str, Sequence[float], Sequence[float]]],
    title: str,
    xlabel: str,
    alt: str,
    marks: Sequence[float] = (),
) -> Markup:
    """Draw shares [%] of bins, of (label, CSS colour, edges, counts); dotted lines at ``marks``.

    The axis is logarithmic where one bin holds so much that the others would vanish.
    """
    shares = [[100 * n / max(sum(counts), 1) for n in counts] for _, _, _, counts in series]
    top = max(max(share) for share in shares)
    log = top > _SPIKE
    low = min((s for share in shares for s in share if s > 0), default=1.0)
    bottom = 10.0 ** math.floor(math.log10(max(low, 1e-4))) if log else 0.0
    reach = [x for _, _, edges, _ in series for x in (edges[0], edges[-1])]
    # A mark farther out would squeeze the bars.
    marks = [x for x in marks if abs(x) < 2 * max(map(abs, reach))]
    frame = _Frame(
        (min(*reach, *marks), max(*reach, *marks)), (bottom, top * (1.6 if log else 1.05)), log
    )
    for (_, colour, edges, _), share in zip(series, shares, strict=True):
        frame.stairs(edges, share, colour)
    for x in marks:
        frame.mark(x)
    ylabel = "share [%], log scale" if log else "share per bin [%]"
    names = [(label, colour) for label, colour, _, _ in series] if len(series) > 1 else []
    return frame.svg(title, names, xlabel, ylabel, alt)


def course(series: Sequence[Series], title: str, ylabel: str, alt: str) -> Markup:
    """Draw curves by epoch of (label, CSS colour, points), each with a point at least.

    The axis is logarithmic where positive values span more than a factor of 10.
    """
    series = [(n, c, points[:: -(-len(points) // _MOST_POINTS)]) for n, c, points in series]
    xs = [x for _, _, points in series for x, _ in points]
    ys = [y for _, _, points in series for _, y in points]
    log = min(ys) > 0 and max(ys) > 10 * min(ys)
    if log:
        low, high = min(ys) / 1.15, max(ys) * 1.15
    else:
        room = 0.06 * (max(ys) - min(ys)) or 0.1 * abs(max(ys)) or 1.0
        low, high = min(ys) - room, max(ys) + room
        low = 0.0 if min(ys) >= 0 > low else low
    room = 0.04 * (max(xs) - min(xs)) or 0.5
    frame = _Frame((min(xs) - room, max(xs) + room), (low, high), log, all(x == int(x) for x in xs))
    for _, colour, points in series:
        frame.line(points, colour)
    names = [(label, colour) for label, colour, _ in series] if len(series) > 1 else []
    return frame.svg(title, names, "epoch", ylabel, alt)


class _Frame:
    """Axes of one picture, and what is drawn in them."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], log: bool, whole: bool = False
    ) -> None:
        self._x, self._y, self._log, self._whole = x, y, log, whole
        self._top = 34.0
        self._inside: list[Callable[[], str]] = []

    def stairs(self, edges: Sequence[float], heights: Sequence[float], colour: str) -> None:
        def draw() -> str:
            path, last = f"M{self._h(edges[0])} {self._v(self._y[0])}", ""
            for right, height in zip(edges[1:], heights, strict=True):
                v = self._v(height)
                path += f"H{self._h(right)}" if v == last else f"V{v}H{self._h(right)}"
                last = v
            path += f"V{self._v(self._y[0])}Z"
            look = f'fill="var(--{colour})" fill-opacity=".22" stroke="var(--{colour})"'
            return f'<path d="{path}" {look} stroke-width="1.2"/>'

        self._inside.append(draw)

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        def draw() -> str:
            at = [f"{self._h(x)} {self._v(y)}" for x, y in points]
            shape = f'<path d="M{"L".join(at)}" fill="none" stroke="var(--{colour})"'
            dots = "".join(
                f'<circle cx="{x}" cy="{y}" r="1.7"/>' for x, y in (p.split() for p in at)
            )
            tail = f'<g fill="var(--{colour})">{dots}</g>' if len(at) <= 40 else ""
            return f'{shape} stroke-width="1.7"/>{tail}'

        self._inside.append(draw)

    def mark(self, x: float) -> None:
        def draw() -> str:
            line = f"M{self._h(x)} {self._top:g}V{_HEIGHT - _BOTTOM:g}"
            return f'<path d="{line}" stroke="var(--ink)" stroke-dasharray="1.2 1.6"/>'

        self._inside.append(draw)

    def svg(
        self, title: str, names: Sequence[tuple[str, str]], xlabel: str, ylabel: str, alt: str
    ) -> Markup:
        words = sum(24 + 8.5 * _CHARACTER * len(label) for label, _ in names)
        beside = _LEFT + 9.5 * _CHARACTER * len(title) + words < _WIDTH - 6
        self._top = 19.0 if beside or not names else 32.0
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        # Spelled out, not by the page's style: a saved picture has to carry its own.
        parts = [
            f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(alt)}" '
            'font-size="9" fill="var(--ink)" stroke-linejoin="round">',
            f"<title>{escape(alt)}</title>",
            f'<text x="{_LEFT}" y="12" font-size="9.5">{escape(title)}</text>',
        ]
        xs, ys = self._xticks(), self._yticks()
        grid = "".join(f"M{self._h(x)} {self._top:g}V{bottom:g}" for x, _ in xs)
        grid += "".join(f"M{_LEFT:g} {self._v(y)}H{right:g}" for y, _ in ys)
        parts.append(f'<path d="{grid}" stroke="var(--grid)" stroke-width=".8"/>')
        parts += [draw() for draw in self._inside]
        axes = f"M{_LEFT:g} {self._top:g}V{bottom:g}H{right:g}"
        parts.append(f'<path d="{axes}" fill="none" stroke="var(--muted)" stroke-width=".8"/>')
        parts.append('<g text-anchor="middle">')
        parts += [f'<text x="{self._h(x)}" y="{bottom + 11:g}">{said}</text>' for x, said in xs]
        middle = (_LEFT + right) / 2
        parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 5:g}">{escape(xlabel)}</text>')
        centre = (self._top + bottom) / 2
        turned = f'transform="translate(9 {centre:g}) rotate(-90)"'
        parts.append(f"<text {turned}>{escape(ylabel)}</text></g>")
        parts.append('<g text-anchor="end">')
        parts += [
            f'<text x="{_LEFT - 4:g}" y="{float(self._v(y)) + 3:.1f}">{said}</text>'
            for y, said in ys
        ]
        parts.append("</g>")
        parts.append(_legend(names, right - words if beside else _LEFT, 12 if beside else 25))
        return Markup("".join(parts) + "</svg>")

    def _h(self, x: float) -> str:
        low, high = self._x
        return f"{_LEFT + (_WIDTH - _LEFT - _RIGHT) * (x - low) / (high - low or 1):.1f}"

    def _v(self, y: float) -> str:
        low, high = self._y
        if self._log:
            low, high, y = math.log10(low), math.log10(high), math.log10(max(y, low))
        height = _HEIGHT - _BOTTOM - self._top
        return f"{_HEIGHT - _BOTTOM - height * (y - low) / (high - low or 1):.1f}"

    def _xticks(self) -> list[tuple[float, str]]:
        return _ticks(*self._x, 5, self._whole)

    def _yticks(self) -> list[tuple[float, str]]:
        low, high = self._y
        if not self._log:
            return _ticks(low, high, 5)
        decades = math.log10(high / low)
        factors = (1, 2, 5) if decades < 2.2 else (1,)
        step = max(1, math.ceil(decades / 5))
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, step)
        values = [f * 10.0**power for power in powers for f in factors]
        return [(y, _short(y)) for y in values if low * 0.999 <= y <= high * 1.001]


def _legend(names: Sequence[tuple[str, str]], x: float, y: float) -> str:
    parts = []
    for label, colour in names:
        line = f'<path d="M{x:.1f} {y - 3:g}h12" stroke="var(--{colour})" stroke-width="1.6"/>'
        parts.append(f'{line}<text x="{x + 15:.1f}" y="{y:g}" font-size="8.5">{escape(label)}')
        parts.append("</text>")
        x += 24 + 8.5 * _CHARACTER * len(label)
    return "".join(parts)


def _ticks(low: float, high: float, about: int, whole: bool = False) -> list[tuple[float, str]]:
    """Return round values from low to high, about so many, and how they are written."""
    rough = (high - low) / about or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    values = [
        k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if max((abs(v) for v in values), default=0) >= 10_000:
        return [(v, _short(v)) for v in values]
    return [(v, f"{v:.{digits}f}".replace("-", "−") if v else "0") for v in values]


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}".replace("-", "−")
