"""DAC, products and ADC of one vector in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mcatrain.kernels import reference

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

_NO_LINE = np.empty(0, dtype=np.float32)
_NO_ARRAY = np.empty((0, 0), dtype=np.float32)
_FIRST = torch.zeros(1, dtype=torch.int64)


@njit(cache=True, inline="always")
def _round(value: Any, dither: Any, at: int, limit: Any) -> Any:
    """To nearest, or stochastically where there is dither; within the levels."""
    value = np.floor(value + dither[at]) if dither.size else np.rint(value)
    return min(max(value, -limit), limit)


@njit(cache=True)
def _drive(x: Any, levels: int, manage: bool, divisor: Any, dither: Any, out: Any) -> Any:
    """DAC of one vector into ``out``; return the scale to multiply the outputs back with."""
    scale = divisor
    if manage:
        top = np.float32(0.0)
        for j in range(x.size):
            top = max(top, abs(x[j]))
        scale *= top
    over = scale if scale > 0 else np.float32(1.0)
    limit, one = np.float32(levels), np.float32(1.0)
    for j in range(x.size):
        value = x[j] / over
        if levels:
            value = min(max(value, -one), one) * limit
            value = _round(value, dither, j, limit) / limit
        out[j] = value
    return scale


@njit(cache=True)
def _sense(
    y: Any, spread: Any, normals: Any, noise: Any, levels: int, bound: Any, dither: Any, scale: Any
) -> bool:
    """Noise and ADC of one vector of outputs, in place; return whether one is at its bound."""
    clipped = False
    step = bound / np.float32(levels) if levels else np.float32(1.0)
    for i in range(y.size):
        value = y[i]
        if normals.size:
            variance = noise * noise
            if spread.size:
                variance += spread[i]
            value += np.sqrt(variance) * normals[i]
        if abs(value) >= bound:
            clipped = True
            value = min(max(value, -bound), bound)
        if levels:
            value = _round(value / step, dither, i, np.float32(levels)) * step
        y[i] = value * scale
    return clipped


# Sums may be reordered, or the compiler could not add in vectors; nothing else is relaxed.
@njit(cache=True, fastmath={"reassoc", "contract"})
def _products(x: Any, w: Any, s: Any, y: Any, spread: Any) -> None:
    """y = w x and, where s is given, spread = s x^2, in one pass over the array."""
    squares = x * x
    for i in range(w.shape[0]):
        wi, total = w[i], np.float32(0.0)
        if s.size:
            si, variance = s[i], np.float32(0.0)
            for j in range(wi.size):
                total += wi[j] * x[j]
                variance += si[j] * squares[j]
            spread[i] = variance
        else:
            for j in range(wi.size):
                total += wi[j] * x[j]
        y[i] = total


@njit(cache=True)
def _transposed_products(x: Any, w: Any, s: Any, y: Any, spread: Any) -> None:
    """y = w^T x and spread = s^T x^2, row by row of w."""
    y[:] = 0.0
    spread[:] = 0.0
    for i in range(w.shape[0]):
        xi = x[i]
        if xi == 0:
            continue
        wi = w[i]
        for j in range(wi.size):
            y[j] += wi[j] * xi
        if s.size:
            si, square = s[i], xi * xi
            for j in range(si.size):
                spread[j] += si[j] * square


@njit(cache=True)
def _convert_one(
    x: Any, w: Any, s: Any, transposed: bool, in_levels: int, manage: bool, divisor: Any,
    dither: Any, normals: Any, noise: Any, out_levels: int, bound: Any, out_dither: Any, y: Any,
) -> bool:  # fmt: skip
    line = np.empty_like(x)
    scale = _drive(x, in_levels, manage, divisor, dither, line)
    spread = np.empty(y.size if s.size else 0, dtype=np.float32)
    if transposed:
        _transposed_products(line, w, s, y, spread)
    else:
        _products(line, w, s, y, spread)
    return _sense(y, spread, normals, noise, out_levels, bound, out_dither, scale)


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
    if len(x) > 1:
        # A batch is a matrix product: torch's own, with the reference around it.
        return reference.convert(x, weights, variance, c, divisor, dither, normals, output_dither)
    transposed = not weights.is_contiguous()
    y = x.new_empty(1, len(weights))
    s = variance
    if transposed:
        weights, s = weights.T, None if s is None else s.T
    clipped = _convert_one(
        x.numpy()[0], weights.numpy(), _NO_ARRAY if s is None else s.numpy(), transposed,
        c.input_levels, c.noise_management, np.float32(divisor),
        _line(dither), _line(normals), np.float32(c.output_noise), c.output_levels,
        np.float32(c.output_bound), _line(output_dither), y.numpy()[0],
    )  # fmt: skip
    return y, _FIRST if clipped else None


def _line(values: Tensor | None) -> Any:
    return _NO_LINE if values is None else values.numpy()[0]
