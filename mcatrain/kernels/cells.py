"""Gates of an LSTM, there and back, in plain torch, a time step at once."""

from __future__ import annotations

import torch
from torch import Tensor


def lstm_forward(z: Tensor, c_before: Tensor) -> tuple[Tensor, Tensor]:
    """Make the outputs z (n, 4m) of an array the activated gates, in place; return h and c.

    i, f, g, o of c = f c_before + i g and h = o tanh(c), each (n, m): sigmoids but for g, a tanh.
    """
    m = c_before.shape[1]
    z[:, : 2 * m].sigmoid_()
    z[:, 2 * m : 3 * m].tanh_()
    z[:, 3 * m :].sigmoid_()
    i, f, g, o = z.split(m, 1)
    c = torch.addcmul(f * c_before, i, g)
    return o * c.tanh(), c


def lstm_backward(
    z: Tensor, c_before: Tensor, c: Tensor, dh: Tensor, dc: Tensor, d: Tensor
) -> Tensor:
    """Write the gradient of what became the activated gates z (n, 4m) into d (n, 4m).

    z: as `lstm_forward` leaves them. dh, dc: gradients of h and c, (n, m). Returns that of
    c_before.
    """
    m = c.shape[1]
    i, f, g, o = z.split(m, 1)
    tanh_c = c.tanh()
    dc = dc + dh * o * (1 - tanh_c.square())
    torch.mul(dc, g, out=d[:, :m])
    torch.mul(dc, c_before, out=d[:, m : 2 * m])
    torch.mul(dc, i, out=d[:, 2 * m : 3 * m])
    torch.mul(dh, tanh_c, out=d[:, 3 * m :])
    # The slope of a sigmoid is s (1 - s), that of tanh 1 - t^2.
    slope = z - z.square()
    torch.sub(1.0, g.square(), out=slope[:, 2 * m : 3 * m])
    d.mul_(slope)
    return dc * f
