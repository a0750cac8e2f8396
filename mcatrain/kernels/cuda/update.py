"""One pass over chi: add the gradient, take out whole pulses, list them."""

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


@triton.jit(do_not_specialize=["rows"])
def _spend(
    chi, x, d, rows, index, count, counters,
    height, width, scale: tl.float32, epsilon: tl.float64, least: tl.float32,
    most: tl.float64, SOURCE: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(width, WIDE)
    row = tl.program_id(0) // across * TALL + tl.arange(0, TALL)
    column = tl.program_id(0) % across * WIDE + tl.arange(0, WIDE)
    # (TALL, WIDE), flat: lists are.
    here = (row < height)[:, None] & (column < width)[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    value = tl.load(chi + at, mask=here, other=0.0)
    if SOURCE == "factors":
        for n in range(0, rows):
            lines = tl.load(x + n * width + column, mask=column < width, other=0.0)
            errors = tl.load(d + n * height + row, mask=row < height, other=0.0)
            value += (scale * errors)[:, None] * lines[None, :]
    elif SOURCE == "dense":
        value += scale * tl.load(x + at, mask=here, other=0.0)
    near = tl.abs(value) >= least
    if tl.max(tl.max(near.to(tl.int32), axis=1), axis=0) > 0:
        wide = value.to(tl.float64)
        asked = tl.where(near & here, wide / epsilon, 0.0)
        pulses = tl.minimum(tl.maximum(asked, -most), most).to(tl.int64)
        value = tl.where(
            pulses != 0, (wide - pulses.to(tl.float64) * epsilon).to(tl.float32), value
        )
        flat = tl.reshape(pulses, [TALL * WIDE])
        taken = flat != 0
        size = tl.abs(flat)
        place = take_places(counters, taken)
        tl.atomic_add(counters + 1, tl.sum(size, axis=0))
        tl.atomic_max(counters + 2, tl.max(size, axis=0))
        tl.store(index + place, tl.reshape(at, [TALL * WIDE]), mask=taken)
        tl.store(count + place, flat, mask=taken)
        if SOURCE == "none":
            tl.store(chi + at, value, mask=here & (pulses != 0))
    if SOURCE != "none":
        tl.store(chi + at, value, mask=here)


def take_pulses(
    chi: Tensor, gradient: Tensor | tuple[Tensor, Tensor] | None, scale: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Add scale times the gradient to chi, in place, and take whole pulses out of it.

    gradient: of chi's shape, or factors x (n, in) and d (n, out) of d^T x, or None. Returns room
    for the flat index and the count of as many events as chi has entries, int64, filled from the
    front in an order left to chance, and counters (3,): events, pulses, most pulses of one
    event. Does not wait for the device.
    """
    source, x, d, rows = "none", chi, chi, 0
    height, width = (1, chi.numel()) if chi.dim() != 2 else chi.shape
    if isinstance(gradient, tuple):
        source, (x, d), rows = "factors", (v.contiguous() for v in gradient), len(gradient[0])
    elif gradient is not None:
        source, x = "dense", gradient.contiguous()
    index = torch.empty(chi.numel(), dtype=torch.int64, device=chi.device)
    count = torch.empty_like(index)
    counters = torch.zeros(3, dtype=torch.int64, device=chi.device)
    if chi.numel():
        wide = min(_WIDEST, triton.next_power_of_2(width))
        tall = _BLOCK // wide
        # Fused multiply-adds would round chi - p epsilon once instead of twice.
        _spend[(blocks(height, tall)[0] * blocks(width, wide)[0],)](
            chi, x, d, rows, index, count, counters, height, width, scale, epsilon,
            epsilon * (1 - 1e-6), float(MOST_PULSES), SOURCE=source, TALL=tall, WIDE=wide,
            enable_fp_fusion=False,
        )  # fmt: skip
    return index, count, counters


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return _events(*take_pulses(chi, None, 0.0, epsilon))


def accumulate(
    chi: Tensor, x: Tensor, d: Tensor, scale: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    return _events(*take_pulses(chi, (x.unsqueeze(0), d.unsqueeze(0)), scale, epsilon))


def _events(index: Tensor, count: Tensor, counters: Tensor) -> tuple[Tensor, Tensor]:
    index, order = in_order(index, counters)
    return index, count[order]
