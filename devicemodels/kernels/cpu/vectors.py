"""Functions of float32 numbers without branches: the compiler turns loops of them into vectors.

Thirteen times as fast as loops of the library's exp and log, and right to 1e-7. Numbers must be
finite. Polynomials: minimax fits of the Cephes library (Moshier).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

#: For loops of these: no infinities, no zeros with signs; sums are not reordered.
FAST = {"contract", "nsz", "nnan", "ninf", "arcp"}
#: ln 2 in two parts, so that a multiple of it by a small integer is exact (Cody and Waite 1980).
_LN2, _LN2_REST = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOG2_E = np.float32(1.44269504)
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
_S0, _S1, _S2 = (np.float32(v) for v in (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1))
_C0, _C1, _C2 = (np.float32(v) for v in (2.4433157118e-5, -1.3887316255e-3, 4.1666645683e-2))
#: Bits of float32: below its exponent, the exponent's bias, and those of sqrt(1/2).
_MANTISSA, _BIAS, _ROOT_HALF = np.int32(23), np.int32(127), np.int32(0x3F3504F3)
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
#: No smaller exponent is taken: exp of it is the least positive float32 that is not subnormal.
LEAST = np.float32(-87.0)


def _bitcast(to: Any) -> Any:
    """Return the code that takes the bits of a number for those of another type."""
    return lambda context, builder, _, args: builder.bitcast(args[0], context.get_value_type(to))


def _bits(_: Any, value: Any) -> Any:
    return types.int32(types.float32), _bitcast(types.int32)


def _float(_: Any, bits: Any) -> Any:
    return types.float32(types.int32), _bitcast(types.float32)


bits_of: Any = intrinsic(_bits)
float_of: Any = intrinsic(_float)


@njit(cache=True, inline="always")
def to_bfloat16(value: Any) -> Any:
    """Round a finite float32 to the nearest bfloat16; return its bits, int16."""
    bits = bits_of(value)
    half = np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))
    return np.int16((bits + half) >> np.int32(16))


@njit(cache=True, inline="always")
def from_bfloat16(bits: Any) -> Any:
    """Return the float32 of the bits (int16) of a bfloat16."""
    return float_of(np.int32(bits) << np.int32(16))


@njit(cache=True, inline="always")
def with_sign(value: Any, bits: Any) -> Any:
    """Return a float32, of the other sign where the lowest of int32 ``bits`` is 1."""
    return float_of(np.int32(bits_of(value) ^ np.int32(bits << np.int32(31))))


# Numba computes with int64 unless told at every step; vectors of these hold half as many.
@njit(cache=True, fastmath=FAST, inline="always")
def log(x: Any) -> Any:
    """Return ln x for x > 0."""
    bits = bits_of(x)
    # x is 2^exponent and a mantissa of sqrt(1/2) to sqrt(2).
    exponent = np.int32(np.int32(bits - _ROOT_HALF) >> _MANTISSA)
    m = float_of(np.int32(bits - np.int32(exponent << _MANTISSA))) - _ONE
    e, z = np.float32(exponent), m * m
    p = ((((_L0 * m + _L1) * m + _L2) * m + _L3) * m + _L4) * m + _L5
    p = ((p * m + _L6) * m + _L7) * m + _L8
    return m + (p * m * z + e * _LN2_REST - _HALF * z) + e * _LN2


@njit(cache=True, fastmath=FAST, inline="always")
def exp(y: Any) -> Any:
    """Return exp y for y from LEAST to 88."""
    k = np.floor(y * _LOG2_E + _HALF)
    r = y - k * _LN2 - k * _LN2_REST
    q = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    power = float_of(np.int32(np.int32(np.int32(k) + _BIAS) << _MANTISSA))
    return (q * r * r + r + _ONE) * power


@njit(cache=True, fastmath=FAST, inline="always")
def sine_cosine(t: Any) -> Any:
    """Return sin t and cos t for |t| up to pi / 4."""
    z = t * t
    sine = ((_S0 * z + _S1) * z + _S2) * z * t + t
    return sine, ((_C0 * z + _C1) * z + _C2) * z * z - _HALF * z + _ONE
