"""Layers of several chips at once: inputs and outputs of all in one tensor (chips, n, features).

Each chip computes, draws and collects what it would alone, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from devicemodels.state import Chance
from mcatrain import kernels
from mcatrain.kernels.cpu.together import Converter, Matrices
from mcatrain.ledger import Reads
from mcatrain.nn.linear import AnalogLinear
from mcatrain.periphery import Converters, within_bounds
from mcatrain.tile import Tile

Layer = Callable[[Tensor], Tensor]


def together(layers: Sequence[nn.Module]) -> Layer:
    """Return what applies the same layer of each chip to an input (chips, n, in)."""
    if isinstance(layers[0], AnalogLinear):
        return LinearTogether(cast(Sequence[AnalogLinear], layers))
    if type(layers[0]) is nn.Sigmoid:
        return cast(Layer, Sigmoids.apply)
    return lambda x: torch.stack([layer(v) for layer, v in zip(layers, x.unbind(), strict=True)])


class LinearTogether:
    """The same fully connected layer of each chip."""

    def __init__(self, layers: Sequence[AnalogLinear]) -> None:
        self.layers = layers
        self.arrays = [layer.tile for layer in layers]
        self.chis = [tile.chi for array in self.arrays for tile in array.parts]
        self.has_bias = layers[0].bias is not None
        self._batches: dict[int, _Batch] = {}

    def __call__(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        if n not in self._batches:
            self._batches[n] = _Batch(self.arrays, n, x.shape[2])
        self._last = self._batches[n]
        y = cast(Tensor, Products.apply(self._last, x, *self.chis))
        if not self.has_bias:
            return y
        return y + torch.stack([cast(Tensor, layer.bias) for layer in self.layers]).unsqueeze(1)

    @property
    def is_finite(self) -> bool:
        """Whether the factors of the last gradient are, of every chip."""
        return kernels.is_finite(self._last.x.all, self._last.d.all)


class _Batch:
    """The arrays of some chips, and memory for n examples of width features of each.

    forward, backward: what converts for all chips at once; None where each must do so by itself.
    """

    def __init__(self, arrays: Sequence[Any], n: int, width: int) -> None:
        self.arrays, self.n, self.width = arrays, n, width
        outputs, inputs = arrays[0].shape
        chips = len(arrays)
        self.x, self.d = Matrices(chips, n, inputs), Matrices(chips, n, outputs)
        # An array one column wider than x has its bias there, driven by a constant 1.
        self.x.stacked[:, :, width:] = 1
        self.forward: Converter | None = None
        self.backward: Converter | None = None
        if not all(type(array) is Tile for array in arrays):
            return
        self.chances = [tile.chance for tile in arrays]
        self.read()
        noisy = bool(self.variances)
        if noisy and len(self.variances) < chips:
            return
        p = arrays[0].periphery
        if Converter.serves(p.forward, n, inputs, outputs):
            self.forward = Converter(chips, n, inputs, outputs, noisy)
        if Converter.serves(p.backward, n, outputs, inputs):
            self.backward = Converter(chips, n, outputs, inputs, noisy)

    def read(self) -> None:
        """Read the arrays; neither time nor weights move until the step is done."""
        self.weights: list[Tensor] = []
        self.variances: list[Tensor] = []
        for tile in self.arrays:
            weights, variance = tile.synapse.read(tile.now_s)
            self.weights.append(weights)
            if variance is not None:
                self.variances.append(variance)


class Products(torch.autograd.Function):
    """`ArrayProduct` of several chips, one node of the graph for all of them."""

    @staticmethod
    def forward(ctx: Any, batch: _Batch, x: Tensor, *chis: Tensor) -> Tensor:
        ctx.batch = batch
        batch.x.stacked[:, :, : batch.width] = x
        if batch.forward is None:
            pairs = zip(batch.arrays, batch.x.each, strict=True)
            return torch.stack([array.forward(own) for array, own in pairs])
        batch.read()
        c = batch.arrays[0].periphery.forward
        weights, variances = batch.weights, batch.variances
        reads = [tile.reads.forward for tile in batch.arrays]
        return _matvec(batch.x, weights, variances, c, batch.chances, batch.forward, reads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        batch: _Batch = ctx.batch
        batch.d.stacked.copy_(grads[0])
        dx = None
        if ctx.needs_input_grad[1]:
            dx = _backward(batch)[:, :, : batch.width]
        chis = [
            gradient
            for array, x, d in zip(batch.arrays, batch.x.each, batch.d.each, strict=True)
            for gradient in array.collect(x, d, batch.n)
        ]
        return None, dx, *chis


def _backward(batch: _Batch) -> Tensor:
    if batch.backward is None:
        pairs = zip(batch.arrays, batch.d.each, strict=True)
        return torch.stack([array.backward(d) for array, d in pairs])
    if batch.forward is None:
        batch.read()
    c = batch.arrays[0].periphery.backward
    weights, variances = [w.T for w in batch.weights], [s.T for s in batch.variances]
    reads = [tile.reads.backward for tile in batch.arrays]
    return _matvec(batch.d, weights, variances, c, batch.chances, batch.backward, reads)


def _matvec(
    x: Matrices,
    weights: Sequence[Tensor],
    variances: Sequence[Tensor],
    c: Converters,
    chances: Sequence[Chance],
    convert: Converter,
    reads: Sequence[Reads],
) -> Tensor:
    """Return `periphery.matvec` of each chip, (chips, n, out), in memory that is used again."""
    n, inputs = x.shape
    for own in reads:
        own.vectors += n
    outputs = convert.y.shape[1]
    # Every chip draws these in the same order as alone: one stream does not see the others.
    dither = [chance.uniform(n, inputs) for chance in chances] if c.dithers[0] else None
    noisy = variances or c.output_noise > 0
    normals = [chance.normal(n, outputs) for chance in chances] if noisy else None
    output_dither = [chance.uniform(n, outputs) for chance in chances] if c.dithers[1] else None
    clipped = convert(x, weights, variances or None, c, dither, normals, output_dither)
    if clipped and c.bound_management:
        for k in clipped:
            rows = torch.from_numpy(convert.hits[k]).nonzero().squeeze(1)
            variance = variances[k] if variances else None
            within_bounds(
                convert.y.each[k], rows, x.each[k], weights[k], variance, c, chances[k], reads[k]
            )
    return convert.y.stacked.view_as(convert.y.stacked)


class Sigmoids(torch.autograd.Function):
    """The sigmoid of each chip: one call for all would round some entries in another way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty(x.shape)
        for own, out in zip(x.unbind(), y.unbind(), strict=True):
            torch.sigmoid(own, out=out)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.sigmoid_backward(grads[0], y)
