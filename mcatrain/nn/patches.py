"""Patches of channels-last images as rows of a matrix, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from devicemodels.errors import InputError


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride and dilation of a convolution, each (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the output. Raises InputError for an image too small."""
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        if height < spans[0] or width < spans[1]:
            raise InputError(
                f"an image of {height}x{width} (with padding) is smaller than the kernel's "
                f"{spans[0]}x{spans[1]}: give a larger image or padding"
            )
        return (height - spans[0]) // self.stride[0] + 1, (width - spans[1]) // self.stride[1] + 1


def _window(image: Tensor, g: Geometry, out: tuple[int, int]) -> Tensor:
    """View a channels-last image (n, height, width, c) as (n, *out, *kernel, c)."""
    n, _, _, channels = image.shape
    sn, sh, sw, sc = image.stride()
    return image.as_strided(
        (n, *out, *g.kernel, channels),
        (sn, sh * g.stride[0], sw * g.stride[1], sh * g.dilation[0], sw * g.dilation[1], sc),
        image.storage_offset(),
    )


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
            _spread(rows[:, group], (n, *out), g.kernel, each).copy_(_window(part, g, out))
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
            columns = _spread(d[:, group], (n, *out), g.kernel, each)
            window = _window(part, g, out)
            for row in range(g.kernel[0]):
                for column in range(g.kernel[1]):
                    window[:, :, :, row, column] += columns[:, :, :, row, column]
        return dx.permute(0, 3, 1, 2), None, None, None


def _spread(
    rows: Tensor, positions: tuple[int, int, int], kernel: tuple[int, int], channels: int
) -> Tensor:
    """View the patch part of rows (n height width, >= k k c) as (n, height, width, *kernel, c)."""
    n, height, width = positions
    step = rows.stride(0)
    return rows.as_strided(
        (n, height, width, *kernel, channels),
        (height * width * step, width * step, step, kernel[1] * channels, channels, 1),
        rows.storage_offset(),
    )
