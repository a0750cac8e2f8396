"""Gates of an LSTM, there and back, without temporaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from devicemodels.kernels.cpu.vectors import FAST, exp
from mcatrain.kernels import reference
from mcatrain.kernels.cpu.update import trouble

_ONE, _TWO = np.float32(1.0), np.float32(2.0)
#: Beyond, a sigmoid is 0 or 1 to float32.
_MOST = np.float32(80.0)


@njit(cache=True, fastmath=FAST, error_model="numpy", inline="always")
def _sigmoid(x: Any) -> Any:
    return _ONE / (_ONE + exp(min(max(-x, -_MOST), _MOST)))


@njit(cache=True, fastmath=FAST, error_model="numpy", inline="always")
def _tanh(x: Any) -> Any:
    return _TWO * _sigmoid(_TWO * x) - _ONE


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _forward(z: Any, c_before: Any, h: Any, c: Any) -> None:
    m = c.shape[1]
    for row in range(c.shape[0]):
        first, zg, zo = z[row, : 2 * m], z[row, 2 * m : 3 * m], z[row, 3 * m :]
        old, new, out = c_before[row], c[row], h[row]
        for j in range(2 * m):
            first[j] = _sigmoid(first[j])
        for j in range(m):
            zg[j] = _tanh(zg[j])
        for j in range(m):
            zo[j] = _sigmoid(zo[j])
        for j in range(m):
            new[j] = first[m + j] * old[j] + first[j] * zg[j]
        for j in range(m):
            out[j] = zo[j] * _tanh(new[j])


@njit(cache=True)
def _forward_if_finite(z: Any, c_before: Any, h: Any, c: Any) -> bool:
    if np.isnan(trouble(z.reshape(-1))):
        return False
    _forward(z, c_before, h, c)
    return True


def lstm_forward(z: Tensor, c_before: Tensor) -> tuple[Tensor, Tensor]:
    h, c = torch.empty_like(c_before), torch.empty_like(c_before)
    if z.is_contiguous():
        arrays: Any = [t.numpy() for t in (z, c_before.contiguous(), h, c)]
        if _forward_if_finite(*arrays):
            return h, c
    return reference.lstm_forward(z, c_before)


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _backward(z: Any, c_before: Any, c: Any, dh: Any, dc: Any, d: Any, dc_before: Any) -> None:
    m = c.shape[1]
    tanh, to_cell = np.empty(m, np.float32), np.empty(m, np.float32)
    for row in range(c.shape[0]):
        zi, zf, zg = z[row, :m], z[row, m : 2 * m], z[row, 2 * m : 3 * m]
        zo, old = z[row, 3 * m :], c_before[row]
        di, df, dg = d[row, :m], d[row, m : 2 * m], d[row, 2 * m : 3 * m]
        do, to_h, to_c, back = d[row, 3 * m :], dh[row], dc[row], dc_before[row]
        # One result a loop: of more the compiler cannot tell that they lie apart.
        for j in range(m):
            tanh[j] = _tanh(c[row, j])
        for j in range(m):
            to_cell[j] = to_c[j] + to_h[j] * zo[j] * (_ONE - tanh[j] * tanh[j])
        for j in range(m):
            di[j] = to_cell[j] * zg[j] * (zi[j] - zi[j] * zi[j])
        for j in range(m):
            df[j] = to_cell[j] * old[j] * (zf[j] - zf[j] * zf[j])
        for j in range(m):
            dg[j] = to_cell[j] * zi[j] * (_ONE - zg[j] * zg[j])
        for j in range(m):
            do[j] = to_h[j] * tanh[j] * (zo[j] - zo[j] * zo[j])
        for j in range(m):
            back[j] = to_cell[j] * zf[j]


def lstm_backward(
    z: Tensor, c_before: Tensor, c: Tensor, dh: Tensor, dc: Tensor, d: Tensor
) -> Tensor:
    before = torch.empty_like(c)
    given = [t.contiguous() for t in (z, c_before, c, dh, dc)]
    arrays: Any = [t.numpy() for t in (*given, d, before)]
    _backward(*arrays)
    return before
