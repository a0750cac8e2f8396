"""Arrays a network is made of: one tile, or several beside and below each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mcatrain.tile import Block, Tile


class TileGrid(nn.Module):
    """A weight matrix on several tiles, each with converters of its own.

    Every tile converts its partial sum, and the sums are added digitally; weights outside of
    all blocks do not exist. It offers what a `Tile` does: forward, backward, collect, weights.
    """

    def __init__(
        self, shape: tuple[int, int], blocks: list[Block], tile_modules: list[Tile]
    ) -> None:
        super().__init__()
        self.shape, self.blocks = shape, blocks
        self.tiles = nn.ModuleList(tile_modules)

    @property
    def parts(self) -> tuple[Tile, ...]:
        """The tiles, in the order of the blocks."""
        return tuple(self.tiles)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return y (n, out) for the rows of x (n, in): digital sums of the tiles' outputs."""
        y = x.new_zeros(len(x), self.shape[0])
        for block, tile in zip(self.blocks, self.parts, strict=True):
            y[:, block.rows] += tile(x[:, block.columns].contiguous())
        return y

    def backward(self, d: Tensor) -> Tensor:
        """Return W^T d (n, in) for the rows of d (n, out)."""
        dx = d.new_zeros(len(d), self.shape[1])
        for block, tile in zip(self.blocks, self.parts, strict=True):
            dx[:, block.columns] += tile.backward(d[:, block.rows].contiguous())
        return dx

    def collect(
        self, x: Tensor, d: Tensor, examples: int, dense: bool = False
    ) -> list[Tensor | None]:
        """See `Tile.collect`; returns a gradient for every tile."""
        gradients: list[Tensor | None] = []
        for block, tile in zip(self.blocks, self.parts, strict=True):
            gradients += tile.collect(x[:, block.columns], d[:, block.rows], examples, dense)
        return gradients

    def weights(self) -> Tensor:
        """Return the weights as they read now without noise, (out, in); 0 where there are none."""
        w = torch.zeros(self.shape, device=self.parts[0].chi.device)
        for block, tile in zip(self.blocks, self.parts, strict=True):
            w[block.rows, block.columns] = tile.weights()
        return w

    def extra_repr(self) -> str:
        return f"shape={self.shape}, tiles={len(self.tiles)}"


#: What a layer computes with.
Array = Tile | TileGrid


class ArrayProduct(torch.autograd.Function):
    """The array's product in a graph: backward runs on the transposed array."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, array: Array, examples: int, *chis: Tensor) -> Tensor:
        # An array one column wider than x has its bias there, driven by a constant 1.
        ctx.width = x.shape[1]
        if array.shape[1] > ctx.width:
            x = torch.cat([x, x.new_ones(x.shape[0], 1)], 1)
        ctx.save_for_backward(x)
        ctx.array, ctx.examples = array, examples
        return array.forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        d = grads[0].contiguous()
        dx = ctx.array.backward(d)[:, : ctx.width] if ctx.needs_input_grad[0] else None
        return dx, None, None, *ctx.array.collect(x, d, ctx.examples)


def product(array: Array, x: Tensor, examples: int) -> Tensor:
    """Return the array's product with the rows of x (n, in), of so many training examples."""
    chis = [tile.chi for tile in array.parts]
    return ArrayProduct.apply(x, array, examples, *chis)
