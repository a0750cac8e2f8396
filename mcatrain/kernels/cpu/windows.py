"""Patches of images, run by run: a row of a patch lies in the image as one piece."""

from __future__ import annotations

from typing import Any

from numba import njit
from torch import Tensor

from mcatrain.kernels import windows
from mcatrain.kernels.windows import Geometry


@njit(cache=True, inline="always")
def carry(
    lines: Any, y: int, x: int, channels: int, kernel: Any, stride: Any, dilation: Any, patch: Any,
    back: bool,
) -> None:  # fmt: skip
    """Copy a patch of an image, whose lines are one run of numbers each, into ``patch``; or add
    (``back``) what stands in ``patch`` to its pixels."""
    # A kernel's line is one run of numbers in the image, or one a pixel if it is dilated.
    runs = 1 if dilation[1] == 1 else kernel[1]
    length = kernel[1] * channels // runs
    for k in range(kernel[0]):
        line = lines[y * stride[0] + k * dilation[0]]
        for i in range(runs):
            at = (x * stride[1] + i * dilation[1]) * channels
            to = (k * runs + i) * length
            pixels, part = line[at : at + length], patch[to : to + length]
            if back:
                for j in range(length):
                    pixels[j] += part[j]
            else:
                for j in range(length):
                    part[j] = pixels[j]


@njit(cache=True)
def _move(
    images: Any, channels: int, high: int, wide: int, kernel: Any, stride: Any, dilation: Any,
    rows: Any, back: bool,
) -> None:  # fmt: skip
    """Copy each patch into its row, or add (``back``) each row to its patch."""
    row = 0
    for image in range(images.shape[0]):
        for y in range(high):
            for x in range(wide):
                carry(images[image], y, x, channels, kernel, stride, dilation, rows[row], back)
                row += 1


def _whole(images: Tensor, g: Geometry, rows: Tensor, back: bool) -> Any:
    """Return the arguments of `_move`: images, each line one run of numbers, sizes and rows."""
    n, height, width, channels = images.shape
    lines = images.view(n, height, width * channels).numpy()
    out = g.output(height, width)
    return lines, channels, *out, g.kernel, g.stride, g.dilation, rows.numpy(), back


# A group of channels is no piece of an image: it goes the plain way.
def patches(images: Tensor, g: Geometry, rows: Tensor) -> None:
    if not images.is_contiguous():
        return windows.patches(images, g, rows)
    _move(*_whole(images, g, rows, False))


def add_patches(rows: Tensor, g: Geometry, images: Tensor) -> None:
    if not images.is_contiguous():
        return windows.add_patches(rows, g, images)
    _move(*_whole(images, g, rows, True))
