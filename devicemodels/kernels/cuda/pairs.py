"""PCM pairs: their pulses and drifted weights, and which of them may saturate, in one pass."""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
# A float without one would reach a kernel as float32.
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from devicemodels.kernels.cuda.lists import blocks, in_order, take_places
from devicemodels.kernels.cuda.pulses import set_constants, set_pulses, set_some
from devicemodels.kernels.reference import DUE_BLOCK

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters
    from devicemodels.pulses import PulseEvents

#: Entries of a program that goes through all, and events of one that goes through a list.
_BLOCK, _EVENTS = 1024, 256
_DUE_BLOCK = tl.constexpr(DUE_BLOCK)


@triton.jit
def drifted(
    conductance, programmed_at, exponent, i, here, now, t0,
    rate, tolerance,
):  # fmt: skip
    """Return G(now) of the devices ``i``, and how long it stays right to ``tolerance`` [s].

    Ages are float64, the rest float32. rate: 1 / T0; many cards divide float64 slower than memory
    brings it.
    """
    age = now - tl.load(programmed_at + i, mask=here, other=0.0)
    nu = tl.load(exponent + i, mask=here, other=0.0)
    slowly = tolerance / tl.maximum(nu, 1e-12)
    stays = tl.maximum(t0 - age, 0.0) + tl.maximum(age, t0) * slowly
    factor = tl.exp(-nu * tl.log(tl.maximum(age * rate, 1.0).to(tl.float32)))
    return tl.load(conductance + i, mask=here, other=0.0) * factor, stays


@triton.jit
def to_bfloat16(value):
    """Round float32 to the nearest bfloat16, as torch does; Triton's interpreter cuts instead."""
    bits = value.to(tl.uint32, bitcast=True)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def write_pair(
    weight, variance, i, here, plus, minus, beta, m3,
    c3, NOISY: tl.constexpr,
):  # fmt: skip
    """Write the weights of pairs, and the variance of a read if they read noisily."""
    tl.store(weight + i, (plus - minus) / beta, mask=here)
    if NOISY:
        p, m = (m3 * plus + c3) / beta, (m3 * minus + c3) / beta
        tl.store(variance + i, to_bfloat16(p * p + m * m), mask=here)


@triton.jit(do_not_specialize=["number"])
def _read_pairs(
    conductance, programmed_at, exponent, index, weight, variance, due, shortest,
    size, number, now: tl.float64, ahead: tl.float64, t0: tl.float64, rate: tl.float64,
    tolerance: tl.float32, beta: tl.float32, m3: tl.float32, c3: tl.float32,
    LISTED: tl.constexpr, NOISY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Read the ``number`` pairs of a list, or those of the ``number`` blocks that are due.

    shortest: pointer to float64, lowered to how long all of them may stay [s].
    """
    if LISTED:
        e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        here = e < number
        i = tl.load(index + e, mask=here, other=0)
    else:
        ROWS: tl.constexpr = BLOCK // _DUE_BLOCK
        block = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        # A difference: Triton's interpreter compares with scalars in float32.
        asked = tl.load(due + block, mask=block < number, other=float("inf")) - now < ahead
        i = block[:, None] * _DUE_BLOCK + tl.arange(0, _DUE_BLOCK)[None, :]
        here = asked[:, None] & (i < size)
    plus, stays = drifted(
        conductance, programmed_at, exponent, i, here, now, t0, rate, tolerance
    )  # fmt: skip
    minus, stays_too = drifted(
        conductance, programmed_at, exponent, i + size, here, now, t0, rate, tolerance
    )  # fmt: skip
    write_pair(weight, variance, i, here, plus, minus, beta, m3, c3, NOISY)
    stays = tl.where(here, tl.minimum(stays, stays_too), float("inf"))
    if LISTED:
        tl.atomic_min(due + i // _DUE_BLOCK, now + stays, mask=here)
    else:
        stays = tl.min(stays, axis=1)
        tl.store(due + block, now + stays, mask=asked)
    least = tl.min(stays, axis=0)
    tl.atomic_min(shortest, least, mask=least < float("inf"))


def read_pairs(
    conductance_us: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    index: Tensor | None,
    now_s: float,
    beta_us: float,
    parameters: "PCMParameters",
    tolerance: float,
    ahead_s: float,
    weight: Tensor,
    variance: Tensor | None,
    due_s: Tensor,
) -> float:
    p, shortest = parameters, torch.full_like(due_s[:1], float("inf"))
    number, each = (len(due_s), _BLOCK // DUE_BLOCK) if index is None else (len(index), _BLOCK)
    if number:
        # A kernel takes no None: what it will not touch stands in for it.
        _read_pairs[blocks(number, each)](
            conductance_us, programmed_at_s, exponent, weight if index is None else index,
            weight, weight if variance is None else variance, due_s, shortest, weight.numel(),
            number, now_s, ahead_s, p.t0_s, 1 / p.t0_s, tolerance, beta_us, p.m3, p.c3,
            LISTED=index is not None, NOISY=variance is not None, BLOCK=_BLOCK,
        )  # fmt: skip
    return float(shortest.item()) if number else float("inf")


@triton.jit
def after_pulses(
    conductance, programmed_at, exponent, weight, variance, due, pair, size, here, up, set_to,
    now, t0, rate, tolerance, beta, m3, c3, NOISY: tl.constexpr,
):  # fmt: skip
    """Note the time of pulses that set G+ (``up``) or G- of pairs to ``set_to``; read the pairs."""
    i = tl.where(up, pair, pair + size)
    nu = tl.load(exponent + i, mask=here, other=0.0)
    tl.store(programmed_at + i, tl.zeros_like(nu).to(tl.float64) + now, mask=here)
    # A device just programmed drifts from T0 on; its partner has drifted.
    stays = t0 + t0 * (tolerance / tl.maximum(nu, 1e-12))
    rest, stays_too = drifted(
        conductance, programmed_at, exponent, tl.where(up, pair + size, pair), here, now, t0,
        rate, tolerance,
    )  # fmt: skip
    plus, minus = tl.where(up, set_to, rest), tl.where(up, rest, set_to)
    write_pair(weight, variance, pair, here, plus, minus, beta, m3, c3, NOISY)
    tl.atomic_min(due + pair // _DUE_BLOCK, now + tl.minimum(stays, stays_too), mask=here)


@triton.jit(do_not_specialize=["events"])
def _pulse_pairs(
    conductance, pulses, programmed_at, exponent, index, count, first, normals,
    weight, variance, due, size, events, now: tl.float64, t0: tl.float64, rate: tl.float64,
    tolerance: tl.float32, beta: tl.float32, m3: tl.float32, c3: tl.float32,
    m1: tl.float64, c1: tl.float64, A1: tl.float64, a: tl.float64, m2: tl.float64,
    c2: tl.float64, A2: tl.float64, g_min: tl.float64, g_max: tl.float64,
    NOISY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = e < events
    pair = tl.load(index + e, mask=here, other=0)
    signed = tl.load(count + e, mask=here, other=0)
    up = signed > 0
    i = tl.where(up, pair, pair + size)
    set_to = set_some(
        conductance, pulses, i, tl.abs(signed), first + e, normals, here,
        m1, c1, A1, a, m2, c2, A2, g_min, g_max,
    )  # fmt: skip
    after_pulses(
        conductance, programmed_at, exponent, weight, variance, due, pair, size, here, up, set_to,
        now, t0, rate, tolerance, beta, m3, c3, NOISY,
    )  # fmt: skip


def pulse_pairs(
    conductance_us: Tensor,
    pulses: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    events: "PulseEvents",
    normals: Tensor,
    now_s: float,
    *way: Any,
) -> None:
    beta_us, p, tolerance, _, weight, variance, due_s = way
    index, size = events.index, weight.numel()
    count = events.count.abs()
    if events.repeats:  # what is read in between would be due too early
        device = index + size * (events.count < 0)
        set_pulses(conductance_us, pulses, device, count, normals, p, True)
        programmed_at_s[device] = now_s
        read_pairs(conductance_us, programmed_at_s, exponent, index, now_s, *way)
    elif len(index):
        _pulse_pairs[blocks(len(index), _EVENTS)](
            conductance_us, pulses, programmed_at_s, exponent, index, events.count,
            count.cumsum(0) - count, normals, weight, weight if variance is None else variance,
            due_s, size, len(index), now_s, p.t0_s, 1 / p.t0_s, tolerance, beta_us, p.m3, p.c3,
            *set_constants(p), NOISY=variance is not None, BLOCK=_EVENTS,
        )  # fmt: skip


@triton.jit
def _high_pairs(
    g, index, counter, size, above: tl.float32, both: tl.float32, BLOCK: tl.constexpr
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < size
    plus = tl.load(g + i, mask=here, other=0.0)
    minus = tl.load(g + i + size, mask=here, other=0.0)
    found = (tl.maximum(plus, minus) > above) & (tl.minimum(plus, minus) > both) & here
    if tl.max(found.to(tl.int32), axis=0) > 0:
        tl.store(index + take_places(counter, found), i, mask=found)


def high_pairs(conductance_us: Tensor, above_us: float, both_us: float) -> Tensor:
    size = conductance_us.numel() // 2
    index = torch.empty(size, dtype=torch.int64, device=conductance_us.device)
    if not size:
        return index
    counter = torch.zeros(1, dtype=torch.int64, device=conductance_us.device)
    _high_pairs[blocks(size, _BLOCK)](
        conductance_us, index, counter, size, above_us, both_us, BLOCK=_BLOCK
    )
    return in_order(index, counter)[0]
