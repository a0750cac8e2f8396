"""Patches of images, run by run: a row of a patch lies in the image as one piece."""

from __future__ import annotations

from typing import Any

from numba import njit
from torch import Tensor

from mcatrain.kernels import windows
from mcatrain.kernels.windows import Geometry


@njit(cache=True)
def _patches(
    images: Any, channels: int, high: int, wide: int, kernel: Any, stride: Any, dilation: Any,
    rows: Any,
) -> None:  # fmt: skip
    run = kernel[1] * channels
    row = 0
    for image in range(images.shape[0]):
        for y in range(high):
            for x in range(wide):
                out = rows[row]
                row += 1
                for k in range(kernel[0]):
                    line = images[image, y * stride[0] + k * dilation[0]]
                    start = x * stride[1] * channels
                    if dilation[1] == 1:
                        to, given = out[k * run : (k + 1) * run], line[start : start + run]
                        for j in range(run):
                            to[j] = given[j]
                        continue
                    for i in range(kernel[1]):
                        at = start + i * dilation[1] * channels
                        for j in range(channels):
                            out[k * run + i * channels + j] = line[at + j]


@njit(cache=True)
def _add_patches(
    images: Any, channels: int, high: int, wide: int, kernel: Any, stride: Any, dilation: Any,
    rows: Any,
) -> None:  # fmt: skip
    run = kernel[1] * channels
    row = 0
    for image in range(images.shape[0]):
        for y in range(high):
            for x in range(wide):
                given = rows[row]
                row += 1
                for k in range(kernel[0]):
                    line = images[image, y * stride[0] + k * dilation[0]]
                    start = x * stride[1] * channels
                    if dilation[1] == 1:
                        to, part = line[start : start + run], given[k * run : (k + 1) * run]
                        for j in range(run):
                            to[j] += part[j]
                        continue
                    for i in range(kernel[1]):
                        at = start + i * dilation[1] * channels
                        for j in range(channels):
                            line[at + j] += given[k * run + i * channels + j]


def _whole(images: Tensor, g: Geometry, rows: Tensor) -> Any:
    """Return images, each line one run of numbers, the sizes that loops go by, and the rows."""
    n, height, width, channels = images.shape
    lines = images.view(n, height, width * channels).numpy()
    out = g.output(height, width)
    return lines, channels, *out, g.kernel, g.stride, g.dilation, rows.numpy()


# A group of channels is no piece of an image: it goes the plain way.
def patches(images: Tensor, g: Geometry, rows: Tensor) -> None:
    if not images.is_contiguous():
        return windows.patches(images, g, rows)
    _patches(*_whole(images, g, rows))


def add_patches(rows: Tensor, g: Geometry, images: Tensor) -> None:
    if not images.is_contiguous():
        return windows.add_patches(rows, g, images)
    _add_patches(*_whole(images, g, rows))
