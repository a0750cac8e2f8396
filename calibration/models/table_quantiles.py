"""Draws of a table as the device takes them: quantiles of the change on a grid of states."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from calibration.models.polya_tree import invert
from calibration.models.step_data import DOWN, UP
from calibration.models.table_base import place_and_width, quantiles
from calibration.models.table_resolution import range_of

#: Directions by the ending of their names in draws.
WAYS = {"up": UP, "down": DOWN}
#: Points of the grid of states, from end to end of the window.
STATES = 33
#: Grid of fractions of pulses. At 0 and 1 stand the quantiles of the outermost thousandth.
FRACTIONS = (
    0.0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5,
    0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.995, 1.0,
)  # fmt: skip
_OUTERMOST = 1e-3


def tables(draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the changes [µS] that each of FRACTIONS does not exceed, by direction.

    They are cut at the size of the window, either way.

    draws: cells_WAY (draws, ranges, cells) and base_WAY (draws, size), all of one window. Each
    (draws, fractions, STATES).
    """
    grid = torch.tensor(FRACTIONS, dtype=torch.float64).clamp(_OUTERMOST, 1 - _OUTERMOST)
    found = {}
    for way in WAYS:
        bases, cells = draws[f"base_{way}"], draws[f"cells_{way}"]
        x = states(bases[0])
        where, size = range_of(x, bases[0], cells.shape[-2]), float(bases[0, 1] - bases[0, 0])
        change = []
        for base, u in zip(bases, invert(cells, grid), strict=True):
            place, width = place_and_width(x, base)
            change.append(place + width * quantiles(u, base)[where].T)
        # The tails of a base may reach far beyond.
        found[way] = torch.stack(change).clamp(-size, size)
    return found


def states(base: Tensor) -> Tensor:
    """Return the grid of states of a base's window [µS], (STATES,)."""
    return torch.lerp(base[0], base[1], torch.linspace(0, 1, STATES, dtype=torch.float64))


def constants(draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the constants of `Table` for each draw, (draws,), as the device has them."""
    change, found, mean = tables(draws), {}, {}
    part = torch.tensor(FRACTIONS, dtype=torch.float64).diff()[:, None]
    for way, q in change.items():
        low, high = q[:, :-1], q[:, 1:]
        mean[way] = ((low + high) / 2 * part).sum(1)  # (draws, STATES)
        square = ((low**2 + low * high + high**2) / 3 * part).sum(1)
        found[f"mean_{way}"] = mean[way].mean(-1)
        found[f"spread_{way}"] = (square - mean[way] ** 2).clamp(min=0).mean(-1).sqrt()
    found["symmetric"] = _crossing(mean["up"] + mean["down"], states(draws["base_up"][0]))
    return found


def _crossing(excess: Tensor, x: Tensor) -> Tensor:
    """Return the first state from which excess (draws, STATES) is below 0, else an end of x."""
    below = excess <= 0
    after = torch.where(below.any(1), below.long().argmax(1), len(x) - 1)
    before = (after - 1).clamp(min=0)
    high = excess.gather(1, before[:, None])[:, 0]
    low = excess.gather(1, after[:, None])[:, 0]
    part = (high / (high - low).clamp(min=1e-300)).clamp(0, 1)
    return torch.lerp(x[before], x[after], torch.where(after == before, 0.0, part))
