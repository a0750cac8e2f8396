"""DAC and ADC of the rows of a batch: a pass before the matrix products, and one after them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from devicemodels.kernels.cpu.vectors import bits_of, float_of, from_bfloat16, to_bfloat16
from mcatrain.kernels.reference import LEAST_SCALE

_NO_ARRAY = np.empty((0, 0), dtype=np.float32)
#: Of bfloat16, which Numba knows by their bits.
_NO_BITS = np.empty((0, 0), dtype=np.int16)
LEAST = np.float32(LEAST_SCALE)
#: All bits of a float32 but its sign.
NO_SIGN = np.int32(0x7FFFFFFF)


@njit(cache=True, inline="always")
def within(value: Any, bound: Any) -> Any:
    """Return value within -bound and bound; what is no number stays so."""
    value = -bound if value < -bound else value
    return bound if value > bound else value


@njit(cache=True)
def top(x: Any) -> Any:
    """Return max|x|, or NaN: numbers of one sign lie in the order of their bits."""
    top = np.int32(0)
    for j in range(x.size):
        top = max(top, np.int32(bits_of(x[j]) & NO_SIGN))
    return float_of(top)


@njit(cache=True)
def reaches(y: Any, bound: Any) -> bool:
    """Return whether one of the outputs y is at its bound, or beyond."""
    most = top(y)
    if most >= bound or most < bound:
        return most >= bound
    met = False  # one is no number
    for i in range(y.size):
        met |= abs(y[i]) >= bound
    return met


@njit(cache=True)
def steps(levels: int, bound: Any) -> Any:
    """Return the step of an ADC and its inverse."""
    if not levels:
        return np.float32(1.0), np.float32(1.0)
    step = np.float64(bound) / levels
    return np.float32(step), np.float32(1.0 / step)


@njit(cache=True)
def drive_rows(
    x: Any, levels: int, manage: bool, divisor: Any, dither: Any, out: Any, squares: Any, scale: Any
) -> None:
    """DAC of every row of x into ``out``, its squares where asked for, its scale."""
    limit, one = np.float32(levels), np.float32(1.0)
    unit = np.float32(1 / levels) if levels else one
    for row in range(x.shape[0]):
        xr, line = x[row], out[row]
        s = divisor * top(xr) if manage else divisor
        scale[row] = s
        over = one / s if s >= LEAST else one
        if levels and dither.size:
            for j in range(xr.size):
                value = np.floor(within(xr[j] * over, one) * limit + dither[row, j])
                line[j] = within(value, limit) * unit
        elif levels:
            for j in range(xr.size):
                line[j] = np.rint(within(xr[j] * over, one) * limit) * unit
        else:
            for j in range(xr.size):
                line[j] = xr[j] * over
        if squares.size:
            out_squares = squares[row]
            for j in range(xr.size):
                out_squares[j] = to_bfloat16(line[j] * line[j])


@njit(cache=True)
def sense_rows(
    y: Any, spread: Any, normals: Any, noise: Any, levels: int, bound: Any, dither: Any,
    scale: Any, hits: Any,
) -> int:  # fmt: skip
    """Noise and ADC of every row of outputs, in place; mark and count the rows at the bound."""
    # `patchwise._sense_patches` does the same: shared by rows, the loops run a fifth slower.
    step, rate = steps(levels, bound)
    limit = np.float32(levels)
    total = 0
    own = noise * noise
    for row in range(y.shape[0]):
        yr, s = y[row], scale[row]
        if normals.size and spread.size:
            z, v = normals[row], spread[row]
            for i in range(yr.size):
                yr[i] += np.sqrt(own + from_bfloat16(v[i])) * z[i]
        elif normals.size:
            z = normals[row]
            for i in range(yr.size):
                yr[i] += noise * z[i]
        hits[row] = reaches(yr, bound)
        if levels and dither.size:
            u = dither[row]
            for i in range(yr.size):
                value = np.floor(within(yr[i], bound) * rate + u[i])
                yr[i] = within(value, limit) * step * s
        elif levels:
            for i in range(yr.size):
                yr[i] = np.rint(within(yr[i], bound) * rate) * step * s
        else:
            for i in range(yr.size):
                yr[i] = within(yr[i], bound) * s
        total += hits[row]
    return total


def bits(values: Tensor | None) -> Any:
    if values is None:
        return _NO_BITS
    assert values.dtype == torch.bfloat16  # other bits would be read beyond their end
    return values.view(torch.int16).numpy()


def rows(values: Tensor | None, part: slice | None = None) -> Any:
    if values is None:
        return _NO_ARRAY
    return values.numpy() if part is None else values[part].numpy()
