"""torch's own convolution in place of patches, where nothing stands between image and array."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from mcatrain.kernels.reference import noise_type
from mcatrain.kernels.windows import Geometry
from mcatrain.tile import Tile


class NativeConvolution(torch.autograd.Function):
    """The product of `ArrayProduct` on the patches of an image, without making the patches.

    Read noise is independent at every position, so that an output has the variance conv(x^2, S);
    what goes back to a pixel is the sum over positions, with the variance conv^T(d^2, S).
    """

    @staticmethod
    def serves(tile: Tile) -> bool:
        """Whether the tile's converters are ideal and nobody wants the patches themselves."""
        return tile.reads_plainly and tile.factors != "must"

    @staticmethod
    def forward(ctx: Any, image: Tensor, chi: Tensor, tile: Tile, g: Geometry) -> Tensor:
        now_s = tile.now_s
        ctx.tile, ctx.geometry, ctx.channels = tile, g, image.shape[1]
        g.output(image.shape[2], image.shape[3])  # raises for an image too small
        weight, bias = _kernel(tile.synapse.weights(now_s), g, ctx.channels)
        image = image.contiguous(memory_format=torch.channels_last)
        y = conv2d(image, weight, bias, g.stride, 0, g.dilation)
        tile.reads.forward.vectors += y[:, 0].numel()
        variance = tile.synapse.read_variance(now_s)
        if variance is not None:
            variance = variance.to(noise_type(variance))
            spread, bias_spread = _kernel(variance, g, ctx.channels)
            squares = image.square().to(variance.dtype)
            noise = conv2d(squares, spread, bias_spread, g.stride, 0, g.dilation)
            y = y.addcmul_(_normal_like(tile, y), noise.float().sqrt_())
        ctx.save_for_backward(image)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (image,) = ctx.saved_tensors
        tile: Tile = ctx.tile
        g: Geometry = ctx.geometry
        d = grads[0].contiguous(memory_format=torch.channels_last)
        dx = gradient = None
        if ctx.needs_input_grad[0]:
            weight, _ = _kernel(tile.synapse.weights(tile.now_s), g, ctx.channels)
            dx, _, _ = _transposed(d, image, weight, g, [True, False, False])
            tile.reads.backward.vectors += d[:, 0].numel()
            variance = tile.synapse.read_variance(tile.now_s)
            if variance is not None:
                variance = variance.to(noise_type(variance))
                spread, _ = _kernel(variance, g, ctx.channels)
                squares = d.square().to(variance.dtype)
                like = image.to(variance.dtype)  # says the shape; its values do not matter
                noise, _, _ = _transposed(squares, like, spread, g, [True, False, False])
                dx = dx.addcmul_(_normal_like(tile, dx), noise.float().clamp_(min=0).sqrt_())
        if tile.chi.requires_grad:
            tile.examples += len(image)
            gradient = weight_gradient(tile, image, d, g)
        return dx, gradient, None, None


def weight_gradient(tile: Tile, image: Tensor, d: Tensor, g: Geometry) -> Tensor:
    """Return the gradient (out, in) of a tile's weights: d (n, out, oh, ow), channels last."""
    like, bias = _kernel(tile.chi, g, image.shape[1])  # says the shape
    _, dw, _ = _transposed(d, image, like, g, [False, True, False])
    gradient = torch.empty_like(tile.chi)
    tile.ledger.update_vectors += d[:, 0].numel()
    fan_in = dw[0].numel()
    gradient[:, :fan_in] = dw.permute(0, 2, 3, 1).reshape(len(dw), fan_in)
    if bias is not None:
        gradient[:, fan_in] = d.sum((0, 2, 3))
    return gradient


def _kernel(rows: Tensor, g: Geometry, channels: int) -> tuple[Tensor, Tensor | None]:
    """Return the rows (out, k k in [+ 1]) of an array as a channels-last kernel and the bias."""
    fan_in = g.kernel[0] * g.kernel[1] * channels
    kernel = rows[:, :fan_in].reshape(len(rows), *g.kernel, channels).permute(0, 3, 1, 2)
    return kernel, rows[:, fan_in].contiguous() if rows.shape[1] > fan_in else None


def _transposed(d: Tensor, image: Tensor, weight: Tensor, g: Geometry, wanted: list[bool]) -> Any:
    return torch.ops.aten.convolution_backward(
        d, image, weight, None, g.stride, (0, 0), g.dilation, False, (0, 0), 1, wanted
    )


def _normal_like(tile: Tile, y: Tensor) -> Tensor:
    n, channels, height, width = y.shape
    return tile.chance.normal(n, height, width, channels).permute(0, 3, 1, 2)
