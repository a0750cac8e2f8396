"""The filter of set-response in plain torch: the specification its kernel is tested against."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.special import log_ndtr

from calibration.models.quadrature import nodes

#: Nodes between the bounds, and how far they reach, in widths of the corrected belief.
INSIDE, HALF = 16, 5.5
#: No instrument resolves less [µS]; it keeps reads of noiseless tables from a density without
#: bound.
RESOLUTION = 0.005
#: Least write noise [µS].
FLOOR = 1e-4
TINY = 1e-12
#: Above every conductance [µS]: after RESET there is no upper bound.
TOP = 1e6


@dataclass(frozen=True)
class Blocks:
    """Reads by the pulse before them, (sequences, blocks): RESET, then SET pulse 1, 2, ...

    number: reads above 0; mean: of those [µS]; square: the sum of squares about it [µS²]; zeros:
    reads of 0. length: blocks of each sequence (sequences,). What a likelihood needs to know.
    """

    number: Tensor
    mean: Tensor
    square: Tensor
    zeros: Tensor
    length: Tensor


def blocks(reads: Tensor, seen: Tensor, pulse: Tensor) -> Blocks:
    """Gather reads (sequences, steps) by the number of pulses before them."""
    place = pulse.long()
    size = len(reads), int(place.max()) + 1

    def sums(values: Tensor) -> Tensor:
        return values.new_zeros(size).scatter_add_(1, place, values)

    above = (seen & (reads > 0)).to(reads.dtype)
    number = sums(above)
    mean = sums(above * reads) / number.clamp(min=1)
    square = sums(above * (reads - mean.gather(1, place)) ** 2)
    zeros = sums((seen & (reads <= 0)).to(reads.dtype))
    return Blocks(number, mean, square, zeros, (number + zeros > 0).sum(1))


def log_density(v: dict[str, Tensor], factor: Tensor, found: Blocks, heavy: bool) -> Tensor:
    """Return ln p of each sequence given its device's factor, (..., sequences).

    v: constants that broadcast with factor (..., sequences). The belief about the true
    conductance after each block of reads is its mean and variance (assumed density filtering);
    all integrals over it are quadratures: 3 Gauss-Hermite nodes before a pulse, Gauss-Legendre
    nodes between the bounds after it, and the chance piled up at each bound.
    """
    x, w = (torch.as_tensor(values) for values in np.polynomial.legendre.leggauss(INSIDE))
    drawn, log_weight = nodes(3)
    v = {name: value[..., None] for name, value in v.items()}
    factor = factor[..., None]
    total, mean, variance = torch.zeros(()), torch.zeros(()), torch.ones(())
    for k in range(found.number.shape[1]):
        if k == 0:
            m, s = v["reset_mean"], (v["reset_std"] ** 2 + TINY).sqrt()
            weight, low, high = torch.zeros(1), torch.zeros(1), torch.full((1,), TOP)
        else:
            history = torch.exp(-k / v["a"])
            start = mean + variance.sqrt() * drawn
            m = start + factor * (v["m1"] * start + v["c1"] + v["A1"] * history)
            s = factor * (v["m2"] * start + v["c2"] + v["A2"] * history).clamp(min=FLOOR)
            weight, low, high = log_weight, v["g_min"], v["g_max"]
        part = tuple(
            value[:, k, None] for value in (found.number, found.mean, found.square, found.zeros)
        )
        centre, reach = _reach(m, s, weight, low, high, part, v)
        a, b = torch.maximum(low, centre - reach), torch.minimum(high, centre + reach)
        half = ((b - a) / 2).clamp(min=TINY)
        g = (a + b) / 2 + half * x
        heavily = heavy and k > 0
        z = (g[..., None] - m[..., None, :]) / s[..., None, :]
        lead = (weight - s.log())[..., None, :]
        inside = torch.logsumexp(lead + _log_kernel(z, heavily), -1) + (half * w).log()
        below = torch.logsumexp(weight + _log_below((low - m) / s, heavily), -1, keepdim=True)
        above = torch.logsumexp(weight + _log_below((m - high) / s, heavily), -1, keepdim=True)
        inside, below, above, low, high = _alike(inside, below, above, low, high)
        g = torch.cat([g.expand_as(inside), low, high], -1)
        level = torch.cat([inside, below, above], -1) + _log_read(g, part, v)
        gained = torch.logsumexp(level, -1, keepdim=True)
        share = torch.exp(level - gained)
        middle = (share * g).sum(-1, keepdim=True)
        around = (share * (g - middle) ** 2).sum(-1, keepdim=True) + TINY
        live = (found.length > k)[:, None]
        total = total + torch.where(live, gained, 0.0)
        mean, variance = torch.where(live, middle, mean), torch.where(live, around, variance)
    return total.squeeze(-1)


def _reach(
    m: Tensor, s: Tensor, weight: Tensor, low: Tensor, high: Tensor,
    part: tuple[Tensor, ...], v: dict[str, Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return where the reads put the conductance, and how far from it nodes are needed.

    Of the nodes' places no gradient is taken: the integral does not depend on them.
    """
    number, y, _, zeros = part
    with torch.no_grad():
        centre = (weight.exp() * m).sum(-1, keepdim=True)
        variance = (weight.exp() * (s**2 + (m - centre) ** 2)).sum(-1, keepdim=True)
        at = torch.minimum(torch.maximum(y, low), high)
        for _ in range(2):
            r2 = ((v["m3"] * at + v["c3"]) ** 2 + RESOLUTION**2) / (number + zeros).clamp(min=1)
            at = (centre * r2 + variance * y) / (variance + r2)
            at = torch.minimum(torch.maximum(at, low), high)
        return at, HALF * (variance * r2 / (variance + r2)).sqrt()


def _log_read(g: Tensor, part: tuple[Tensor, ...], v: dict[str, Tensor]) -> Tensor:
    """Return ln p of the reads of a block at conductance g; one of 0 is any at or below 0."""
    number, y, square, zeros = part
    r = ((v["m3"] * g + v["c3"]) ** 2 + RESOLUTION**2).sqrt()
    found = -number * (torch.log(r) + 0.5 * math.log(2 * math.pi))
    found = found - (square + number * (y - g) ** 2) / (2 * r**2)
    return found + zeros * log_ndtr(-g / r) if zeros.any() else found


def _log_kernel(z: Tensor, heavy: bool) -> Tensor:
    """Return ln of the density of a deviate of unit variance."""
    if heavy:
        return math.log(3 / (4 * math.sqrt(2))) - 2.5 * torch.log1p(z**2 / 2)
    return -(z**2) / 2 - 0.5 * math.log(2 * math.pi)


def _log_below(z: Tensor, heavy: bool) -> Tensor:
    """Return ln of the chance that it is below z; Student-t with 4 degrees of freedom if heavy."""
    if not heavy:
        return log_ndtr(z)
    root = (2 + z**2).sqrt()
    c = z / root
    plus = torch.where(z > 0, 1 + c, 2 / ((root - z) * root))
    return torch.log(plus**2 * (2 - c) / 4)


def _alike(inside: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    shape = torch.broadcast_shapes(inside.shape[:-1], *(value.shape[:-1] for value in others))
    ones = (value.expand(*shape, 1) for value in others)
    return inside.expand(*shape, inside.shape[-1]), *ones
