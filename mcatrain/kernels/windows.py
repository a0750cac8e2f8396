"""Patches of images in plain torch: views of the image and of the rows that its patches make."""

from __future__ import annotations

from dataclasses import dataclass

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


def patches(images: Tensor, g: Geometry, rows: Tensor) -> None:
    """Write the patches of images (n, height, width, c) into rows (n oh ow, >= k k c).

    Columns lie in the order (kernel row, kernel column, channel); further ones are left alone.
    """
    _spread(rows, images, g).copy_(_window(images, g))


def add_patches(rows: Tensor, g: Geometry, images: Tensor) -> None:
    """Add rows (n oh ow, >= k k c) to the pixels (n, height, width, c) of their patches."""
    window, columns = _window(images, g), _spread(rows, images, g)
    for row in range(g.kernel[0]):
        for column in range(g.kernel[1]):
            window[:, :, :, row, column] += columns[:, :, :, row, column]


def patches_at(images: Tensor, g: Geometry, rows: Tensor) -> Tensor:
    """Return some patches (m, k k c): rows (m,) are numbers of rows of `patches`, int64."""
    high, wide = g.output(images.shape[1], images.shape[2])
    at = rows // (high * wide), rows // wide % high, rows % wide
    return _window(images, g)[at].flatten(1)


def _window(images: Tensor, g: Geometry) -> Tensor:
    """View images as (n, oh, ow, *kernel, c)."""
    n, height, width, channels = images.shape
    sn, sh, sw, sc = images.stride()
    return images.as_strided(
        (n, *g.output(height, width), *g.kernel, channels),
        (sn, sh * g.stride[0], sw * g.stride[1], sh * g.dilation[0], sw * g.dilation[1], sc),
        images.storage_offset(),
    )


def _spread(rows: Tensor, images: Tensor, g: Geometry) -> Tensor:
    """View the patch part of rows as (n, oh, ow, *kernel, c)."""
    n, height, width, channels = images.shape
    high, wide = g.output(height, width)
    step = rows.stride(0)
    return rows.as_strided(
        (n, high, wide, *g.kernel, channels),
        (high * wide * step, wide * step, step, g.kernel[1] * channels, channels, 1),
        rows.storage_offset(),
    )
