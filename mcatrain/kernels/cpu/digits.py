"""Products of lines of whole numbers with weights of three digits: exact, on the units for int8."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mcatrain.kernels.processor import capabilities

#: The largest digit, and how much finer the next one is: the rest is at most half a step.
MOST, _BASE = 127, 254
_DIGITS = 3


@cache
def multiplies_int8() -> bool:
    """Does this machine's processor multiply int8 itself, and torch with it?"""
    found = capabilities()
    if not found.get("avx512_vnni") or not hasattr(torch, "_int_mm"):
        return False
    a = torch.arange(-127, 128, dtype=torch.int8).repeat(32, 3)[:, : 3 * 254]
    try:
        got = torch._int_mm(a, a.T)
    except RuntimeError:
        return False
    return torch.equal(got, a.int() @ a.int().T)


class Digits:
    """Weights (out, in) as sums of three int8 times a step of each row: right to 2^-24 of its top.

    Products with whole numbers from -127 to 127 are then exact but for that and for the last sum,
    as those of float32 are. width: of the lines, the rest of which is 0.
    """

    def __init__(self, weights: Tensor, width: int, unit: float) -> None:
        out, inputs = weights.shape
        self.outputs = out
        rest = weights.double()
        step = rest.abs().amax(dim=1, keepdim=True) / MOST
        step = torch.where(step == 0, 1.0, step)
        self.digits = torch.zeros(_DIGITS * out, width, dtype=torch.int8)
        self.steps = np.empty((_DIGITS, out), np.float32)
        for k in range(_DIGITS):
            digit = (rest / step).round()
            self.digits[k * out : (k + 1) * out, :inputs] = digit.to(torch.int8)
            self.steps[k] = (step * unit).squeeze(1).numpy()
            rest = rest - digit * step
            step = step / _BASE

    def products(self, lines: Tensor, y: Tensor) -> None:
        """Write lines (n, width), int8, times weights^T into y (n, out)."""
        _sum(torch._int_mm(lines, self.digits.T).numpy(), self.steps, y.numpy())


@njit(cache=True)
def _sum(parts: Any, steps: Any, y: Any) -> None:
    out = y.shape[1]
    first, second, third = steps[0], steps[1], steps[2]
    for row in range(y.shape[0]):
        a, b, c = parts[row, :out], parts[row, out : 2 * out], parts[row, 2 * out :]
        yr = y[row]
        for i in range(out):
            low = np.float32(c[i]) * third[i] + np.float32(b[i]) * second[i]
            yr[i] = np.float32(a[i]) * first[i] + low
