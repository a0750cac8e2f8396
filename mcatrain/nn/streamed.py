"""Convolution through converters, a few images at a time: the patches of all are never there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mcatrain import kernels
from mcatrain.kernels.windows import Geometry
from mcatrain.nn.native import weight_gradient
from mcatrain.tile import Tile

#: Numbers of the patches that are made at a time: what passes read and write stays near the core.
_CHUNK = 2**19


class StreamedConvolution(torch.autograd.Function):
    """The product of `ArrayProduct` on the patches of an image, and its gradient, chunk by chunk.

    Every patch is a vector of its own for the converters, forward and backward; the gradient of
    the weights is digital and needs no patches.
    """

    @staticmethod
    def serves(tile: Tile) -> bool:
        """Whether nobody wants the patches themselves afterwards."""
        return tile.factors != "must"

    @staticmethod
    def forward(ctx: Any, image: Tensor, chi: Tensor, tile: Tile, g: Geometry) -> Tensor:
        n, _, height, width = image.shape
        high, wide = g.output(height, width)
        # Channels last: a row of a patch is then one piece.
        last = image.permute(0, 2, 3, 1).contiguous()
        y = image.new_empty(n * high * wide, tile.shape[0])
        rows = None
        for part, positions in _parts(n, high * wide, tile.shape[1]):
            size = positions.stop - positions.start
            if rows is None:
                rows = image.new_ones(size, tile.shape[1])  # its last column drives the bias
            kernels.patches(last[part], g, rows[:size])
            y[positions] = tile.forward(rows[:size])
        ctx.save_for_backward(last)
        ctx.tile, ctx.geometry = tile, g
        return y.view(n, high, wide, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (last,) = ctx.saved_tensors
        tile: Tile = ctx.tile
        g: Geometry = ctx.geometry
        n, height, width, _ = last.shape
        high, wide = g.output(height, width)
        d = grads[0].permute(0, 2, 3, 1).contiguous()
        dx = gradient = None
        if ctx.needs_input_grad[0]:
            dx = torch.zeros_like(last)
            rows = d.view(n * high * wide, -1)
            for part, positions in _parts(n, high * wide, tile.shape[1]):
                kernels.add_patches(tile.backward(rows[positions]), g, dx[part])
            dx = dx.permute(0, 3, 1, 2)
        if tile.chi.requires_grad:
            tile.examples += n
            image = last.permute(0, 3, 1, 2)
            gradient = weight_gradient(tile, image, d.permute(0, 3, 1, 2), g)
        return dx, gradient, None, None


def _parts(images: int, positions: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield the images that are taken at a time, and their positions of ``width`` numbers each."""
    step = max(_CHUNK // (positions * width), 1)
    for start in range(0, images, step):
        stop = min(start + step, images)
        yield slice(start, stop), slice(start * positions, stop * positions)
