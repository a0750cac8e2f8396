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
def send_pulses(
    g: Any, pulses: Any, index: Any, count: Any, z: Any,
    m1: float, c1: float, a1: float, a: float, m2: float, c2: float, a2: float,
    g_min: float, g_max: float,
) -> None:  # fmt: skip
    """`reference.set_pulses` of numpy arrays."""
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


def set_constants(p: PCMParameters) -> Any:
    """Return what `send_pulses` is told of the devices."""
    return p.m1, p.c1, p.A1, p.a, p.m2, p.c2, p.A2, p.g_min, p.g_max


def set_pulses(
    conductance_us: Tensor,
    pulses: Tensor,
    index: Tensor,
    count: Tensor,
    normals: Tensor,
    parameters: PCMParameters,
    repeats: bool = False,  # in their order anyway
) -> None:
    send_pulses(
        conductance_us.numpy(), pulses.numpy(), index.numpy(), count.numpy(), normals.numpy(),
        *set_constants(parameters),
    )  # fmt: skip


_KINDS = {"linear": 1, "soft-bounds": 2, "exponential": 3}


@njit(cache=True)
def _constant_steps(w: Any, devices: Any, index: Any, count: Any, z: Any, spread: float) -> None:
    for e in range(index.size):
        i, number = index[e], np.float64(abs(count[e]))
        # The step is taken by its place and not by a branch, which could not be foreseen.
        step = np.float64(devices[i, np.int64(count[e] > 0)])
        moved = np.float32(w[i] + step * (number + spread * math.sqrt(number) * z[e]))
        w[i] = min(max(moved, devices[i, 2]), devices[i, 3])


@njit(cache=True)
def _step_pulses(
    w: Any, devices: Any, index: Any, count: Any, z: Any, spread: float, kind: int, k: Any
) -> None:
    draw = 0
    for e in range(index.size):
        i, up = index[e], count[e] > 0
        value, step = np.float64(w[i]), np.float64(devices[i, np.int64(up)])
        low, high = np.float64(devices[i, 2]), np.float64(devices[i, 3])
        for _ in range(abs(count[e])):
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
    devices: Tensor,
    index: Tensor,
    count: Tensor,
    normals: Tensor,
    spread: float,
    response: StepResponse,
    repeats: bool = False,  # in their order anyway
) -> None:
    n = state.numpy(), devices.numpy(), index.numpy(), count.numpy(), normals.numpy()
    if response.kind == "constant":
        _constant_steps(n[0], n[1], n[2], n[3], n[4], spread)
    else:
        kind, constants = _KINDS[response.kind], response.constants
        _step_pulses(n[0], n[1], n[2], n[3], n[4], spread, kind, constants)
