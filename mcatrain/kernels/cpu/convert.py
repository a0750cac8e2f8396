"""DAC, products and ADC: of few vectors in one call, of a batch around matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from devicemodels.kernels.cpu.vectors import from_bfloat16, to_bfloat16
from mcatrain.kernels.cpu.passes import (
    LEAST,
    bits,
    drive_rows,
    rows,
    sense_rows,
    steps,
    top,
    within,
)
from mcatrain.kernels.cpu.products import product
from mcatrain.kernels.reference import noise_product

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

#: Numbers of a part of a batch: 2 MiB of float32.
CHUNK = 2**19
#: Vectors, and multiplications, that plain loops do before calls of torch have begun.
_FEW, _SMALL = 3, 2**17


@njit(cache=True, inline="always")
def _round(value: Any, dither: Any, at: int, limit: Any) -> Any:
    """To nearest, or stochastically where there is dither; within the levels."""
    value = np.floor(value + dither[at]) if dither.size else np.rint(value)
    return within(value, limit)


@njit(cache=True)
def _drive(x: Any, levels: int, manage: bool, divisor: Any, dither: Any, out: Any) -> Any:
    """DAC of one vector into ``out``; return the scale to multiply the outputs back with."""
    scale = divisor
    if manage:
        scale *= top(x)
    one, limit = np.float32(1.0), np.float32(levels)
    over = one / scale if scale >= LEAST else one
    unit = np.float32(1 / levels) if levels else one
    for j in range(x.size):
        value = x[j] * over
        if levels:
            value = within(value, one) * limit
            value = _round(value, dither, j, limit) * unit
        out[j] = value
    return scale


@njit(cache=True)
def _sense(
    y: Any, spread: Any, normals: Any, noise: Any, levels: int, bound: Any, dither: Any, scale: Any
) -> bool:
    """Noise and ADC of one vector of outputs, in place; return whether one is at its bound."""
    clipped = False
    step, rate = steps(levels, bound)
    for i in range(y.size):
        value = y[i]
        if normals.size:
            variance = noise * noise
            if spread.size:
                variance += spread[i]
            value += np.sqrt(variance) * normals[i]
        if abs(value) >= bound:
            clipped = True
            value = within(value, bound)
        if levels:
            value = _round(value * rate, dither, i, np.float32(levels)) * step
        y[i] = value * scale
    return clipped


# Sums may be reordered, or the compiler could not add in vectors; nothing else is relaxed.
@njit(cache=True, fastmath={"reassoc", "contract"})
def _products(x: Any, w: Any, s: Any, y: Any, spread: Any) -> None:
    """y = w x and, where s is given, spread = s x^2, in one pass over the array.

    Rounded where `noise_product` rounds.
    """
    squares = np.empty(x.size if s.size else 0, dtype=np.float32)
    for j in range(squares.size):
        squares[j] = from_bfloat16(to_bfloat16(x[j] * x[j]))
    for i in range(w.shape[0]):
        wi, total = w[i], np.float32(0.0)
        if s.size:
            si, variance = s[i], np.float32(0.0)
            for j in range(wi.size):
                total += wi[j] * x[j]
                variance += from_bfloat16(si[j]) * squares[j]
            spread[i] = from_bfloat16(to_bfloat16(variance))
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
            si, square = s[i], from_bfloat16(to_bfloat16(xi * xi))
            for j in range(si.size):
                spread[j] += from_bfloat16(si[j]) * square
    for j in range(spread.size):
        spread[j] = from_bfloat16(to_bfloat16(spread[j]))


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


@njit(cache=True)
def _convert_each(
    x: Any, w: Any, s: Any, transposed: bool, in_levels: int, manage: bool, divisor: float,
    dither: Any, normals: Any, noise: float, out_levels: int, bound: float, out_dither: Any,
    y: Any, hits: Any,
) -> int:  # fmt: skip
    """Convert vector by vector; mark and count those with an output at the bound."""
    by, own, most = np.float32(divisor), np.float32(noise), np.float32(bound)
    none = np.empty(0, dtype=np.float32)
    total = 0
    for row in range(x.shape[0]):
        u = dither[row] if dither.size else none
        z = normals[row] if normals.size else none
        v = out_dither[row] if out_dither.size else none
        hits[row] = _convert_one(
            x[row], w, s, transposed, in_levels, manage, by, u, z, own, out_levels, most, v, y[row],
        )  # fmt: skip
        total += hits[row]
    return total


def _convert_rows(
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    divisor: float,
    dither: Tensor | None,
    normals: Tensor | None,
    output_dither: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """A batch: torch's matrix products between two passes over inputs and outputs.

    Some rows at a time, so that what is between the passes stays in the cache.
    """
    drive = bool(c.input_levels) or c.noise_management or divisor != 1.0
    n = len(x)
    x = x.contiguous()
    y = torch.empty(n, len(weights))
    scale = np.empty(n, dtype=np.float32)
    if not drive:
        scale[:] = divisor
    hits = np.empty(n, dtype=np.int64)
    chunk = max(CHUNK // max(x.shape[1], len(weights)), 1)
    line = torch.empty(min(chunk, n), x.shape[1]) if drive else x
    squares = torch.empty_like(line, dtype=torch.bfloat16) if variance is not None else None
    total = 0
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        size = part.stop - part.start
        xs, ys = x[part], y[part]
        if drive:
            drive_rows(
                xs.numpy(), c.input_levels, c.noise_management, np.float32(divisor),
                rows(dither, part), line.numpy(), bits(squares), scale[part],
            )  # fmt: skip
            xs = line[:size]
        product(xs, weights, ys)
        spread = None
        if squares is not None and variance is not None:
            if not drive:
                torch.mul(xs, xs, out=squares[:size])
            spread = noise_product(squares[:size], variance)
        total += sense_rows(
            ys.numpy(), bits(spread), rows(normals, part), np.float32(c.output_noise),
            c.output_levels, np.float32(c.output_bound), rows(output_dither, part),
            scale[part], hits[part],
        )  # fmt: skip
    return y, torch.from_numpy(hits).nonzero().squeeze(1) if total else None


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
    n, outputs = x.shape[0], weights.shape[0]
    few = are_few(n, weights)
    if c.ideal and divisor == 1.0 and not (few and variance is not None):
        y = product(x, weights)
        if variance is not None and normals is not None:
            spread = noise_product((x * x).to(variance.dtype), variance)
            y.addcmul_(normals, spread.float().sqrt_())
        return y, None
    if not few:
        return _convert_rows(x, weights, variance, c, divisor, dither, normals, output_dither)
    y, hits = torch.empty(n, outputs), np.empty(n, dtype=np.int64)
    drawn = dither, normals, output_dither
    clipped = convert_few(x.contiguous(), weights, variance, c, divisor, *drawn, y, hits)
    return y, torch.from_numpy(hits).nonzero().squeeze(1) if clipped else None


def are_few(n: int, weights: Tensor) -> bool:
    """Whether `convert_few` takes n vectors: what is no work for a matrix product."""
    return n <= _FEW or n * weights.numel() <= _SMALL


def convert_few(
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    divisor: float,
    dither: Tensor | None,
    normals: Tensor | None,
    output_dither: Tensor | None,
    y: Tensor,
    hits: Any,
) -> int:
    """Do `convert` in one call, into y (n, out); mark the clipped rows in hits and count them."""
    w, s = weights.numpy(), bits(variance)
    transposed = not weights.is_contiguous()
    if transposed:
        w, s = w.T, s.T
    return int(
        _convert_each(
            x.numpy(), w, s, transposed, c.input_levels, c.noise_management, divisor,
            rows(dither), rows(normals), c.output_noise, c.output_levels, c.output_bound,
            rows(output_dither), y.numpy(), hits,
        )
    )  # fmt: skip
