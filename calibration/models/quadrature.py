"""Integrals over a device's own deviate, with nodes placed where its reads put it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_NODES = 5
#: Rounds of Newton's method at most, and the step, in widths of the peak, that ends it.
_NEWTON, _THERE = 12, 0.05
#: Width of the differences that Newton's method takes, in units of the prior.
_WIDTH = 1e-3


def nodes(number: int) -> tuple[Tensor, Tensor]:
    """Return points of Gauss-Hermite quadrature over N(0, 1) and ln of their weights, (number,)."""
    points, weights = np.polynomial.hermite_e.hermegauss(number)
    return torch.as_tensor(points), torch.as_tensor(np.log(weights / weights.sum()))


def log_mean(log_density: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return ln of the mean of exp(log_density(u)) over u ~ N(0, 1), (draws..., devices).

    log_density: of u (draws..., nodes, devices), the same shape. start: near the largest of each
    device (draws..., devices). Adaptive Gauss-Hermite quadrature (Liu and Pierce, Biometrika 81,
    624, 1994): many reads of a device leave its u so well known that fixed nodes would miss it.
    """
    points, weight = (values[:, None] for values in nodes(_NODES))
    with torch.no_grad():
        u, shift = start.detach()[..., None, :], _WIDTH * torch.tensor([[-1.0], [0.0], [1.0]])
        for _ in range(_NEWTON):
            low, here, high = log_density(u + shift.to(u)).split(1, dim=-2)
            precision = (1 - (high - 2 * here + low) / _WIDTH**2).clamp(min=0.25)
            step = ((high - low) / (2 * _WIDTH) - u) / precision
            if (step * precision.sqrt()).abs().max() < _THERE:
                break
            u = u + step.clamp(-2, 2)
        deviation = precision.rsqrt()
    u = u + deviation * points
    # sqrt(2 pi) of the two densities cancel.
    found = log_density(u) - u**2 / 2 + points**2 / 2 + weight
    return torch.logsumexp(found, -2) + torch.log(deviation[..., 0, :])
