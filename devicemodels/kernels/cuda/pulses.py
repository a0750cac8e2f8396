"""Pulses on PCM and on step devices, one lane an event, in float64 as the reference."""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
# A float without one would reach a kernel as float32.
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from devicemodels.kernels.cuda.lists import blocks
from devicemodels.pulses import rounds

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters
    from devicemodels.devices.step import StepResponse

_BLOCK = 256


@triton.jit
def set_once(g, number, z, m1, c1, A1, a, m2, c2, A2, g_min, g_max):
    """Return the conductance, float64, after the SET pulse ``number`` since RESET."""
    history = tl.exp(-number.to(tl.float64) / a)
    mean = m1 * g + c1 + A1 * history
    spread = tl.maximum(m2 * g + c2 + A2 * history, 0.0)
    return tl.minimum(tl.maximum(g + mean + spread * z.to(tl.float64), g_min), g_max)


@triton.jit
def set_some(
    conductance, pulses, i, number, first, normals, here,
    m1, c1, A1, a, m2, c2, A2, g_min, g_max,
):  # fmt: skip
    """Send ``number`` SET pulses to the devices ``i`` and return their conductance, float32.

    first: pointers to the place of the first normal of each. Constants are float64.
    """
    draw = normals + tl.load(first, mask=here, other=0)
    g = tl.load(conductance + i, mask=here, other=0.0).to(tl.float64)
    done = tl.load(pulses + i, mask=here, other=0)
    for k in range(0, tl.max(number, axis=0)):
        live = number > k
        z = tl.load(draw + k, mask=live, other=0.0)
        risen = set_once(g, done + 1 + k, z, m1, c1, A1, a, m2, c2, A2, g_min, g_max)
        g = tl.where(live, risen, g)
    set_to = g.to(tl.float32)
    tl.store(conductance + i, set_to, mask=here)
    tl.store(pulses + i, done + number.to(tl.int32), mask=here)
    return set_to


@triton.jit(do_not_specialize=["events"])
def _set_pulses(
    conductance, pulses, index, count, first, normals, events,
    m1: tl.float64, c1: tl.float64, A1: tl.float64, a: tl.float64, m2: tl.float64,
    c2: tl.float64, A2: tl.float64, g_min: tl.float64, g_max: tl.float64, BLOCK: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = e < events
    i = tl.load(index + e, mask=here, other=0)
    number = tl.load(count + e, mask=here, other=0)
    set_some(
        conductance, pulses, i, number, first + e, normals, here,
        m1, c1, A1, a, m2, c2, A2, g_min, g_max,
    )  # fmt: skip


def set_pulses(
    conductance_us: Tensor,
    pulses: Tensor,
    index: Tensor,
    count: Tensor,
    normals: Tensor,
    parameters: "PCMParameters",
    repeats: bool = False,
) -> None:
    for device, number, first in _launches(index, count, count.cumsum(0) - count, repeats):
        _set_pulses[blocks(len(device), _BLOCK)](
            conductance_us, pulses, device, number, first, normals, len(device),
            *set_constants(parameters), BLOCK=_BLOCK,
        )  # fmt: skip


def _launches(
    index: Tensor, count: Tensor, first: Tensor, repeats: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the events in parts with no device twice, to be applied one after the other."""
    if repeats:
        for part in rounds(index):
            yield index[part], count[part], first[part]
    elif len(index):
        yield index, count, first


def set_constants(p: "PCMParameters") -> tuple[float, ...]:
    """Return the constants of `set_some` in its order."""
    return p.m1, p.c1, p.A1, p.a, p.m2, p.c2, p.A2, p.g_min, p.g_max


@triton.jit
def _scale(
    w, up, high, low,
    k0, k1, k2, k3, k4, k5, KIND: tl.constexpr,
):  # fmt: skip
    if KIND == "linear":
        scale = tl.where(up, 1 - k0 * w, 1 + k1 * w)
    elif KIND == "soft-bounds":
        scale = 1 - w / tl.where(up, high, low)
    else:
        z = 2 * k4 * w / (high - low) + k5
        scale = 1 - tl.where(up, k0 * tl.exp(k2 * z), k1 * tl.exp(-k3 * z))
    return tl.maximum(scale, 0.0)


@triton.jit(do_not_specialize=["events"])
def _step_pulses(
    state, devices, index, count, first, normals, events, spread: tl.float64,
    k0: tl.float64, k1: tl.float64, k2: tl.float64, k3: tl.float64, k4: tl.float64,
    k5: tl.float64, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = e < events
    i = tl.load(index + e, mask=here, other=0)
    signed = tl.load(count + e, mask=here, other=0)
    draw = tl.load(first + e, mask=here, other=0)
    up, number = signed > 0, tl.abs(signed)
    w = tl.load(state + i, mask=here, other=0.0).to(tl.float64)
    step = tl.load(devices + 4 * i + up.to(tl.int64), mask=here, other=0.0).to(tl.float64)
    low = tl.load(devices + 4 * i + 2, mask=here, other=-1.0).to(tl.float64)
    high = tl.load(devices + 4 * i + 3, mask=here, other=1.0).to(tl.float64)
    if KIND == "constant":
        z = tl.load(normals + draw, mask=here, other=0.0).to(tl.float64)
        n = number.to(tl.float64)
        w = tl.minimum(tl.maximum(w + step * (n + spread * tl.sqrt(n) * z), low), high)
    else:
        for k in range(0, tl.max(number, axis=0)):
            live = number > k
            z = tl.load(normals + draw + k, mask=live, other=0.0).to(tl.float64)
            scale = _scale(w, up, high, low, k0, k1, k2, k3, k4, k5, KIND)
            moved = tl.minimum(tl.maximum(w + step * scale * (1 + spread * z), low), high)
            w = tl.where(live, moved, w)
    tl.store(state + i, w.to(tl.float32), mask=here)


def step_pulses(
    state: Tensor,
    devices: Tensor,
    index: Tensor,
    count: Tensor,
    normals: Tensor,
    spread: float,
    response: "StepResponse",
    repeats: bool = False,
) -> None:
    draws = torch.ones_like(count) if response.kind == "constant" else count.abs()
    for device, number, first in _launches(index, count, draws.cumsum(0) - draws, repeats):
        _step_pulses[blocks(len(device), _BLOCK)](
            state, devices, device, number, first, normals, len(device), spread,
            *response.constants, KIND=response.kind, BLOCK=_BLOCK,
        )  # fmt: skip
