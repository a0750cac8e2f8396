"""A matrix-vector product between converters: torch's products, one pass before, one after."""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from devicemodels.kernels.cuda.lists import blocks, in_order, take_places
from devicemodels.kernels.cuda.pairs import to_bfloat16
from mcatrain.kernels.reference import LEAST_SCALE, noise_product, product

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

#: Entries a program works on at a time, and how many of them lie side by side in a row.
_BLOCK, _WIDEST = 1024, 512
_LEAST = tl.constexpr(LEAST_SCALE)


@triton.jit
def _clipped(value, bound):
    """Clip to [-bound, bound]; what is no number stays so, and is found by the optimizer."""
    ALL: tl.constexpr = tl.PropagateNan.ALL
    return tl.minimum(tl.maximum(value, -bound, ALL), bound, ALL)


@triton.jit
def _rounded(value, dither, at, here, STOCHASTIC: tl.constexpr):
    """Round to a whole number: to the even one of two equally near, or up by chance."""
    if STOCHASTIC:
        return tl.floor(value + tl.load(dither + at, mask=here, other=0.0))
    low = tl.floor(value)
    rest = value - low
    odd = low - 2.0 * tl.floor(low * 0.5)
    return low + tl.where((rest > 0.5) | ((rest == 0.5) & (odd == 1.0)), 1.0, 0.0)


@triton.jit(do_not_specialize=["rows"])
def _to_lines(
    x, dither, scale, line, square, rows, width, divisor: tl.float32, levels: tl.float32,
    rate: tl.float32, NM: tl.constexpr, ROUNDED: tl.constexpr, STOCHASTIC: tl.constexpr,
    SQUARED: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of each row: its scale, what the DAC makes of it, and the squares of that."""
    row = tl.program_id(0).to(tl.int64) * TALL + tl.arange(0, TALL)
    column = tl.arange(0, WIDE)
    factor = tl.zeros((TALL,), tl.float32) + divisor
    if NM:
        top = tl.zeros((TALL, WIDE), tl.float32)
        for start in range(0, width, WIDE):
            here = (row < rows)[:, None] & (start + column < width)[None, :]
            at = row[:, None] * width + start + column[None, :]
            top = tl.maximum(top, tl.abs(tl.load(x + at, mask=here, other=0.0)))
        factor = factor * tl.max(top, axis=1)
    tl.store(scale + row, factor, mask=row < rows)
    ones = tl.zeros((TALL,), tl.float32) + 1.0
    by = tl.div_rn(ones, tl.where(factor >= _LEAST, factor, 1.0))[:, None]
    for start in range(0, width, WIDE):
        here = (row < rows)[:, None] & (start + column < width)[None, :]
        at = row[:, None] * width + start + column[None, :]
        value = tl.load(x + at, mask=here, other=0.0) * by
        if ROUNDED:
            value = _rounded(_clipped(value, 1.0) * levels, dither, at, here, STOCHASTIC)
            value = _clipped(value, levels) * rate
        tl.store(line + at, value, mask=here)
        if SQUARED:
            tl.store(square + at, to_bfloat16(value * value), mask=here)


@triton.jit(do_not_specialize=["rows"])
def _from_lines(
    y, noise, normals, dither, scale, clipped, counter, rows, width, output_noise: tl.float32,
    bound: tl.float32, step: tl.float32, rate: tl.float32, levels: tl.float32,
    NOISY: tl.constexpr, READ_NOISE: tl.constexpr, ROUNDED: tl.constexpr, STOCHASTIC: tl.constexpr,
    TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of each row: noise, the bound and whether it was met, the ADC, and the scale again."""
    row = tl.program_id(0).to(tl.int64) * TALL + tl.arange(0, TALL)
    column = tl.arange(0, WIDE)
    factor = tl.load(scale + row, mask=row < rows, other=0.0)[:, None]
    hit = tl.zeros((TALL, WIDE), tl.int32)
    for start in range(0, width, WIDE):
        here = (row < rows)[:, None] & (start + column < width)[None, :]
        at = row[:, None] * width + start + column[None, :]
        value = tl.load(y + at, mask=here, other=0.0)
        if NOISY:
            spread = tl.zeros((TALL, WIDE), tl.float32) + output_noise * output_noise
            if READ_NOISE:
                spread += tl.load(noise + at, mask=here, other=0.0).to(tl.float32)
            value += tl.load(normals + at, mask=here, other=0.0) * tl.sqrt(spread)
        hit = hit | ((tl.abs(value) >= bound) & here).to(tl.int32)
        value = _clipped(value, bound)
        if ROUNDED:
            value = _clipped(_rounded(value * rate, dither, at, here, STOCHASTIC), levels) * step
        tl.store(y + at, value * factor, mask=here)
    met = tl.max(hit, axis=1) > 0
    if tl.max(met.to(tl.int32), axis=0) > 0:
        tl.store(clipped + take_places(counter, met), row, mask=met)


def convert(
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: "Converters",
    divisor: float,
    dither: Tensor | None,
    normals: Tensor | None,
    output_dither: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    x = x.contiguous()
    rows, width = x.shape
    line, scale = torch.empty_like(x), x.new_empty(rows)
    noisy = normals is not None
    read_noise = noisy and variance is not None
    squared = torch.empty_like(x, dtype=torch.bfloat16) if read_noise else None
    if not rows:
        return product(x, weights), None
    # A kernel takes no None: what it will not touch stands in for it.
    levels, (tall, wide) = c.input_levels, _tile(width)
    _to_lines[blocks(rows, tall)](
        x, _or(dither, x), scale, line, _or(squared, x), rows, width, divisor,
        float(levels), 1 / levels if levels else 1.0, NM=c.noise_management, ROUNDED=levels > 0,
        STOCHASTIC=dither is not None, SQUARED=squared is not None, TALL=tall, WIDE=wide,
        enable_fp_fusion=False,
    )  # fmt: skip
    y = product(line, weights)
    noise = None if squared is None or variance is None else noise_product(squared, variance)
    clipped = torch.empty(rows, dtype=torch.int64, device=x.device)
    counter = torch.zeros(1, dtype=torch.int64, device=x.device)
    levels, (tall, wide) = c.output_levels, _tile(y.shape[1])
    step = c.output_bound / levels if levels else 1.0
    _from_lines[blocks(rows, tall)](
        y, _or(noise, y), _or(normals, y), _or(output_dither, y), scale, clipped, counter, rows,
        y.shape[1], c.output_noise, c.output_bound, step, 1 / step, float(levels), NOISY=noisy,
        READ_NOISE=noise is not None, ROUNDED=levels > 0, STOCHASTIC=output_dither is not None,
        TALL=tall, WIDE=wide, enable_fp_fusion=False,
    )  # fmt: skip
    if c.output_bound == float("inf"):
        return y, None
    clipped = in_order(clipped, counter)[0]
    return y, clipped if len(clipped) else None


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    return other if tensor is None else tensor


def _tile(width: int) -> tuple[int, int]:
    """Return how many rows and columns a program works on at a time."""
    wide = min(_WIDEST, triton.next_power_of_2(width))
    return _BLOCK // wide, wide
