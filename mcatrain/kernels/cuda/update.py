"""One pass over chi: add the gradient, take out whole pulses, list them.

Whoever pulses by the list (devicemodels.kernels.pulse_pairs) must know its length, so that a step
of MCA waits for the card once an array here, and again to count the pulses; `program` needs none.
"""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
# A float without one would reach a kernel as float32.
import torch
import triton
import triton.language as tl
from torch import Tensor

from devicemodels.kernels.cuda.lists import blocks, in_order, take_places
from mcatrain.kernels.reference import MOST_PULSES

#: Entries of chi a program works on, and how many of them lie side by side in a row.
_BLOCK, _WIDEST = 1024, 256


@triton.jit
def chi_block(
    chi, gradient, x, d, height, width, scale,
    ADDED: tl.constexpr, WHOLE: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Return this program's block of chi, flat places, mask and values (TALL, WIDE); if ADDED
    after adding scale times d x^T or, if WHOLE, the gradient."""
    across = tl.cdiv(width, WIDE)
    row = tl.program_id(0) // across * TALL + tl.arange(0, TALL)
    column = tl.program_id(0) % across * WIDE + tl.arange(0, WIDE)
    # (TALL, WIDE), flat: lists are.
    here = (row < height)[:, None] & (column < width)[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    value = tl.load(chi + at, mask=here, other=0.0)
    if WHOLE:
        value += scale * tl.load(gradient + at, mask=here, other=0.0)
    elif ADDED:
        lines = tl.load(x + column, mask=column < width, other=0.0)
        errors = tl.load(d + row, mask=row < height, other=0.0)
        value += (scale * errors)[:, None] * lines[None, :]
    return at, here, value


@triton.jit
def is_near(value, least):
    """Return whether a value of a block may hold a whole pulse."""
    return tl.max(tl.max((tl.abs(value) >= least).to(tl.int32), axis=1), axis=0) > 0


@triton.jit
def whole_pulses(value, here, epsilon, least, most):
    """Return what is left of a block of chi, and its pulses, int64, at most ``most`` of a weight.

    epsilon, most: float64; least: float32, a hair below epsilon.
    """
    wide = value.to(tl.float64)
    asked = tl.where((tl.abs(value) >= least) & here, wide / epsilon, 0.0)
    pulses = tl.minimum(tl.maximum(asked, -most), most).to(tl.int64)
    left = (wide - pulses.to(tl.float64) * epsilon).to(tl.float32)
    return tl.where(pulses != 0, left, value), pulses


@triton.jit
def _spend(
    chi, gradient, x, d, index, count, counter, height, width, scale: tl.float32,
    epsilon: tl.float64, least: tl.float32, most: tl.float64,
    ADDED: tl.constexpr, WHOLE: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Take whole pulses out of chi, see `chi_block`, and list them.

    counter: pointer to int64, the events so far.
    """
    at, here, value = chi_block(chi, gradient, x, d, height, width, scale, ADDED, WHOLE, TALL, WIDE)
    if is_near(value, least):
        value, pulses = whole_pulses(value, here, epsilon, least, most)
        flat = tl.reshape(pulses, [TALL * WIDE])
        taken = flat != 0
        place = take_places(counter, taken)
        tl.store(index + place, tl.reshape(at, [TALL * WIDE]), mask=taken)
        tl.store(count + place, flat, mask=taken)
        if not ADDED:
            tl.store(chi + at, value, mask=here & (pulses != 0))
    if ADDED:
        tl.store(chi + at, value, mask=here)


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return _events(chi, None, None, 0.0, epsilon)


def descend(chi: Tensor, gradient: Tensor, scale: float, epsilon: float) -> tuple[Tensor, Tensor]:
    return _events(chi, gradient.contiguous(), None, scale, epsilon)


def accumulate(
    chi: Tensor, x: Tensor, d: Tensor, scale: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    return _events(chi, None, (x.contiguous(), d.contiguous()), scale, epsilon)


def _events(
    chi: Tensor,
    gradient: Tensor | None,
    factors: tuple[Tensor, Tensor] | None,
    scale: float,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    height, width = (1, chi.numel()) if chi.dim() != 2 else chi.shape
    index = torch.empty(chi.numel(), dtype=torch.int64, device=chi.device)
    count = torch.empty_like(index)
    if not chi.numel():
        return index, count
    counter = torch.zeros(1, dtype=torch.int64, device=chi.device)
    grid, tall, wide = tiling(height, width)
    # A kernel takes no None: what it will not touch stands in for it.
    x, d = (chi, chi) if factors is None else factors
    whole = gradient is not None
    added = whole or factors is not None
    # Fused multiply-adds would round chi - p epsilon once instead of twice.
    _spend[grid](
        chi, gradient if whole else chi, x, d, index, count, counter, height, width, scale,
        epsilon, nearly(epsilon), float(MOST_PULSES), ADDED=added, WHOLE=whole,
        TALL=tall, WIDE=wide, enable_fp_fusion=False,
    )  # fmt: skip
    index, order = in_order(index, counter)
    return index, count[order]


def tiling(height: int, width: int) -> tuple[tuple[int], int, int]:
    """Return the grid over a matrix, and rows and columns of a program's block."""
    wide = min(_WIDEST, triton.next_power_of_2(width))
    tall = _BLOCK // wide
    return (blocks(height, tall)[0] * blocks(width, wide)[0],), tall, wide


def nearly(epsilon: float) -> float:
    """Return a threshold that rounding to float32 cannot lift above epsilon."""
    return epsilon * (1 - 1e-6)
