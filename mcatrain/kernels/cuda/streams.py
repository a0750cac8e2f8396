"""Coincidences of bit streams, counted without a matrix of counts in memory."""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
import torch
import triton
import triton.language as tl
from torch import Tensor

from devicemodels.kernels.cuda.lists import blocks, in_order, take_places

_TALL, _WIDE = 8, 128


@triton.jit(do_not_specialize=["slots"])
def _coincide(
    a, b, index, count, counter, slots, height, width,
    TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(width, WIDE)
    row = tl.program_id(0) // across * TALL + tl.arange(0, TALL)
    column = tl.program_id(0) % across * WIDE + tl.arange(0, WIDE)
    pulses = tl.zeros((TALL, WIDE), dtype=tl.int32)
    for slot in range(0, slots):
        x = tl.load(a + slot * width + column, mask=column < width, other=0).to(tl.int32)
        d = tl.load(b + slot * height + row, mask=row < height, other=0).to(tl.int32)
        pulses -= d[:, None] * x[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    flat = tl.reshape(pulses, [TALL * WIDE])
    taken = flat != 0
    if tl.max(taken.to(tl.int32), axis=0) > 0:
        place = take_places(counter, taken)
        tl.store(index + place, tl.reshape(at, [TALL * WIDE]), mask=taken)
        tl.store(count + place, flat.to(tl.int64), mask=taken)


def coincidences(
    x: Tensor, d: Tensor, gain_x: float, gain_d: float, chance_x: Tensor, chance_d: Tensor
) -> tuple[Tensor, Tensor]:
    # The lines' bits with the lines' signs, (BL, in) and (BL, out): small beside the counts.
    a = (chance_x < gain_x * x.abs()) * x.sign().to(torch.int8)
    b = (chance_d < gain_d * d.abs()) * d.sign().to(torch.int8)
    index = torch.empty(len(x) * len(d), dtype=torch.int64, device=x.device)
    count = torch.empty_like(index)
    counter = torch.zeros(1, dtype=torch.int64, device=x.device)
    if len(index):
        _coincide[(blocks(len(d), _TALL)[0] * blocks(len(x), _WIDE)[0],)](
            a, b, index, count, counter, len(a), len(d), len(x), TALL=_TALL, WIDE=_WIDE
        )
    index, order = in_order(index, counter)
    return index, count[order]
