"""Convolution through converters, a few images at a time: the patches of all are never there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mcatrain import kernels
from mcatrain.kernels.windows import Geometry, patches_at
from mcatrain.nn.native import weight_gradient
from mcatrain.periphery import draws, within_bounds
from mcatrain.tile import Tile


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
        # Channels last: a row of a patch is then one piece.
        last = image.permute(0, 2, 3, 1).contiguous()
        weights, variance = tile.synapse.read(tile.now_s)
        c, reads = tile.periphery.forward, tile.reads.forward
        draw = draws(weights, variance is not None, c, tile.chance)
        y, clipped = kernels.convert_patches(last, g, weights, variance, c, draw)
        reads.vectors += len(y)
        if clipped is not None and c.bound_management:
            found = patches_at(last, g, clipped)
            rows = found.new_ones(len(found), weights.shape[1])  # the last column drives the bias
            rows[:, : found.shape[1]] = found
            every = torch.arange(len(rows), device=rows.device)
            y[clipped] = within_bounds(
                y[clipped], every, rows, weights, variance, c, tile.chance, reads
            )
        if tile.output_scale is not None:
            y.mul_(tile.output_scale)
        ctx.save_for_backward(last)
        ctx.tile, ctx.geometry = tile, g
        return y.view(n, *g.output(height, width), -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (last,) = ctx.saved_tensors
        tile: Tile = ctx.tile
        g: Geometry = ctx.geometry
        d = grads[0].permute(0, 2, 3, 1).contiguous()
        dx = gradient = None
        if ctx.needs_input_grad[0]:
            dx = torch.zeros_like(last)
            _go_back(d.flatten(0, 2), g, tile, dx)
            dx = dx.permute(0, 3, 1, 2)
        if tile.chi.requires_grad:
            tile.examples += len(last)
            image = last.permute(0, 3, 1, 2)
            gradient = weight_gradient(tile, image, d.permute(0, 3, 1, 2), g)
        return dx, gradient, None, None


def _go_back(d: Tensor, g: Geometry, tile: Tile, dx: Tensor) -> None:
    """Add what the transposed array makes of the rows of d to the pixels of their patches."""
    weights, variance = tile.synapse.read(tile.now_s)
    weights, variance = weights.T, None if variance is None else variance.T
    c, reads = tile.periphery.backward, tile.reads.backward
    draw = draws(weights, variance is not None, c, tile.chance)
    clipped = kernels.convert_to_patches(d, g, weights, variance, c, draw, dx)
    reads.vectors += len(d)
    if clipped is None:
        return
    rows = d[clipped]
    every = torch.arange(len(rows), device=rows.device)
    back = rows.new_empty(len(rows), len(weights))
    back = within_bounds(back, every, rows, weights, variance, c, tile.chance, reads)
    positions = len(d) // len(dx)
    for image in (clipped // positions).unique().tolist():
        own = clipped // positions == image
        grid = back.new_zeros(positions, len(weights))
        grid[clipped[own] % positions] = back[own]
        kernels.add_patches(grid, g, dx[image : image + 1])
