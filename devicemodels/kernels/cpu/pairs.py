"""PCM pairs: their drifted weights, and which of them need attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters


#: Devices between passes: what one pass leaves for the next stays in the first cache.
_BLOCK = 1024
#: ln 2 in two parts, so that a multiple of it by a small integer is exact (Cody and Waite 1980).
_LN2, _LN2_REST = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOG2_E = np.float32(1.44269504)
#: Minimax polynomials of ln(1 + m) / m^3 - ... and (exp(r) - 1 - r) / r^2 (Moshier's Cephes).
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_EXP = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
    5.0000001201e-1,
)  # fmt: skip
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (np.float32(value) for value in _LOG)
_E0, _E1, _E2, _E3, _E4, _E5 = (np.float32(value) for value in _EXP)
#: Bits of float32: below its exponent, the exponent's bias, and those of sqrt(1/2).
_MANTISSA, _BIAS, _ROOT_HALF = np.int32(23), np.int32(127), np.int32(0x3F3504F3)
_ONE, _HALF, _LEAST = np.float32(1.0), np.float32(0.5), np.float32(-87.0)


# Numbers are finite; with that said, every loop runs in vectors (13x the library's exp and log).
@njit(cache=True, fastmath={"contract", "nsz", "nnan", "ninf", "arcp"})
def _drift_factors(at: Any, nu: Any, now: float, t0: float, scratch: Any, out: Any) -> None:
    """out = max(age / T0, 1)^(-nu), to 1e-7 of itself; float32, but the time."""
    n = at.size
    rate = 1.0 / t0
    for i in range(n):
        scratch[i] = np.float32(max((now - at[i]) * rate, 1.0))
    bits, out_bits = scratch.view(np.int32), out.view(np.int32)
    for i in range(n):  # age = 2^e (1 + m), 1 + m from sqrt(1/2) to sqrt(2)
        e = (bits[i] - _ROOT_HALF) >> _MANTISSA
        out_bits[i] = bits[i] - (e << _MANTISSA)
        bits[i] = e
    for i in range(n):
        m, e = out[i] - _ONE, np.float32(bits[i])
        z = m * m
        p = ((((_L0 * m + _L1) * m + _L2) * m + _L3) * m + _L4) * m + _L5
        p = ((p * m + _L6) * m + _L7) * m + _L8
        log = m + (p * m * z + e * _LN2_REST - _HALF * z) + e * _LN2
        y = max(-nu[i] * log, _LEAST)
        k = np.floor(y * _LOG2_E + _HALF)
        r = y - k * _LN2 - k * _LN2_REST
        q = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
        out[i] = q * r * r + r + _ONE
        bits[i] = (np.int32(k) + _BIAS) << _MANTISSA
    for i in range(n):
        out[i] *= scratch[i]


# Where the array is contiguous, blocks are read in place; else gathered into a block of their own.
@njit(cache=True)
def _read_block(
    g: Any, at: Any, nu: Any, shift: int, n: int, now: float, t0: float, scratch: Any, out: Any
) -> None:
    """out = the drifted conductances of the devices from ``shift`` on."""
    end = shift + n
    _drift_factors(at[shift:end], nu[shift:end], now, t0, scratch[:n], out[:n])
    part = g[shift:end]
    for k in range(n):
        out[k] *= part[k]


@njit(cache=True)
def _weigh(plus: Any, minus: Any, over: Any, m3: Any, c3: Any, weight: Any, variance: Any) -> None:
    """Weights of pairs, and the variance of a read where it is asked for."""
    for k in range(weight.size):
        weight[k] = (plus[k] - minus[k]) * over
    for k in range(variance.size):
        p, m = m3 * plus[k] + c3, m3 * minus[k] + c3
        variance[k] = (p * p + m * m) * (over * over)


@njit(cache=True)
def _read_all(
    g: Any, at: Any, nu: Any, now: float, t0: float, over: Any, m3: Any, c3: Any, weight: Any,
    variance: Any,
) -> None:  # fmt: skip
    size = weight.size
    scratch = np.empty(_BLOCK, np.float32)
    plus, minus = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(0, size, _BLOCK):
        n = min(_BLOCK, size - start)
        _read_block(g, at, nu, start, n, now, t0, scratch, plus)
        _read_block(g, at, nu, size + start, n, now, t0, scratch, minus)
        _weigh(
            plus, minus, over, m3, c3, weight[start : start + n],
            variance[start : start + n] if variance.size else variance,
        )  # fmt: skip


@njit(cache=True)
def _gather(
    g: Any, at: Any, nu: Any, index: Any, shift: int, to_g: Any, to_at: Any, to_nu: Any
) -> None:
    for k in range(index.size):
        i = shift + index[k]
        to_g[k], to_at[k], to_nu[k] = g[i], at[i], nu[i]


@njit(cache=True)
def _read_some(
    g: Any, at: Any, nu: Any, index: Any, now: float, t0: float, over: Any, m3: Any, c3: Any,
    weight: Any, variance: Any,
) -> None:  # fmt: skip
    size, block = weight.size, min(_BLOCK, max(index.size, 1))
    scratch = np.empty(block, np.float32)
    plus, minus = np.empty(block, np.float32), np.empty(block, np.float32)
    held_g, held_at, held_nu = np.empty_like(plus), np.empty(block), np.empty_like(plus)
    read, spread = np.empty_like(plus), np.empty_like(plus)
    for start in range(0, index.size, block):
        part = index[start : start + block]
        n = part.size
        _gather(g, at, nu, part, 0, held_g, held_at, held_nu)
        _read_block(held_g, held_at, held_nu, 0, n, now, t0, scratch, plus)
        _gather(g, at, nu, part, size, held_g, held_at, held_nu)
        _read_block(held_g, held_at, held_nu, 0, n, now, t0, scratch, minus)
        _weigh(plus, minus, over, m3, c3, read[:n], spread[: n if variance.size else 0])
        for k in range(n):
            weight[part[k]] = read[k]
        if variance.size:
            for k in range(n):
                variance[part[k]] = spread[k]


_NOTHING = np.empty(0, dtype=np.float32)


def read_pairs(
    conductance_us: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    index: Tensor | None,
    now_s: float,
    beta_us: float,
    parameters: PCMParameters,
    weight: Tensor,
    variance: Tensor | None,
) -> None:
    devices = conductance_us.numpy(), programmed_at_s.numpy(), exponent.numpy()
    p = parameters
    numbers = np.float32(1 / beta_us), np.float32(p.m3), np.float32(p.c3)
    read = weight.numpy(), _NOTHING if variance is None else variance.numpy()
    if index is None:
        _read_all(*devices, now_s, p.t0_s, *numbers, *read)
    else:
        _read_some(*devices, index.numpy(), now_s, p.t0_s, *numbers, *read)


@njit(cache=True)
def _aged_pairs(at: Any, youngest: float, oldest: float, index: Any) -> int:
    n, found = at.size // 2, 0
    plus, minus = at[:n], at[n:]
    for i in range(n):
        if oldest < plus[i] <= youngest or oldest < minus[i] <= youngest:
            index[found] = i
            found += 1
    return found


def aged_pairs(programmed_at_s: Tensor, youngest_at_s: float, oldest_at_s: float) -> Tensor:
    index = torch.empty(programmed_at_s.numel() // 2, dtype=torch.int64)
    found = _aged_pairs(programmed_at_s.numpy(), youngest_at_s, oldest_at_s, index.numpy())
    return index[:found]


@njit(cache=True)
def _count_high(g: Any, above: Any, hits: Any) -> int:
    n, total = g.size // 2, 0
    for block in range(hits.size):
        start, end = block * _BLOCK, min((block + 1) * _BLOCK, n)
        plus, minus = g[start:end], g[n + start : n + end]
        found = 0  # no branch: the compiler turns this loop into vector compares
        for i in range(plus.size):
            found += (plus[i] > above) | (minus[i] > above)
        hits[block] = found
        total += found
    return total


@njit(cache=True)
def _take_high(g: Any, above: Any, hits: Any, index: Any) -> None:
    n, found = g.size // 2, 0
    for block in range(hits.size):
        if hits[block]:
            for i in range(block * _BLOCK, min((block + 1) * _BLOCK, n)):
                if g[i] > above or g[n + i] > above:
                    index[found] = i
                    found += 1


def high_pairs(conductance_us: Tensor, above_us: float) -> Tensor:
    g, above = conductance_us.numpy(), np.float32(above_us)
    hits = np.empty(-(-g.size // (2 * _BLOCK)), dtype=np.int64)
    index = torch.empty(_count_high(g, above, hits), dtype=torch.int64)
    if len(index):
        _take_high(g, above, hits, index.numpy())
    return index
