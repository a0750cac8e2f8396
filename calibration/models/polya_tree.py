"""Polya trees on (0, 1): random densities with a posterior in closed form.

Lavine, Some aspects of Polya tree distributions for statistical modelling, Ann. Statist. 20,
1222 (1992). Hanson, Inference for mixtures of finite Polya tree models, JASA 101, 1548 (2006).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

#: Most halvings of (0, 1).
LEVELS = 6


def cell_of(u: Tensor, cells: int) -> Tensor:
    """Return in which of so many equal cells of (0, 1) each fraction lies."""
    return (u * cells).long().clamp(0, cells - 1)


def expected(counts: Tensor, concentration: float) -> Tensor:
    """Return the posterior mean of the cells' probabilities, as `draw`."""
    total = torch.ones(*counts.shape[:-1], 1, dtype=torch.float64)
    for left, right in _levels(counts, concentration):
        share = left / (left + right)
        total = torch.stack([total * share, total * (1 - share)], -1).flatten(-2)
    return total


def draw(counts: Tensor, concentration: float, draws: int, chance: torch.Generator) -> Tensor:
    """Return draws (draws, ..., cells) of the cells' probabilities, given counts (..., cells).

    At level l the share of the left half of an interval is Beta(c l² + n_left, c l² + n_right),
    independent of all others; within a cell the density is level. c = concentration: the larger,
    the closer to a level density.
    """
    seed = int(torch.randint(2**62, (), generator=chance))
    numbers = np.random.default_rng(seed)
    total = torch.ones(draws, *counts.shape[:-1], 1, dtype=torch.float64)
    for left, right in _levels(counts, concentration):
        size = (draws, *left.shape)
        share = torch.as_tensor(numbers.beta(left.numpy(), right.numpy(), size))
        total = torch.stack([total * share, total * (1 - share)], -1).flatten(-2)
    return total


def _levels(counts: Tensor, concentration: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield both parameters of the Beta distributions of each level, (..., intervals)."""
    for level in range(1, counts.shape[-1].bit_length()):
        halves = counts.unflatten(-1, (2 ** (level - 1), 2, -1)).sum(-1)
        prior = concentration * level**2
        yield halves[..., 0] + prior, halves[..., 1] + prior


def invert(cells: Tensor, fractions: Tensor) -> Tensor:
    """Return where distributions of these cells (..., cells) reach fractions (m,), (..., m)."""
    sums = cells.cumsum(-1)
    wanted = fractions.expand(*cells.shape[:-1], len(fractions)).contiguous()
    which = torch.searchsorted(sums, wanted).clamp(max=cells.shape[-1] - 1)
    size = cells.gather(-1, which)
    below = sums.gather(-1, which) - size
    inside = ((wanted - below) / size.clamp(min=1e-300)).clamp(0, 1)
    return (which + inside) / cells.shape[-1]
