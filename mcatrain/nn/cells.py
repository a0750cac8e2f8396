"""The digital part of recurrent layers: gates, all of a time step at once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mcatrain import kernels
from mcatrain.tile import Block


class Cell(Protocol):
    """One time step, forward and backward, of m units on the array's 4 m outputs.

    forward: z (n, 4m) becomes the activated gates in place; returns (h, c), each (n, m).
    backward: from the gradients of h and c, returns d (n, 4m) for the array's outputs, and the
    gradients of the previous h (what does not pass the array) and c.
    """

    has_memory: bool
    #: The first so many of four row blocks have two biases in torch, which we hold as one: its
    #: gradient counts twice.
    twice_biased: int

    def blocks(self, units: int, inputs: int, width: int) -> list[Block] | None: ...

    def forward(self, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]: ...

    def backward(
        self, z: Tensor, h_before: Tensor, c_before: Tensor, c: Tensor, dh: Tensor, dc: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]: ...


class LSTMCell:
    """i, f, g, o in torch's order; c = f c' + i g, h = o tanh(c)."""

    has_memory = True
    twice_biased = 4

    def blocks(self, units: int, inputs: int, width: int) -> None:
        """All rows use all columns."""
        return None

    def forward(self, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.lstm_forward(z, c)

    def backward(
        self, z: Tensor, h_before: Tensor, c_before: Tensor, c: Tensor, dh: Tensor, dc: Tensor
    ) -> tuple[Tensor, None, Tensor]:
        d = torch.empty_like(z)
        return d, None, kernels.lstm_backward(z, c_before, c, dh, dc, d)


class GRUCell:
    """r, z, and the candidate's input and recurrent part apart: n = tanh(nx + r nh).

    h = (1 - z) n + z h'. The rows nx have no recurrent columns, the rows nh no input columns.
    """

    has_memory = False
    twice_biased = 2

    def blocks(self, units: int, inputs: int, width: int) -> list[Block]:
        """Columns are [x, 1, h]; the bias column (if there is one) belongs to both parts."""
        m, recurrent = units, width - units
        return [
            Block(slice(0, 2 * m), slice(0, width)),
            Block(slice(2 * m, 3 * m), slice(0, recurrent)),
            Block(slice(3 * m, 4 * m), slice(inputs, width)),
        ]

    def forward(self, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        m = h.shape[1]
        z[:, : 2 * m].sigmoid_()
        r, u, nx, nh = z.split(m, 1)
        nx.addcmul_(r, nh).tanh_()
        return torch.lerp(nx, h, u), c

    def backward(
        self, z: Tensor, h_before: Tensor, c_before: Tensor, c: Tensor, dh: Tensor, dc: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        m = dh.shape[1]
        r, u, n, nh = z.split(m, 1)
        dn = dh * (1 - u) * (1 - n.square())
        du = dh * (h_before - n) * (u - u.square())
        dr = dn * nh * (r - r.square())
        return torch.cat([dr, du, dn, dn * r], 1), dh * u, dc
