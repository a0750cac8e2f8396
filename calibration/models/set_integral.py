"""The likelihood of devices under set-response in Numba: sequences, integrated over the factor."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from calibration.models import quadrature, set_filter, set_kernel
from calibration.models.quadrature import LEAST, LONGEST, NEAR, NODES, ROUNDS, WIDTH, hermite
from calibration.models.set_kernel import ALL, DRAWN, FAST, SPREAD, backward, forward

_U, _P_U = hermite(NODES)


@njit(nogil=True, fastmath=FAST)
def _device(
    theta: Any, u: float, first: int, last: int, number: Any, mean: Any, square: Any, zeros: Any,
    length: Any, heavy: bool, sloped: bool, belief: Any, ends: Any, g: Any, pairs: Any,
    edges: Any, slope: Any,
) -> float:  # fmt: skip
    """Return ln p of a device's sequences given its deviate u, and its gradient in ``slope``."""
    total, factor = 0.0, math.exp(theta[SPREAD] * u)
    slope[:] = 0.0
    for row in range(first, last):
        total += forward(
            theta, factor, number[row], mean[row], square[row], zeros[row], length[row], heavy,
            sloped, belief, ends, g, pairs, edges,
        )  # fmt: skip
        if sloped:
            backward(
                theta, factor, number[row], mean[row], square[row], zeros[row], length[row], heavy,
                belief, ends, g, pairs, edges, slope,
            )  # fmt: skip
    slope[SPREAD] *= factor * u
    return total


def _compiled(stamp: int) -> Any:
    """Return the kernel; Numba's cache knows it by its own file, and by ``stamp``."""

    @njit(cache=True, nogil=True, fastmath=FAST)
    def devices(
        begin: int, end: int, theta: Any, first: Any, number: Any, mean: Any, square: Any,
        zeros: Any, length: Any, heavy: bool, sloped: bool, value: Any, slope: Any,
    ) -> None:  # fmt: skip
        """Fill value (draws, devices) and slope (draws, devices, 14) for devices begin to end.

        theta (draws, 14). first (devices + 1,): the first sequence of each device. The integral
        over a device's deviate is that of `quadrature.log_mean`.
        """
        assert stamp
        steps = number.shape[1]
        belief, ends, g = np.empty((steps + 1, 2)), np.empty((steps, 2)), np.empty((steps, ALL))
        pairs, edges = np.empty((steps, DRAWN, ALL)), np.empty((steps, 2, DRAWN))
        part, own, level = np.empty(14), np.empty((NODES, 14)), np.empty(NODES)
        for d in range(len(theta)):
            v = theta[d]
            for i in range(begin, end):
                u, precision = 0.0, 1.0
                for _ in range(ROUNDS):
                    for e in range(3):
                        level[e] = _device(
                            v, u + WIDTH * (e - 1), first[i], first[i + 1], number, mean, square,
                            zeros, length, heavy, False, belief, ends, g, pairs, edges, part,
                        )  # fmt: skip
                    bend = (level[2] - 2 * level[1] + level[0]) / WIDTH**2
                    precision = max(1 - bend, LEAST)
                    step = ((level[2] - level[0]) / (2 * WIDTH) - u) / precision
                    u += min(max(step, -LONGEST), LONGEST)
                    if abs(step) * math.sqrt(precision) < NEAR:
                        break
                wide = 1 / math.sqrt(precision)
                top = -math.inf
                for e in range(NODES):
                    here = u + wide * _U[e]
                    level[e] = _device(
                        v, here, first[i], first[i + 1], number, mean, square, zeros, length, heavy,
                        sloped, belief, ends, g, pairs, edges, own[e],
                    )  # fmt: skip
                    level[e] += (_U[e] ** 2 - here**2) / 2 + math.log(_P_U[e] * wide)
                    top = max(top, level[e])
                total = 0.0
                for e in range(NODES):
                    level[e] = math.exp(level[e] - top)
                    total += level[e]
                value[d, i] = top + math.log(total)
                if sloped:
                    for k in range(14):
                        found = 0.0
                        for e in range(NODES):
                            found += level[e] * own[e, k]
                        slope[d, i, k] = found / total

    return devices


# What the kernel is compiled from beside this file: a change there must not find the old one.
_SOURCES = (quadrature, set_filter, set_kernel)
devices = _compiled(zlib.crc32(b"".join(Path(str(m.__file__)).read_bytes() for m in _SOURCES)))
