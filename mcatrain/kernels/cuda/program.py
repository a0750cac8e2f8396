"""A whole update of PCM pairs without waiting for the device: chi, pulses, weights."""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
# A float without one would reach a kernel as float32.
import math
from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

from devicemodels.kernels.cuda.pairs import drifted, write_pair
from devicemodels.kernels.cuda.pulses import set_constants, set_once
from mcatrain.kernels.cuda.update import take_pulses

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters

#: Events of a program at a time; programs: the list's length is known on the device alone.
_BLOCK, _PROGRAMS = 128, 1024
_TURN = tl.constexpr(2 * math.pi * 2.0**-32)
_UNIT = tl.constexpr(2.0**-32)


@triton.jit
def _normal(seed, device, number):
    """Return a standard normal of each device and pulse number, by Philox and Box-Muller."""
    low, high = device.to(tl.uint32), (device >> 32).to(tl.uint32)
    k = low * 0 + number.to(tl.uint32)
    size, angle, _, _ = tl.philox(seed, low, high, k, low * 0)
    radius = tl.sqrt(-2.0 * tl.log((size.to(tl.float32) + 0.5) * _UNIT))
    return radius * tl.cos(angle.to(tl.float32) * _TURN)


@triton.jit(do_not_specialize=["seed"])
def _program(
    conductance, pulses, programmed_at, exponent, weight,
    variance, index, count, counters, size, seed: tl.int64, limit,
    now: tl.float64, rate: tl.float64, beta: tl.float32, m3: tl.float32, c3: tl.float32,
    m1: tl.float64, c1: tl.float64, A1: tl.float64, a: tl.float64, m2: tl.float64,
    c2: tl.float64, A2: tl.float64, g_min: tl.float64, g_max: tl.float64,
    NOISY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    events = tl.load(counters)
    if tl.load(counters + 2) > limit:
        events = events * 0
    for start in range(tl.program_id(0) * BLOCK, events, tl.num_programs(0) * BLOCK):
        e = start + tl.arange(0, BLOCK)
        here = e < events
        pair = tl.load(index + e, mask=here, other=0)
        signed = tl.load(count + e, mask=here, other=0)
        up, number = signed > 0, tl.abs(signed)
        i = tl.where(up, pair, pair + size)
        g = tl.load(conductance + i, mask=here, other=0.0).to(tl.float64)
        done = tl.load(pulses + i, mask=here, other=0)
        for k in range(0, tl.max(number, axis=0)):
            z = _normal(seed, i, done * 0 + k).to(tl.float64)
            p = (done + 1 + k).to(tl.float64)
            after = set_once(g, p, z, m1, c1, A1, a, m2, c2, A2, g_min, g_max)
            g = tl.where(number > k, after, g)
        set_to = g.to(tl.float32)
        tl.store(conductance + i, set_to, mask=here)
        tl.store(pulses + i, done + number.to(tl.int32), mask=here)
        tl.store(programmed_at + i, (g * 0.0) + now, mask=here)
        # A device just programmed has not drifted; its partner has.
        other = tl.where(up, pair + size, pair)
        rest = drifted(conductance, programmed_at, exponent, other, here, now, rate)
        plus, minus = tl.where(up, set_to, rest), tl.where(up, rest, set_to)
        write_pair(weight, variance, pair, here, plus, minus, beta, m3, c3, NOISY)


def program_pairs(
    chi: Tensor,
    gradient: Tensor | tuple[Tensor, Tensor] | None,
    scale: float,
    epsilon: float,
    conductance_us: Tensor,
    pulses: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    now_s: float,
    beta_us: float,
    parameters: "PCMParameters",
    seed: int,
    limit: int,
    weight: Tensor,
    variance: Tensor | None,
) -> Tensor:
    index, count, counters = take_pulses(chi, gradient, scale, epsilon)
    p, size = parameters, chi.numel()
    if size:
        _program[(min(_PROGRAMS, triton.cdiv(size, _BLOCK)),)](
            conductance_us, pulses, programmed_at_s, exponent, weight,
            weight if variance is None else variance, index, count, counters, size, seed, limit,
            now_s, 1 / p.t0_s, beta_us, p.m3, p.c3, *set_constants(p), NOISY=variance is not None,
            BLOCK=_BLOCK,
        )  # fmt: skip
    return counters
