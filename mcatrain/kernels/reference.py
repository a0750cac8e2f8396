"""Kernels in plain torch: the specification the faster forms are tested against."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

if TYPE_CHECKING:
    from mcatrain.periphery import Converters


#: A request of this size is no longer counted exactly in float64: something has diverged.
MOST_PULSES = 2**53


def convert(
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    divisor: float,
    dither: Tensor | None,
    normals: Tensor | None,
    output_dither: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return y = ADC(W DAC(x) + noise), once, and the rows with an output at its bound.

    x: (n, in). weights, variance: (out, in), of each weight and of one read of it (None: reads
    are exact). divisor: bound management drives the lines with x / divisor and multiplies the
    outputs back. dither (n, in), output_dither (n, out): uniform, for stochastic rounding; None
    rounds to nearest. normals: (n, out), None without noise. Returns (n, out) and
    indices (m,), None if m = 0.
    """
    scale = x.new_full((len(x), 1), divisor)
    if c.noise_management:
        scale = scale * x.abs().amax(dim=1, keepdim=True)
    x = x / torch.where(scale > 0, scale, 1.0)
    if levels := c.input_levels:
        x = _round(x.clamp(-1, 1) * levels, dither).clamp(-levels, levels) / levels
    y = linear(x, weights)
    if normals is not None:
        spread = c.output_noise**2 + (0.0 if variance is None else linear(x * x, variance))
        y = y + normals * (spread.sqrt() if isinstance(spread, Tensor) else math.sqrt(spread))
    clipped = (y.abs() >= c.output_bound).any(dim=1).nonzero().squeeze(1)
    y = y.clamp(-c.output_bound, c.output_bound)
    if levels := c.output_levels:
        step = c.output_bound / levels
        y = _round(y / step, output_dither).clamp(-levels, levels) * step
    return y * scale, clipped if len(clipped) else None


def _round(value: Tensor, dither: Tensor | None) -> Tensor:
    return value.round() if dither is None else (value + dither).floor()


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Take p = trunc(chi / epsilon) whole pulses out of chi, in place.

    chi: float32, any shape, contiguous. Returns the flat index (n,) and count p (n,) of the
    entries with p != 0, int64, at most MOST_PULSES. chi keeps chi - p epsilon exactly as float64
    would, rounded once.
    """
    flat = chi.view(-1)
    index = (flat.abs() >= epsilon * (1 - 1e-6)).nonzero().squeeze(1)
    value = flat[index].double()
    count = (value / epsilon).trunc().clamp(-MOST_PULSES, MOST_PULSES)
    kept = count != 0
    index, count = index[kept], count[kept]
    flat[index] = (value[kept] - count * epsilon).float()
    return index, count.long()


def accumulate(
    chi: Tensor, x: Tensor, d: Tensor, scale: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Add scale d x^T to chi in place and `spend`: the step of plain SGD on one example.

    chi: (out, in), below epsilon everywhere before. x: (in,), d: (out,). Returns as `spend`.
    """
    chi.addr_(d, x, alpha=scale)
    return spend(chi, epsilon)


def coincidences(
    x: Tensor, d: Tensor, gain_x: float, gain_d: float, chance_x: Tensor, chance_d: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the coincidences of two stochastic bit streams (Gokmen & Vlasov 2016).

    x: (in,), d: (out,). chance_x: (BL, in), chance_d: (BL, out) uniform. A line fires in a slot
    with probability min(gain |value|, 1); a slot where both fire is one pulse of the sign of
    -x d. Returns flat index (row-major, out x in) ascending and signed count (n,), int64.
    """
    a = (chance_x < gain_x * x.abs()).float() * x.sign()
    b = (chance_d < gain_d * d.abs()).float() * d.sign()
    # The sign of a weight's pulses is the same in every slot, so sums of products count them.
    counts = -(b.T @ a).view(-1)
    index = counts.nonzero().squeeze(1)
    return index, counts[index].long()
