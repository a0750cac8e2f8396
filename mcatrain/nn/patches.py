"""Patches of an image, each a row for an array: the unfolding behind a convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mcatrain import kernels
from mcatrain.kernels.windows import Geometry


class Patches(torch.autograd.Function):
    """The rows (n height width, groups (k k in/groups [+ 1])) of an image (n, in, h, w)."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, g: Geometry, groups: int, bias: bool) -> Tensor:
        ctx.shape, ctx.geometry, ctx.groups, ctx.bias = image.shape, g, groups, bias
        n, channels, height, width = image.shape
        out = g.output(height, width)
        size = g.kernel[0] * g.kernel[1]
        each = channels // groups
        # Channels last: a row of a patch is then few contiguous runs.
        last = image.permute(0, 2, 3, 1).contiguous()
        rows = image.new_empty(n * out[0] * out[1], groups, size * each + bias)
        if bias:
            rows[:, :, -1] = 1.0
        for group in range(groups):
            part = last[..., group * each : (group + 1) * each]
            kernels.patches(part, g, rows[:, group])
        return rows.view(len(rows), -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        n, channels, height, width = ctx.shape
        g, each = ctx.geometry, channels // ctx.groups
        out = g.output(height, width)
        d = grads[0].contiguous().view(n * out[0] * out[1], ctx.groups, -1)
        dx = d.new_zeros(n, height, width, channels)
        for group in range(ctx.groups):
            part = dx[..., group * each : (group + 1) * each]
            kernels.add_patches(d[:, group], g, part)
        return dx.permute(0, 3, 1, 2), None, None, None
