"""Integrals over a device's own deviate, with nodes placed where its reads put it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NODES = 5
#: Rounds of Newton's method at most, and the step, in widths of the peak, that is the last.
ROUNDS, NEAR = 12, 0.1
#: Width of the differences that Newton's method takes, in units of the prior.
WIDTH = 5e-3
#: Least curvature that is believed, and the longest step.
LEAST, LONGEST = 0.25, 2.0


def hermite(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points of Gauss-Hermite quadrature over N(0, 1) and their weights, (number,)."""
    points, weights = np.polynomial.hermite_e.hermegauss(number)
    return points, weights / weights.sum()


def nodes(number: int) -> tuple[Tensor, Tensor]:
    """Return points of Gauss-Hermite quadrature over N(0, 1) and ln of their weights, (number,)."""
    points, weights = hermite(number)
    return torch.as_tensor(points), torch.as_tensor(np.log(weights))


def log_mean(log_density: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return ln of the mean of exp(log_density(u)) over u ~ N(0, 1), (draws..., devices).

    log_density: of u (draws..., nodes, devices), the same shape. start: near the largest of each
    device (draws..., devices). Adaptive Gauss-Hermite quadrature (Liu and Pierce, Biometrika 81,
    624, 1994): many reads of a device leave its u so well known that fixed nodes would miss it.
    """
    points, weight = (values[:, None] for values in nodes(NODES))
    with torch.no_grad():
        u, shift = start.detach()[..., None, :], WIDTH * torch.tensor([[-1.0], [0.0], [1.0]])
        for _ in range(ROUNDS):
            low, here, high = log_density(u + shift.to(u)).split(1, dim=-2)
            precision = (1 - (high - 2 * here + low) / WIDTH**2).clamp(min=LEAST)
            step = ((high - low) / (2 * WIDTH) - u) / precision
            u = u + step.clamp(-LONGEST, LONGEST)
            if (step * precision.sqrt()).abs().max() < NEAR:
                break
        deviation = precision.rsqrt()
    u = u + deviation * points
    # sqrt(2 pi) of the two densities cancel.
    found = log_density(u) - u**2 / 2 + points**2 / 2 + weight
    return torch.logsumexp(found, -2) + torch.log(deviation[..., 0, :])
