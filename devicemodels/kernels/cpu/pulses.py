"""Pulses on PCM and on step devices, device by device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from torch import Tensor

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters
    from devicemodels.devices.step import StepResponse


@njit(cache=True)
def _tally(count: Any) -> tuple[int, int]:
    up, down = 0, 0
    for e in range(count.size):
        up += max(count[e], 0)
        down += max(-count[e], 0)
    return up, down


def tally(count: Tensor) -> tuple[int, int]:
    return _tally(count.numpy())


@njit(cache=True)
def _set_pulses(
    g: Any, pulses: Any, index: Any, count: Any, z: Any,
    m1: float, c1: float, a1: float, a: float, m2: float, c2: float, a2: float,
    g_min: float, g_max: float,
) -> None:  # fmt: skip
    draw = 0
    for e in range(index.size):
        i = index[e]
        value, done = np.float64(g[i]), pulses[i]
        for _ in range(count[e]):
            done += 1
            history = math.exp(-done / a)
            mean = m1 * value + c1 + a1 * history
            spread = max(m2 * value + c2 + a2 * history, 0.0)
            value = min(max(value + mean + spread * z[draw], g_min), g_max)
            draw += 1
        g[i] = value
        pulses[i] = done


def set_pulses(
    conductance_us: Tensor,
    pulses: Tensor,
    index: Tensor,
    count: Tensor,
    normals: Tensor,
    parameters: PCMParameters,
    repeats: bool = False,  # in their order anyway
) -> None:
    p = parameters
    _set_pulses(
        conductance_us.numpy(), pulses.numpy(), index.numpy(), count.numpy(), normals.numpy(),
        p.m1, p.c1, p.A1, p.a, p.m2, p.c2, p.A2, p.g_min, p.g_max,
    )  # fmt: skip


_KINDS = {"constant": 0, "linear": 1, "soft-bounds": 2, "exponential": 3}


@njit(cache=True)
def _step_pulses(
    w: Any, step_up: Any, step_down: Any, upper: Any, lower: Any, index: Any, count: Any,
    z: Any, spread: float, kind: int, k: Any,
) -> None:  # fmt: skip
    draw = 0
    for e in range(index.size):
        i = index[e]
        value, number = np.float64(w[i]), abs(count[e])
        up = count[e] > 0
        step = np.float64(step_up[i]) if up else -np.float64(step_down[i])
        high, low = np.float64(upper[i]), np.float64(lower[i])
        if kind == 0:
            value += step * (number + spread * math.sqrt(number) * z[e])
            w[i] = min(max(value, low), high)
            continue
        for _ in range(number):
            if kind == 1:
                scale = 1 - k[0] * value if up else 1 + k[1] * value
            elif kind == 2:
                scale = 1 - value / high if up else 1 - value / low
            else:
                x = 2 * k[4] * value / (high - low) + k[5]
                scale = 1 - (k[0] * math.exp(k[2] * x) if up else k[1] * math.exp(-k[3] * x))
            value += step * max(scale, 0.0) * (1 + spread * z[draw])
            value = min(max(value, low), high)
            draw += 1
        w[i] = value


def step_pulses(
    state: Tensor,
    step_up: Tensor,
    step_down: Tensor,
    upper: Tensor,
    lower: Tensor,
    index: Tensor,
    count: Tensor,
    normals: Tensor,
    spread: float,
    response: StepResponse,
    repeats: bool = False,  # in their order anyway
) -> None:
    _step_pulses(
        state.numpy(), step_up.numpy(), step_down.numpy(), upper.numpy(), lower.numpy(),
        index.numpy(), count.numpy(), normals.numpy(), spread, _KINDS[response.kind],
        response.constants,
    )  # fmt: skip
