"""Converters of several chips at once: the passes of `convert`, chip by chip in one call.

Each chip's numbers are those that it gets alone, bit for bit: from the same loops, and products
of the same shapes in memory that is aligned alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mcatrain.kernels.cpu.convert import CHUNK, are_few, convert_few
from mcatrain.kernels.cpu.passes import drive_rows, sense_rows
from mcatrain.kernels.cpu.products import product
from mcatrain.kernels.reference import noise_product

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

#: Bytes of a line of the cache, at which each chip's matrix begins.
_LINE = 64


class Matrices:
    """A matrix (rows, columns) for each of some chips, of float32 or bfloat16.

    all: (chips, size), a row a chip, its end unused and 0. stacked: (chips, rows, columns).
    each: the matrices, contiguous. numpy: ``all`` for Numba, bfloat16 as int16.
    """

    def __init__(
        self, chips: int, rows: int, columns: int, dtype: torch.dtype = torch.float32
    ) -> None:
        size = rows * columns
        line = _LINE // dtype.itemsize
        self.shape = rows, columns
        self.all = torch.zeros(chips, -(-size // line) * line, dtype=dtype)
        self.each = [row[:size].view(rows, columns) for row in self.all]
        self.stacked = self.all[:, :size].unflatten(1, (rows, columns))
        numbers = self.all if dtype == torch.float32 else self.all.view(torch.int16)
        self.numpy = numbers.numpy()


@njit(cache=True)
def _drive_chips(
    x: Any, width: int, levels: int, manage: bool, dither: Any, out: Any, squares: Any, scale: Any
) -> None:
    n = scale.shape[1]
    size = n * width
    squared = size if squares.size else 0
    for k in range(scale.shape[0]):
        drive_rows(
            x[k, :size].reshape(n, width), levels, manage, np.float32(1.0),
            dither[k * n : (k + 1) * n], out[k, :size].reshape(n, width),
            squares[k, :squared].reshape(squared // width, width), scale[k],
        )  # fmt: skip


@njit(cache=True)
def _sense_chips(
    y: Any, width: int, spread: Any, normals: Any, noise: Any, levels: int, bound: Any,
    dither: Any, scale: Any, hits: Any,
) -> None:  # fmt: skip
    n = scale.shape[1]
    size = n * width
    noisy = size if spread.size else 0
    for k in range(scale.shape[0]):
        part = slice(k * n, (k + 1) * n)
        sense_rows(
            y[k, :size].reshape(n, width), spread[k, :noisy].reshape(noisy // width, width),
            normals[part], noise, levels, bound, dither[part], scale[k], hits[k],
        )  # fmt: skip


class Converter:
    """`convert` for arrays (out, in) of some chips, with n rows of input each."""

    def __init__(self, chips: int, rows: int, inputs: int, outputs: int, noisy: bool) -> None:
        self.line = Matrices(chips, rows, inputs)
        self.y = Matrices(chips, rows, outputs)
        self.squares = Matrices(chips, rows, inputs if noisy else 0, torch.bfloat16)
        self.spread = Matrices(chips, rows, outputs if noisy else 0, torch.bfloat16)
        self.scale = np.empty((chips, rows), np.float32)
        self.hits = np.empty((chips, rows), np.int64)

    @staticmethod
    def serves(c: Converters, rows: int, inputs: int, outputs: int) -> bool:
        """Whether `convert` would take such rows together, through converters."""
        drive = bool(c.input_levels) or c.noise_management
        return drive and 1 < rows <= CHUNK // max(inputs, outputs)

    def __call__(
        self,
        x: Matrices,
        weights: Sequence[Tensor],
        variances: Sequence[Tensor] | None,
        c: Converters,
        dither: list[Tensor] | None,
        normals: list[Tensor] | None,
        output_dither: list[Tensor] | None,
    ) -> list[int]:
        """Leave the outputs in ``y``; return the chips with an output at its bound.

        dither (n, in), normals, output_dither (n, out): of each chip, see `reference.convert`.
        """
        if are_few(x.shape[0], weights[0]):
            of_all = variances, dither, normals, output_dither
            for k, w in enumerate(weights):
                s, u, z, v = (None if values is None else values[k] for values in of_all)
                convert_few(x.each[k], w, s, c, 1.0, u, z, v, self.y.each[k], self.hits[k])
        else:
            width, outputs = x.shape[1], self.y.shape[1]
            _drive_chips(
                x.numpy, width, c.input_levels, c.noise_management, _rows(dither, width),
                self.line.numpy, self.squares.numpy, self.scale,
            )  # fmt: skip
            for k, w in enumerate(weights):
                product(self.line.each[k], w, self.y.each[k])
            if variances is not None:
                for k, s in enumerate(variances):
                    self.spread.each[k].copy_(noise_product(self.squares.each[k], s))
            _sense_chips(
                self.y.numpy, outputs, self.spread.numpy, _rows(normals, outputs),
                np.float32(c.output_noise), c.output_levels, np.float32(c.output_bound),
                _rows(output_dither, outputs), self.scale, self.hits,
            )  # fmt: skip
        return np.flatnonzero(self.hits.any(axis=1)).tolist()


def _rows(values: list[Tensor] | None, width: int) -> Any:
    return np.empty((0, width), np.float32) if values is None else torch.cat(values).numpy()
