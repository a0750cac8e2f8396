"""Standard normals in vectors: counters through a mixer, then Box and Muller's transform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from devicemodels.kernels.cpu.vectors import FAST, log, sine_cosine, with_sign

#: Counters between passes; each gives two numbers.
_BLOCK = 512
#: Increment, multipliers and shifts of splitmix64.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M0, _M1 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S0, _S1, _S2, _WORD = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_NO_KEY = np.uint64(0)
#: A size in units of 2^-31; half of one keeps it above 0.
_UNIT, _HALF, _TWO = np.float32(2.0**-31), np.float32(0.5), np.float32(2.0)
_ZERO, _ONE_BIT, _SIZE = np.float32(0.0), np.int32(1), np.int32(0x7FFFFFFF)
#: An angle from -1/8 to 1/8 turns in units of 2^-32 turns [rad]; the two bits that turn it on.
_ANGLE, _SWAP, _TURNS = np.float32(2 * math.pi * 2.0**-32), np.int32(2), np.int32(2)
_NONE = np.int32(0)


@njit(cache=True)
def mixed(start: Any, key: Any, high: Any, low: Any) -> None:
    """Fill int32 arrays with the halves of splitmix64 from the state ``start`` on.

    Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014. ``key`` is
    mixed in halfway, so that streams of two keys share no stretch of numbers; 0: as published.
    """
    state = start
    for i in range(high.size):
        state += _GAMMA
        z = (state ^ (state >> _S0)) * _M0
        z = (z ^ (z >> _S1) ^ key) * _M1
        z ^= z >> _S2
        high[i], low[i] = z >> _WORD, z


@njit(cache=True, fastmath=FAST)
def _box_muller(size: Any, angle: Any, out: Any, other: Any) -> None:
    """Make pairs of normals, r cos and r sin of an angle, of pairs of int32."""
    for i in range(size.size):
        unit = (np.float32(np.int32(np.int32(size[i] >> _ONE_BIT) & _SIZE)) + _HALF) * _UNIT
        radius = np.sqrt(max(-_TWO * log(unit), _ZERO))
        # Thirty bits are an angle in a quarter of the circle, two say in which.
        s, c = sine_cosine(np.float32(np.int32(angle[i] >> _TURNS)) * _ANGLE)
        sine, cosine = radius * s, with_sign(radius * c, angle[i])
        swap = np.int32(angle[i] & _SWAP) != _NONE
        out[i] = sine if swap else cosine
        other[i] = cosine if swap else sine


@njit(cache=True)
def _normals(seed: Any, out: Any) -> None:
    high, low = np.empty(2, np.int32), np.empty(2, np.int32)
    # The seed itself goes through the mixer once: neighbours' streams start far apart.
    mixed(seed, _NO_KEY, high, low)
    start = (np.uint64(np.uint32(high[0])) << _WORD) | np.uint64(np.uint32(low[0]))
    key = (np.uint64(np.uint32(high[1])) << _WORD) | np.uint64(np.uint32(low[1]))
    high, low = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32)
    whole = out.size - out.size % (2 * _BLOCK)
    for at in range(0, whole, 2 * _BLOCK):
        mixed(start, key, high, low)
        _box_muller(high, low, out[at : at + _BLOCK], out[at + _BLOCK : at + 2 * _BLOCK])
        start += np.uint64(_BLOCK) * _GAMMA
    if whole < out.size:
        z = np.empty(2 * _BLOCK, np.float32)
        mixed(start, key, high, low)
        _box_muller(high, low, z[:_BLOCK], z[_BLOCK:])
        out[whole:] = z[: out.size - whole]


def normals(out: Tensor, seed: int) -> None:
    _normals(np.uint64(seed), out.view(-1).numpy())
