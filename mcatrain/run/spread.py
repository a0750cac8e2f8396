"""How much of a spread over chips comes from which source: variance components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Standard deviations that are weighed for each source, in units of that of the values.
_GRID = np.concatenate([[0.0], np.geomspace(0.02, 5.0, 27)])
#: Elements of covariance matrices that are held at once.
_HELD = 4_000_000


@dataclass(frozen=True)
class Component:
    """Standard deviation that one source brings: median and 90 % interval of its posterior."""

    sd: float
    low: float
    high: float


def components(
    values: Sequence[float], levels: Mapping[str, Sequence[int]], rest: str
) -> dict[str, Component]:
    """Return the part of each source, and of the ``rest``, which differs for every value.

    values: (n,). levels: by source, which values share its level, (n,) each. The model is
    y = mean + one normal effect a level of every source + a normal rest; the mean is integrated
    out (restricted likelihood: Patterson and Thompson, Biometrika 58, 545, 1971), the standard
    deviations have half-Cauchy priors of the values' own (Gelman, Bayesian Analysis 1, 515,
    2006), and are summed over a grid. Few levels leave wide intervals, as they must.
    """
    y = np.asarray(values, float)
    names = [*levels, rest]
    unit = y.std(ddof=1)
    if not unit > 0:
        return dict.fromkeys(names, Component(0.0, 0.0, 0.0))
    shared = [np.equal.outer(of, of).astype(float) for of in map(np.asarray, levels.values())]
    shared.append(np.eye(len(y)))
    axes = [_GRID] * len(levels) + [_GRID[1:]]  # without a rest the covariance is singular
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], 1)
    log_weight = np.concatenate(
        [_restricted(part, (y - y.mean()) / unit, shared) for part in _parts(points, len(y))]
    )
    log_weight += -np.log1p(points**2).sum(1) + sum(_log_widths(p) for p in points.T)
    weight = np.exp(log_weight - log_weight.max())
    return {
        name: Component(*(unit * q for q in _quantiles(points[:, k], weight)))
        for k, name in enumerate(names)
    }


def _parts(points: NDArray, size: int) -> list[NDArray]:
    return np.array_split(points, max(1, len(points) * size * size // _HELD))


def _restricted(points: NDArray, y: NDArray, shared: list[NDArray]) -> NDArray:
    """Return ln of the restricted likelihood at standard deviations (n, sources)."""
    covariance = np.einsum("ps,sij->pij", points**2, np.stack(shared))
    both = np.stack([y, np.ones_like(y)], 1)
    solved = np.linalg.solve(covariance, np.broadcast_to(both, (len(points), *both.shape)))
    inner = np.einsum("ia,pib->pab", both, solved)  # y'Cy, y'C1, 1'C1 with C the precision
    square = inner[:, 0, 0] - inner[:, 0, 1] ** 2 / inner[:, 1, 1]
    found: NDArray = -(np.linalg.slogdet(covariance)[1] + np.log(inner[:, 1, 1]) + square) / 2
    return found


def _log_widths(values: NDArray) -> NDArray:
    """Return ln of the width of the grid's cell around each value: a sum stands for an integral."""
    edges = np.concatenate([[0.0], (_GRID[1:] + _GRID[:-1]) / 2, _GRID[-1:]])
    widths: NDArray = np.log(np.diff(edges))[np.searchsorted(_GRID, values)]
    return widths


def _quantiles(values: NDArray, weight: NDArray) -> list[float]:
    """Return median, 5 % and 95 % of a weighted sample on the grid."""
    total = np.cumsum([weight[values == point].sum() for point in _GRID])
    return [float(np.interp(q, total / total[-1], _GRID)) for q in (0.5, 0.05, 0.95)]
