"""Converters around an array that is driven line after line, in memory that is used again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from devicemodels.kernels.cpu.vectors import to_bfloat16
from mcatrain.kernels import lines as plain
from mcatrain.kernels.cpu.passes import LEAST, bits, drive_rows, rows, sense_rows, top, within
from mcatrain.kernels.cpu.products import add_product, product
from mcatrain.kernels.reference import noise_product

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

#: Lines that are enough for products in advance to pay.
_FEW = 2


class Lines(plain.Lines):
    """What is there from the start is converted and multiplied for all time steps at once.

    With noise management a line's scale is the largest of all its numbers: where a later one is
    above those that are there from the start, the whole line is converted as it is.
    """

    def __init__(
        self, lines: Tensor, ahead: int, weights: Tensor, variance: Tensor | None, c: Converters
    ) -> None:
        super().__init__(lines, ahead, weights, variance, c)
        steps, n, width = lines.shape
        self.direct = bool(c.input_levels) and not c.dithers[0] and n > 1
        if not self.direct:
            return
        self.ahead = ahead = ahead if steps >= _FEW else 0
        self.arrays = lines.numpy()
        # As products like them best.
        self.to_h = weights[:, ahead:].T.contiguous()
        self.h_noise = None if variance is None else variance[:, ahead:].T.contiguous()
        self.line = torch.empty(n, width - ahead)
        noisy = 0 if variance is None else 1
        self.squares = torch.empty(n * noisy, width - ahead, dtype=torch.bfloat16)
        self.noise = torch.empty(n * noisy, len(weights), dtype=torch.bfloat16)
        self.scale = np.ones((steps, n), np.float32)
        self.driven: Any = self.line.numpy(), bits(self.squares)
        self.noise_bits = bits(self.noise)
        self.hits = np.empty(n, np.int64)
        self.settings = np.float32(c.output_noise), c.output_levels, np.float32(c.output_bound)
        if ahead:
            self._drive_ahead()

    def _drive_ahead(self) -> None:
        steps, n, _ = self.lines.shape
        weights, variance, ahead = self.weights, self.variance, self.ahead
        x = self.lines[:, :, :ahead].reshape(steps * n, ahead)
        line = torch.empty_like(x)
        squares = torch.empty(len(x) if variance is not None else 0, ahead, dtype=torch.bfloat16)
        drive_rows(
            x.numpy(), self.c.input_levels, self.c.noise_management, np.float32(1.0), rows(None),
            line.numpy(), bits(squares), self.scale.reshape(-1),
        )  # fmt: skip
        self.sums = product(line, weights[:, :ahead]).view(steps, n, -1)
        if variance is not None:
            self.spread = noise_product(squares, variance[:, :ahead]).view(steps, n, -1)

    def __call__(
        self, t: int, dither: Tensor | None, normals: Tensor | None, output_dither: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if not self.direct or not self._drive(t):
            return super().__call__(t, dither, normals, output_dither)
        if self.ahead:
            y = self.sums[t]  # which nobody asks for again
            add_product(y, self.line, self.to_h.T, 1.0)
        else:
            y = product(self.line, self.to_h.T)
        if self.h_noise is not None:
            noise_product(self.squares, self.h_noise.T, self.noise)
            if self.ahead:
                self.noise += self.spread[t]
        clipped = sense_rows(
            y.numpy(), self.noise_bits, rows(normals), *self.settings, rows(output_dither),
            self.scale[t], self.hits,
        )  # fmt: skip
        return y, torch.from_numpy(self.hits).nonzero().squeeze(1) if clipped else None

    def _drive(self, t: int) -> bool:
        """Convert what came last of lines[t]; return whether their scales hold."""
        levels, manage = self.c.input_levels, self.c.noise_management
        drive: Any = _drive_rest
        return bool(drive(self.arrays[t], self.ahead, levels, manage, *self.driven, self.scale[t]))


@njit(cache=True)
def _drive_rest(
    lines: Any, ahead: int, levels: int, manage: bool, out: Any, squares: Any, scale: Any
) -> bool:
    """DAC of the columns from ``ahead`` on; return False where they ask for another scale."""
    one, limit, level = np.float32(1.0), np.float32(levels), np.float32(1 / levels)
    for row in range(lines.shape[0]):
        x, line = lines[row, ahead:], out[row]
        if manage:
            most = top(x)
            if not ahead:
                scale[row] = most
            elif not most <= scale[row]:
                return False
        over = one / scale[row] if scale[row] >= LEAST else one
        for j in range(x.size):
            line[j] = np.rint(within(x[j] * over, one) * limit) * level
        if squares.size:
            square = squares[row]
            for j in range(x.size):
                square[j] = to_bfloat16(line[j] * line[j])
    return True
