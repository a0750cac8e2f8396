"""Standard normals in vectors: counters through Philox, then Box and Muller's transform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from devicemodels.kernels.cpu.vectors import FAST, log, sine_cosine

#: Counters between passes; each gives four numbers.
_BLOCK = 256
_LOW, _WORD = np.uint64(0xFFFFFFFF), np.uint64(32)
#: Multipliers and key increments of Philox4x32.
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
#: A size in units of 2^-31; half of one keeps it above 0.
_UNIT, _HALF, _TWO = np.float32(2.0**-31), np.float32(0.5), np.float32(2.0)
_ZERO, _ONE_BIT = np.float32(0.0), np.uint32(1)
#: An angle in units of 2^-32 turns [rad], an eighth of a turn in these units.
_ANGLE, _EIGHTH = np.float32(2 * math.pi * 2.0**-32), np.int32(1 << 29)
_WITHIN, _QUARTER, _ODD, _SECOND = np.int32(0x3FFFFFFF), np.int32(30), np.int32(1), np.int32(2)


@njit(cache=True)
def philox(first: int, seed: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Fill uint32 arrays with Philox4x32-10 of the counters from ``first`` on, keyed by ``seed``.

    Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC11 (2011).
    """
    low_key, high_key = np.uint64(seed) & _LOW, np.uint64(seed) >> _WORD
    for i in range(a.size):
        counter = np.uint64(first + i)
        x, y, z, w = counter & _LOW, counter >> _WORD, np.uint64(0), np.uint64(0)
        key, other = low_key, high_key
        for _ in range(_ROUNDS):
            p, q = _M0 * x, _M1 * z
            x, y, z, w = (q >> _WORD) ^ y ^ key, q & _LOW, (p >> _WORD) ^ w ^ other, p & _LOW
            key, other = (key + _W0) & _LOW, (other + _W1) & _LOW
        a[i], b[i], c[i], d[i] = x, y, z, w


@njit(cache=True, fastmath=FAST)
def _box_muller(size: Any, angle: Any, out: Any, other: Any) -> None:
    """Make pairs of normals, r cos and r sin of an angle, of pairs of uint32."""
    for i in range(size.size):
        unit = (np.float32(np.int32(size[i] >> _ONE_BIT)) + _HALF) * _UNIT
        radius = np.sqrt(max(-_TWO * log(unit), _ZERO))
        # From -1/8 to 1/8 turns around the next quarter.
        turned = np.int32(np.int32(angle[i]) + _EIGHTH)
        rest = np.int32(np.int32(turned & _WITHIN) - _EIGHTH)
        s, c = sine_cosine(np.float32(rest) * _ANGLE)
        quarter = np.int32(turned >> _QUARTER)
        odd = np.int32(quarter & _ODD)
        sine, cosine = (c, s) if odd else (s, c)
        out[i] = -radius * cosine if np.int32(quarter + _ODD) & _SECOND else radius * cosine
        other[i] = -radius * sine if quarter & _SECOND else radius * sine


@njit(cache=True)
def _normals(seed: Any, out: Any) -> None:
    a, b = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    c, d = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    z = np.empty(4 * _BLOCK, np.float32)
    for start in range(0, out.size, z.size):
        philox(start // 4, seed, a, b, c, d)
        _box_muller(a, b, z[:_BLOCK], z[_BLOCK : 2 * _BLOCK])
        _box_muller(c, d, z[2 * _BLOCK : 3 * _BLOCK], z[3 * _BLOCK :])
        n = min(z.size, out.size - start)
        out[start : start + n] = z[:n]


def normals(out: Tensor, seed: int) -> None:
    _normals(np.uint64(seed), out.view(-1).numpy())
