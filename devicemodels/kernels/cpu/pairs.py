"""PCM pairs: their drifted weights, and which of them need attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from devicemodels.kernels.cpu.pulses import send_pulses, set_constants
from devicemodels.kernels.cpu.vectors import FAST, LEAST, exp, log, to_bfloat16
from devicemodels.kernels.reference import DUE_BLOCK

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters
    from devicemodels.pulses import PulseEvents


#: Weights between passes: what one pass leaves for the next stays in the first cache.
_BLOCK = 1024
#: No time left can be longer [T0]; no exponent that matters is smaller.
_FAR, _FLAT = np.float32(1e30), np.float32(1e-12)
_ONE, _ZERO = np.float32(1.0), np.float32(0.0)


# (Checks for a division by zero would keep the loop out of vectors.)
@njit(cache=True, fastmath=FAST, error_model="numpy")
def _drifted(
    g: Any, at: Any, nu: Any, now: float, t0: float, tolerance: Any, left: Any, out: Any
) -> None:
    """out = g max(age / T0, 1)^(-nu), the factor to 1e-7 of itself; float32, but the time.

    left: lowered to how long [T0] the factor stays within the tolerance.
    """
    n = out.size
    rate = 1.0 / t0
    for i in range(n):  # apart: half as many float64 fit into a vector
        out[i] = np.float32((now - at[i]) * rate)
    for i in range(n):
        age = max(out[i], _ONE)
        stays = max(_ONE - out[i], _ZERO) + tolerance * age / max(nu[i], _FLAT)
        left[i] = min(left[i], stays)
        out[i] = g[i] * exp(max(-nu[i] * log(age), LEAST))


@njit(cache=True)
def _weigh(plus: Any, minus: Any, over: Any, m3: Any, c3: Any, weight: Any, variance: Any) -> None:
    """Weights of pairs, and the variance of a read where it is asked for."""
    for k in range(weight.size):
        weight[k] = (plus[k] - minus[k]) * over
    for k in range(variance.size):
        p, m = m3 * plus[k] + c3, m3 * minus[k] + c3
        variance[k] = to_bfloat16((p * p + m * m) * (over * over))


@njit(cache=True, fastmath=FAST)
def _least(values: Any) -> Any:
    """Return the least of the values, which are overwritten: halves in vectors, not one by one."""
    n = values.size
    while n > 1:
        half = (n + 1) // 2
        for k in range(n - half):
            values[k] = min(values[k], values[k + half])
        n = half
    return values[0]


@njit(cache=True, inline="always")
def _in_float32(constants: Any) -> Any:
    a, b, c, d = constants
    return np.float32(a), np.float32(b), np.float32(c), np.float32(d)


@njit(cache=True)
def _read_due(
    g: Any, at: Any, nu: Any, now: float, t0: float, constants: Any, ahead: float, weight: Any,
    variance: Any, due: Any,
) -> float:  # fmt: skip
    tolerance, over, m3, c3 = _in_float32(constants)
    size, until, shortest = weight.size, now + ahead, np.inf
    left = np.empty(_BLOCK, np.float32)
    plus, minus = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    block = 0
    while block < due.size:
        first = block
        while block < due.size and due[block] < until and (block - first) * DUE_BLOCK < _BLOCK:
            block += 1
        if block == first:
            block += 1
            continue
        start = first * DUE_BLOCK
        end = min(block * DUE_BLOCK, size)
        n = end - start
        left[:n] = _FAR
        for shift, out in ((0, plus), (size, minus)):
            a, b = start + shift, end + shift
            _drifted(g[a:b], at[a:b], nu[a:b], now, t0, tolerance, left[:n], out[:n])
        _weigh(
            plus, minus, over, m3, c3, weight[start : start + n],
            variance[start : start + n] if variance.size else variance,
        )  # fmt: skip
        for done in range(first, block):
            k = done * DUE_BLOCK - start
            stays = t0 * np.float64(_least(left[k : min(k + DUE_BLOCK, n)]))
            due[done] = now + stays
            shortest = min(shortest, stays)
    return shortest


@njit(cache=True)
def _read_index(
    g: Any, at: Any, nu: Any, index: Any, now: float, t0: float, tolerance: Any, left: Any,
    plus: Any, minus: Any,
) -> None:  # fmt: skip
    """Write the drifted conductances of the pairs ``index``, gathered side by side."""
    n, size = index.size, g.size // 2
    held_g, held_at, held_nu = np.empty(n, np.float32), np.empty(n), np.empty(n, np.float32)
    for shift, out in ((0, plus), (size, minus)):
        for k in range(n):
            i = shift + index[k]
            held_g[k], held_at[k], held_nu[k] = g[i], at[i], nu[i]
        _drifted(held_g, held_at, held_nu, now, t0, tolerance, left, out)


@njit(cache=True)
def _read_some(
    g: Any, at: Any, nu: Any, index: Any, now: float, t0: float, constants: Any, weight: Any,
    variance: Any, due: Any,
) -> float:  # fmt: skip
    tolerance, over, m3, c3 = _in_float32(constants)
    shortest = np.inf
    block = min(_BLOCK, max(index.size, 1))
    plus, minus = np.empty(block, np.float32), np.empty(block, np.float32)
    left, read = np.empty(block, np.float32), np.empty(block, np.float32)
    spread = np.empty(block, np.int16)
    for start in range(0, index.size, block):
        part = index[start : start + block]
        n = part.size
        left[:n] = _FAR
        _read_index(g, at, nu, part, now, t0, tolerance, left[:n], plus[:n], minus[:n])
        _weigh(plus, minus, over, m3, c3, read[:n], spread[: n if variance.size else 0])
        for k in range(n):
            weight[part[k]] = read[k]
            b = part[k] // DUE_BLOCK
            stays = t0 * np.float64(left[k])
            due[b] = min(due[b], now + stays)
            shortest = min(shortest, stays)
        if variance.size:
            for k in range(n):
                variance[part[k]] = spread[k]
    return shortest


@njit(cache=True)
def _pulse_and_read(
    g: Any, pulses: Any, at: Any, nu: Any, index: Any, count: Any, z: Any, response: Any,
    now: float, t0: float, constants: Any, weight: Any, variance: Any, due: Any,
) -> None:  # fmt: skip
    size = g.size // 2
    device, number = np.empty_like(index), np.empty_like(count)
    for e in range(index.size):
        device[e] = index[e] + (size if count[e] < 0 else 0)
        number[e] = abs(count[e])
        at[device[e]] = now
    send_pulses(g, pulses, device, number, z, *response)
    _read_some(g, at, nu, index, now, t0, constants, weight, variance, due)


_NOTHING = np.empty(0, dtype=np.int16)


def pulse_pairs(
    conductance_us: Tensor,
    pulses: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    events: PulseEvents,
    normals: Tensor,
    now_s: float,
    beta_us: float,
    parameters: PCMParameters,
    tolerance: float,
    _ahead_s: float,
    *caches: Any,
) -> None:
    _pulse_and_read(
        conductance_us.numpy(), pulses.numpy(), programmed_at_s.numpy(), exponent.numpy(),
        events.index.numpy(), events.count.numpy(), normals.numpy(), set_constants(parameters),
        now_s, parameters.t0_s, _read_constants(beta_us, parameters, tolerance), *_arrays(*caches),
    )  # fmt: skip


def _read_constants(beta_us: float, p: PCMParameters, tolerance: float) -> tuple[float, ...]:
    """Return what `_in_float32` takes."""
    return float(tolerance), 1 / beta_us, p.m3, p.c3


def _arrays(weight: Tensor, variance: Tensor | None, due_s: Tensor) -> Any:
    spread = _NOTHING if variance is None else variance.view(torch.int16).numpy()
    return weight.numpy(), spread, due_s.numpy()


def read_pairs(
    conductance_us: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    index: Tensor | None,
    now_s: float,
    beta_us: float,
    parameters: PCMParameters,
    tolerance: float,
    ahead_s: float,
    weight: Tensor,
    variance: Tensor | None,
    due_s: Tensor,
) -> float:
    devices = conductance_us.numpy(), programmed_at_s.numpy(), exponent.numpy()
    when = now_s, parameters.t0_s
    constants = _read_constants(beta_us, parameters, tolerance)
    out = _arrays(weight, variance, due_s)
    if index is None:
        return float(_read_due(*devices, *when, constants, ahead_s, *out))
    return float(_read_some(*devices, index.numpy(), *when, constants, *out))


@njit(cache=True)
def _count_high(g: Any, above: Any, both: Any, hits: Any) -> int:
    n, total = g.size // 2, 0
    for block in range(hits.size):
        start, end = block * _BLOCK, min((block + 1) * _BLOCK, n)
        plus, minus = g[start:end], g[n + start : n + end]
        found = 0  # no branch: the compiler turns this loop into vector compares
        for i in range(plus.size):
            found += (max(plus[i], minus[i]) > above) & (min(plus[i], minus[i]) > both)
        hits[block] = found
        total += found
    return total


@njit(cache=True)
def _take_high(g: Any, above: Any, both: Any, hits: Any, index: Any) -> None:
    n, found = g.size // 2, 0
    for block in range(hits.size):
        if hits[block]:
            for i in range(block * _BLOCK, min((block + 1) * _BLOCK, n)):
                if max(g[i], g[n + i]) > above and min(g[i], g[n + i]) > both:
                    index[found] = i
                    found += 1


def high_pairs(conductance_us: Tensor, above_us: float, both_us: float) -> Tensor:
    g, above, both = conductance_us.numpy(), np.float32(above_us), np.float32(both_us)
    hits = np.empty(-(-g.size // (2 * _BLOCK)), dtype=np.int64)
    index = torch.empty(_count_high(g, above, both, hits), dtype=torch.int64)
    if len(index):
        _take_high(g, above, both, hits, index.numpy())
    return index


@njit(cache=True)
def _saturated(
    g: Any, at: Any, nu: Any, index: Any, now: float, t0: float, m3: Any, c3: Any, z: Any,
    above: Any, below: float, found: Any, difference: Any,
) -> int:  # fmt: skip
    block = min(_BLOCK, max(index.size, 1))
    plus, minus = np.empty(block, np.float32), np.empty(block, np.float32)
    left = np.full(block, _FAR)
    total = 0
    for start in range(0, index.size, block):
        part = index[start : start + block]
        n = part.size
        _read_index(g, at, nu, part, now, t0, _ZERO, left[:n], plus[:n], minus[:n])
        if z.size:
            for k in range(n):
                plus[k] += (m3 * plus[k] + c3) * z[0, start + k]
                minus[k] += (m3 * minus[k] + c3) * z[1, start + k]
        for k in range(n):
            apart = np.float64(plus[k] - minus[k])
            if max(plus[k], minus[k]) > above and abs(apart) < below:
                found[total], difference[total] = part[k], apart
                total += 1
    return total


_NO_NORMALS = np.empty((2, 0), dtype=np.float32)


def saturated_pairs(
    conductance_us: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    index: Tensor,
    now_s: float,
    parameters: PCMParameters,
    above_us: float,
    below_us: float,
    normals: Tensor | None,
) -> tuple[Tensor, Tensor]:
    found = torch.empty(index.numel(), dtype=torch.int64)
    difference = torch.empty(index.numel(), dtype=torch.float64)
    if not index.numel():
        return found, difference
    p = parameters
    total = _saturated(
        conductance_us.numpy(), programmed_at_s.numpy(), exponent.numpy(), index.numpy(), now_s,
        p.t0_s, np.float32(p.m3), np.float32(p.c3),
        _NO_NORMALS if normals is None else normals.numpy(), np.float32(above_us), below_us,
        found.numpy(), difference.numpy(),
    )  # fmt: skip
    return found[:total], difference[:total]
