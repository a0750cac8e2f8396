"""PCM pairs: their drifted weights, and which of them need attention, in one pass."""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
# A float without one would reach a kernel as float32.
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from devicemodels.kernels.cuda.lists import blocks, in_order, take_places

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters

_BLOCK = 1024


@triton.jit
def drifted(conductance, programmed_at, exponent, i, here, now, rate):
    """Return G(now) of the devices ``i``; the age in float64, the rest in float32.

    rate: 1 / T0; many cards divide float64 slower than memory brings it.
    """
    age = (now - tl.load(programmed_at + i, mask=here, other=0.0)) * rate
    age = tl.maximum(age, 1.0).to(tl.float32)
    nu = tl.load(exponent + i, mask=here, other=0.0)
    return tl.load(conductance + i, mask=here, other=0.0) * tl.exp(-nu * tl.log(age))


@triton.jit
def write_pair(
    weight, variance, i, here, plus, minus, beta, m3,
    c3, NOISY: tl.constexpr,
):  # fmt: skip
    """Write the weights of pairs, and the variance of a read if they read noisily."""
    tl.store(weight + i, (plus - minus) / beta, mask=here)
    if NOISY:
        p, m = (m3 * plus + c3) / beta, (m3 * minus + c3) / beta
        tl.store(variance + i, p * p + m * m, mask=here)


@triton.jit(do_not_specialize=["number"])
def _read_pairs(
    conductance, programmed_at, exponent, index, weight, variance,
    size, number, now: tl.float64, rate: tl.float64, beta: tl.float32, m3: tl.float32,
    c3: tl.float32, LISTED: tl.constexpr, NOISY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if LISTED:
        here = i < number
        i = tl.load(index + i, mask=here, other=0)
    else:  # of a size known to be a multiple of 16, four at a time are read
        here = i < size
    plus = drifted(conductance, programmed_at, exponent, i, here, now, rate)
    minus = drifted(conductance, programmed_at, exponent, i + size, here, now, rate)
    write_pair(weight, variance, i, here, plus, minus, beta, m3, c3, NOISY)


def read_pairs(
    conductance_us: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    index: Tensor | None,
    now_s: float,
    beta_us: float,
    parameters: "PCMParameters",
    weight: Tensor,
    variance: Tensor | None,
) -> None:
    size, p = weight.numel(), parameters
    number = size if index is None else len(index)
    if number:
        # A kernel takes no None: what it will not touch stands in for it.
        _read_pairs[blocks(number, _BLOCK)](
            conductance_us, programmed_at_s, exponent, weight if index is None else index,
            weight, weight if variance is None else variance, size, number, now_s, 1 / p.t0_s,
            beta_us, p.m3, p.c3, LISTED=index is not None, NOISY=variance is not None,
            BLOCK=_BLOCK,
        )  # fmt: skip


@triton.jit
def _aged_pairs(
    at, index, counter, size, young: tl.float64, old: tl.float64,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < size
    plus = tl.load(at + i, mask=here, other=0.0)
    minus = tl.load(at + i + size, mask=here, other=0.0)
    found = ((plus <= young) & (plus > old)) | ((minus <= young) & (minus > old))
    found = found & here
    if tl.max(found.to(tl.int32), axis=0) > 0:
        tl.store(index + take_places(counter, found), i, mask=found)


def aged_pairs(programmed_at_s: Tensor, youngest_at_s: float, oldest_at_s: float) -> Tensor:
    return _listed(_aged_pairs, programmed_at_s, youngest_at_s, oldest_at_s)


@triton.jit
def _high_pairs(g, index, counter, size, above: tl.float32, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < size
    plus = tl.load(g + i, mask=here, other=0.0)
    minus = tl.load(g + i + size, mask=here, other=0.0)
    found = (tl.maximum(plus, minus) > above) & here
    if tl.max(found.to(tl.int32), axis=0) > 0:
        tl.store(index + take_places(counter, found), i, mask=found)


def high_pairs(conductance_us: Tensor, above_us: float) -> Tensor:
    return _listed(_high_pairs, conductance_us, above_us)


def _listed(kernel: Any, values: Tensor, *limits: float) -> Tensor:
    """Return the pairs that a kernel finds among the devices ``values`` (2n,), ascending."""
    size = values.numel() // 2
    index = torch.empty(size, dtype=torch.int64, device=values.device)
    if not size:
        return index
    counter = torch.zeros(1, dtype=torch.int64, device=values.device)
    kernel[blocks(size, _BLOCK)](values, index, counter, size, *limits, BLOCK=_BLOCK)
    return in_order(index, counter)[0]
