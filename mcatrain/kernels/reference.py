"""Kernels in plain torch: the specification the faster forms are tested against."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dac(
    x: Tensor, levels: int, noise_management: bool, dither: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return what the DAC puts on the lines, within [-1, 1], and the scale to multiply back.

    x: (n, in). levels: on each side of 0; 0 converts ideally. With noise management each row is
    divided by its max|x|. dither: uniform (n, in) for stochastic rounding, None to nearest.
    Returns (n, in) and scale (n, 1).
    """
    scale = x.new_ones(len(x), 1)
    if noise_management:
        scale = x.abs().amax(dim=1, keepdim=True)
        x = x / torch.where(scale > 0, scale, 1.0)
    if levels:
        x = x.clamp(-1, 1) * levels
        x = (x + dither).floor() if dither is not None else x.round()
        x = x.clamp(-levels, levels) / levels
    return x, scale


def adc(
    y: Tensor,
    variance: Tensor | None,
    normals: Tensor | None,
    noise: float,
    levels: int,
    bound: float,
) -> tuple[Tensor, Tensor | None]:
    """Add noise sqrt(variance + noise^2) N(0, 1) to y (n, out), then convert on [-bound, bound].

    variance, normals: (n, out), None for no noise. levels: on each side of 0; 0 converts ideally.
    Returns the outputs, and the indices of rows with an output at its bound (None: no such row).
    """
    if variance is not None and normals is not None:
        y = y + (variance + noise**2).sqrt() * normals
    if math.isinf(bound):
        return y, None
    clipped = (y.abs() >= bound).any(dim=1).nonzero().squeeze(1)
    y = y.clamp(-bound, bound)
    if levels:
        step = bound / levels
        y = (y / step).round() * step
    return y, clipped if len(clipped) else None


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Take p = trunc(chi / epsilon) whole pulses out of chi, in place.

    chi: float32, any shape, contiguous. Returns the flat index (n,) and count p (n,) of the
    entries with p != 0, int64. chi keeps chi - p epsilon exactly as float64 would, rounded once.
    """
    flat = chi.view(-1)
    index = (flat.abs() >= epsilon * (1 - 1e-6)).nonzero().squeeze(1)
    value = flat[index].double()
    count = (value / epsilon).trunc()
    kept = count != 0
    index, count = index[kept], count[kept]
    flat[index] = (value[kept] - count * epsilon).float()
    return index, count.long()


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
