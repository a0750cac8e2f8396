"""The filter of set-response in Numba: a sequence's likelihood, and the sweep back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from calibration.models.quadrature import hermite
from calibration.models.set_filter import FLOOR, HALF, INSIDE, RESOLUTION, TINY, TOP

#: Places of the constants in a row of ``theta``; a gradient has the device's own factor in the
#: place of the spread.
M1, C1, A1, A, M2, C2, A2, M3, C3, SPREAD, LOW, HIGH, MEAN, STD = range(14)
#: Nodes over the belief before a pulse.
DRAWN = 3
_X, _W = np.polynomial.legendre.leggauss(INSIDE)
_D, _P = hermite(DRAWN)
_LOG_ROOT = 0.5 * math.log(2 * math.pi)
_LOG_T4 = math.log(3 / (4 * math.sqrt(2)))
ALL = INSIDE + 2
#: Reads of a block up to which their noise is multiplied; e^-_NOTHING of the rest is nothing.
_FEW, _NOTHING = 4, 45.0
#: Of sums and products no more than rounding may differ.
FAST = {"contract", "nsz", "arcp", "reassoc", "nnan"}
#: Of exp(x) = exp(x / 4096)^4096, and of its series.
_SMALL = 1 / 4096
_E2, _E3, _E4, _E5, _E6, _E7, _E8 = (1 / math.factorial(k) for k in range(2, 9))


@njit(nogil=True, fastmath=FAST)
def _exp(x: float) -> float:
    """Return exp(x) for x at or below 0 within 1e-12: without a branch, so loops use SIMD."""
    t = (x if x > -700.0 else -700.0) * _SMALL
    p = _E5 + t * (_E6 + t * (_E7 + t * _E8))
    p = 1 + t * (1 + t * (_E2 + t * (_E3 + t * (_E4 + t * p))))
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    return p


@njit(nogil=True, fastmath=FAST)
def _log_below(z: float, heavy: bool) -> float:
    """Return ln of the chance that a deviate of unit variance is below z."""
    if heavy:
        root = math.sqrt(2 + z * z)
        c = z / root
        plus = 1 + c if z > 0 else 2 / ((root - z) * root)
        return math.log(plus * plus * (2 - c) / 4)
    if z > -30:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2.0)))
    q = 1 / (z * z)
    series = math.log1p(-q * (1 - q * (3 - q * (15 - q * (105 - q * 945)))))
    return -z * z / 2 - math.log(-z) - _LOG_ROOT + series


@njit(nogil=True, fastmath=FAST)
def forward(
    theta: Any, f: float, number: Any, mean: Any, square: Any, zeros: Any, blocks: int,
    heavy: bool, kept: bool, belief: Any, ends: Any, g: Any, pairs: Any, edges: Any,
) -> float:  # fmt: skip
    """Return ln p of a sequence, and leave what the way back needs (if ``kept``).

    belief (blocks + 1, 2): mean and variance before each block; ends (blocks, 2) of the range of
    the nodes g (blocks, ALL); pairs
    (blocks, DRAWN, ALL): shares of drawn starts at nodes; edges (blocks, 2, DRAWN): the
    densities at the bounds.
    """
    total = 0.0
    m, s = np.empty(DRAWN), np.empty(DRAWN)
    here, level, scale = np.empty(ALL), np.empty(ALL), np.empty(ALL)
    noise, mass, x = np.empty(ALL), np.empty(ALL), np.empty(DRAWN * ALL)
    edge, m3, c3 = np.empty((2, DRAWN)), theta[M3], theta[C3]
    for k in range(blocks):
        if k == 0:
            drawn, low, high = 1, 0.0, TOP
            m[0], s[0] = theta[MEAN], math.sqrt(theta[STD] ** 2 + TINY)
            centre, variance = m[0], s[0] ** 2
        else:
            drawn, low, high = DRAWN, theta[LOW], theta[HIGH]
            history, wide = math.exp(-k / theta[A]), math.sqrt(belief[k, 1])
            centre = 0.0
            for i in range(DRAWN):
                start = belief[k, 0] + wide * _D[i]
                m[i] = start + f * (theta[M1] * start + theta[C1] + theta[A1] * history)
                s[i] = f * max(theta[M2] * start + theta[C2] + theta[A2] * history, FLOOR)
                centre += _P[i] * m[i]
            variance = 0.0
            for i in range(DRAWN):
                variance += _P[i] * (s[i] ** 2 + (m[i] - centre) ** 2)
        n, y, n0 = number[k], mean[k], zeros[k]
        at, r2 = min(max(y, low), high), 0.0
        for _ in range(2):
            r2 = ((theta[M3] * at + theta[C3]) ** 2 + RESOLUTION**2) / (n + n0)
            at = min(max((centre * r2 + variance * y) / (variance + r2), low), high)
        reach = HALF * math.sqrt(variance * r2 / (variance + r2))
        a, b = max(low, at - reach), min(high, at + reach)
        ends[k, 0], ends[k, 1] = a, b
        middle, half = (a + b) / 2, max((b - a) / 2, TINY)
        for j in range(INSIDE):
            here[j] = middle + half * _X[j]
            scale[j] = half * _W[j]
        here[INSIDE], here[INSIDE + 1] = low, high
        scale[INSIDE] = scale[INSIDE + 1] = 1.0
        around = square[k]
        for j in range(ALL):
            r2 = (m3 * here[j] + c3) ** 2 + RESOLUTION**2
            noise[j] = 1 / math.sqrt(r2)
            level[j] = -(around + n * (y - here[j]) ** 2) / (2 * r2)
        if n <= _FEW:  # products are quicker than logarithms
            for _ in range(n):
                for j in range(ALL):
                    scale[j] *= noise[j]
        else:
            for j in range(ALL):
                level[j] += n * math.log(noise[j])
        if n0:
            for j in range(ALL):
                level[j] += n0 * _log_below(-here[j] * noise[j], False)
        tailed = heavy and k > 0
        for i in range(drawn):
            rate, start, base = 1 / s[i], m[i], i * ALL
            for j in range(ALL):
                z = (here[j] - start) * rate
                x[base + j] = level[j] - z * z / 2
            if tailed:
                for j in range(ALL):
                    z = (here[j] - start) * rate
                    x[base + j] = level[j] - 2.5 * math.log(1 + z * z / 2)
        top = x[0]
        for i in range(drawn):
            for j in range(INSIDE):
                top = max(top, x[i * ALL + j])
        lead = _LOG_T4 if tailed else -_LOG_ROOT
        for e in range(2):
            sign = 1 - 2 * e
            for i in range(drawn):
                q = i * ALL + INSIDE + e
                edge[e, i] = x[q]
                z = sign * (here[INSIDE + e] - m[i]) / s[i]
                # Where both the density and the chance beyond it are nothing, neither is needed.
                if tailed or z > 0 or x[q] > top - _NOTHING:
                    x[q] = level[INSIDE + e] + _log_below(z, tailed) - lead + math.log(s[i])
                    top = max(top, x[q])
        for q in range(drawn * ALL):
            x[q] = _exp(x[q] - top)
        for j in range(ALL):
            mass[j] = 0.0
        for i in range(drawn):
            weight, base = (1.0 if k == 0 else _P[i]) / s[i], i * ALL
            for j in range(ALL):
                x[base + j] *= weight * scale[j]
                mass[j] += x[base + j]
            for e in range(2):
                edge[e, i] = weight * scale[INSIDE + e] * math.exp(min(edge[e, i] - top, 600.0))
        chance, first, second = 0.0, 0.0, 0.0
        for j in range(ALL):
            chance += mass[j]
            first += mass[j] * here[j]
        first /= chance
        for j in range(ALL):
            second += mass[j] * (here[j] - first) ** 2
        second /= chance
        if kept:
            for j in range(ALL):
                g[k, j] = here[j]
            for i in range(drawn):
                for j in range(ALL):
                    pairs[k, i, j] = x[i * ALL + j] / chance
                for e in range(2):
                    edges[k, e, i] = edge[e, i] / chance
        top += lead - n * _LOG_ROOT
        belief[k + 1, 0], belief[k + 1, 1] = first, second + TINY
        total += math.log(chance) + top
    return total


@njit(nogil=True, fastmath=FAST)
def backward(
    theta: Any, f: float, number: Any, mean: Any, square: Any, zeros: Any, blocks: int,
    heavy: bool, belief: Any, ends: Any, g: Any, pairs: Any, edges: Any, slope: Any,
) -> None:  # fmt: skip
    """Add the derivatives of ln p of a sequence to ``slope`` (14,), the sweep back."""
    by_mean, by_variance = 0.0, 0.0
    m, s = np.empty(DRAWN), np.empty(DRAWN)
    by_m, by_s = np.empty(DRAWN), np.empty(DRAWN)
    for k in range(blocks - 1, -1, -1):
        drawn, history, wide = 1, 0.0, 0.0
        if k == 0:
            m[0], s[0] = theta[MEAN], math.sqrt(theta[STD] ** 2 + TINY)
            low, high = 0.0, TOP
        else:
            drawn, low, high = DRAWN, theta[LOW], theta[HIGH]
            history, wide = math.exp(-k / theta[A]), math.sqrt(belief[k, 1])
            for i in range(DRAWN):
                start = belief[k, 0] + wide * _D[i]
                m[i] = start + f * (theta[M1] * start + theta[C1] + theta[A1] * history)
                s[i] = f * max(theta[M2] * start + theta[C2] + theta[A2] * history, FLOOR)
        for i in range(drawn):
            by_m[i] = by_s[i] = 0.0
        n, y, n0 = number[k], mean[k], zeros[k]
        middle = belief[k + 1, 0]
        spread = belief[k + 1, 1] - TINY
        a, b = ends[k]
        half = (b - a) / 2
        by_low = by_high = by_a = by_b = by_half = 0.0
        for j in range(ALL):
            here = g[k, j]
            off = here - middle
            share = 0.0
            for i in range(drawn):
                share += pairs[k, i, j]
            weight = 1 + by_mean * off + by_variance * (off * off - spread)
            # Of the noise of the read.
            q = theta[M3] * here + theta[C3]
            r2 = q * q + RESOLUTION**2
            r = math.sqrt(r2)
            by_r = -n / r + (square[k] + n * (y - here) ** 2) / (r2 * r)
            by_here = n * (y - here) / r2
            if n0:
                z = -here / r
                hazard = n0 * math.exp(-z * z / 2 - _LOG_ROOT - _log_below(z, False))
                by_r += hazard * here / r2
                by_here -= hazard / r
            by_q = by_r * q / r
            slope[M3] += weight * share * by_q * here
            slope[C3] += weight * share * by_q
            by_here = weight * share * (by_here + by_q * theta[M3])
            by_here += share * (by_mean + 2 * by_variance * off)
            if j < INSIDE:
                for i in range(drawn):
                    z = (here - m[i]) / s[i]
                    fall = 2.5 * z / (1 + z * z / 2) if heavy and k else z
                    t = weight * pairs[k, i, j] / s[i]
                    by_m[i] += t * fall
                    by_s[i] += t * (z * fall - 1)
                    by_here -= t * fall
                by_half += weight * share
                by_a += (1 - _X[j]) / 2 * by_here
                by_b += (1 + _X[j]) / 2 * by_here
            else:
                sign = 1.0 if j == INSIDE else -1.0
                for i in range(drawn):
                    t = sign * weight * edges[k, j - INSIDE, i]
                    by_here += t
                    by_m[i] -= t
                    by_s[i] -= t * (here - m[i]) / s[i]
                if sign > 0:
                    by_low += by_here
                else:
                    by_high += by_here
        if k == 0:
            slope[MEAN] += by_m[0]
            slope[STD] += by_s[0] * theta[STD] / s[0]
            return
        if half > TINY:
            if a == low:
                by_low += by_a - by_half / (2 * half)
            if b == high:
                by_high += by_b + by_half / (2 * half)
        slope[LOW] += by_low
        slope[HIGH] += by_high
        by_mean = by_variance = 0.0
        for i in range(DRAWN):
            start = belief[k, 0] + wide * _D[i]
            deviation = theta[M2] * start + theta[C2] + theta[A2] * history
            if deviation <= FLOOR:
                slope[SPREAD] += by_s[i] * FLOOR
                by_s[i] = 0.0
            mu = theta[M1] * start + theta[C1] + theta[A1] * history
            slope[SPREAD] += by_m[i] * mu + by_s[i] * deviation
            dm, ds = f * by_m[i], f * by_s[i]
            slope[M1] += dm * start
            slope[C1] += dm
            slope[A1] += dm * history
            slope[M2] += ds * start
            slope[C2] += ds
            slope[A2] += ds * history
            slope[A] += (dm * theta[A1] + ds * theta[A2]) * history * k / theta[A] ** 2
            by_start = by_m[i] + dm * theta[M1] + ds * theta[M2]
            by_mean += by_start
            by_variance += by_start * _D[i] / (2 * wide)
