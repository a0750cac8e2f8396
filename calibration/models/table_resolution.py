"""How finely a table follows the state and the shape of its changes: by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from calibration.models.polya_tree import LEVELS, cell_of, expected
from calibration.models.table_base import BaseFit, fractions, standard, top_density

#: Degrees of the base's polynomials (place, ln width), ranges of the state, concentrations.
DEGREES = ((0, 0), (1, 1), (3, 2))
RANGES = (1, 2, 4, 8, 16)
CONCENTRATIONS = (0.1, 0.3, 1.0, 3.0)
_FOLDS = 5


@dataclass(frozen=True)
class Resolution:
    """What describes one direction best. base: of the best degrees, fitted to all changes.

    score: ln predictive density of the changes left out [nats a pulse, change in µS].
    """

    base: BaseFit
    ranges: int
    cells: int
    concentration: float
    score: float


def range_of(x: Tensor, base: Tensor, ranges: int) -> Tensor:
    """Return in which of so many equal ranges of the window each state lies."""
    return ((standard(x, base) + 1) / 2 * ranges).long().clamp(0, ranges - 1)


def counts(x: Tensor, u: Tensor, base: Tensor, ranges: int, cells: int) -> Tensor:
    """Return how many fractions u lie in each range of the state and cell, (ranges, cells)."""
    place = range_of(x, base, ranges) * cells + cell_of(u, cells)
    return torch.bincount(place, minlength=ranges * cells).double().view(ranges, cells)


def best_resolution(x: Tensor, y: Tensor, window: tuple[float, float]) -> Resolution:
    """Return the resolution that predicts best.

    x: states [µS], y: changes [µS], (pulses,) in order of measurement. Five folds of consecutive
    pulses: devices, or stretches of one, that the fit has not seen. Cells are two quanta of the
    reads wide or more: narrower ones would describe the digits of the table.
    """
    number = len(y)
    cells = _cells(x, y, window)
    fold = torch.arange(number) * _FOLDS // number
    scores = torch.zeros(len(DEGREES), len(RANGES), len(CONCENTRATIONS), dtype=torch.float64)
    for k, d in product(range(_FOLDS), range(len(DEGREES))):
        seen, left = fold != k, fold == k
        base = BaseFit(x[seen], y[seen], window, DEGREES[d]).mode
        u, _ = fractions(x[seen], y[seen], base)
        v, log_base = fractions(x[left], y[left], base)
        for r, ranges in enumerate(RANGES):
            held = counts(x[seen], u, base, ranges, cells)
            where = range_of(x[left], base, ranges), cell_of(v, cells)
            for c, concentration in enumerate(CONCENTRATIONS):
                density = expected(held, concentration)[where] * cells
                scores[d, r, c] += (log_base + density.log()).sum() / number
    top = int(scores.argmax())
    d, rest = divmod(top, len(RANGES) * len(CONCENTRATIONS))
    r, c = divmod(rest, len(CONCENTRATIONS))
    whole = BaseFit(x, y, window, DEGREES[d])
    return Resolution(whole, RANGES[r], cells, CONCENTRATIONS[c], float(scores[d, r, c]))


def _cells(x: Tensor, y: Tensor, window: tuple[float, float]) -> int:
    """Return into how many cells a range's changes are divided, two at least."""
    gaps = torch.cat([x, x + y]).unique().diff()
    gaps = gaps[gaps > 1e-6 * (window[1] - window[0])]  # less is rounding
    quantum = float(gaps.min()) if len(gaps) else 0.0
    top, cells = top_density(x, BaseFit(x, y, window, DEGREES[0]).mode), 2**LEVELS
    while cells > 2 and 2 * quantum * top * cells > 1:
        cells //= 2
    return cells
