"""Converters around the patches of images, some images at a time: all patches are never there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mcatrain import kernels
from mcatrain.kernels.windows import Geometry

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

#: Gives dither, normals and output dither of `convert` for so many more rows.
Draw = Callable[[int], tuple[Tensor | None, Tensor | None, Tensor | None]]
#: Numbers of the patches that are made at a time: what passes read and write stays near the core.
CHUNK = 2**19


def convert_patches(
    images: Tensor,
    g: Geometry,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    draw: Draw,
) -> tuple[Tensor, Tensor | None]:
    """Return `convert` of the patches of images (n, height, width, c).

    weights, variance: (out, k k c [+ 1, a bias driven by 1]). draw: called for parts of the rows
    in order. Returns y (n oh ow, out) and the clipped rows (m,), None if m = 0.
    """
    high, wide = g.output(images.shape[1], images.shape[2])
    y = images.new_empty(len(images) * high * wide, len(weights))
    rows, found = None, []
    for part, positions in parts(len(images), high * wide, weights.shape[1]):
        size = positions.stop - positions.start
        if rows is None:
            rows = images.new_ones(size, weights.shape[1])
        kernels.patches(images[part], g, rows[:size])
        y[positions], clipped = kernels.convert(rows[:size], weights, variance, c, 1.0, *draw(size))
        if clipped is not None:
            found.append(clipped + positions.start)
    return y, torch.cat(found) if found else None


def convert_to_patches(
    d: Tensor,
    g: Geometry,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    draw: Draw,
    images: Tensor,
) -> Tensor | None:
    """Add `convert` of the rows of d (n oh ow, in) to the pixels of their patches.

    weights, variance: (k k c [+ 1, of which nothing goes anywhere], in). images: (n, height,
    width, c). Where bounds are managed rows with an output at its bound are left out; returns
    these (m,), None if m = 0.
    """
    high, wide = g.output(images.shape[1], images.shape[2])
    found = []
    for part, positions in parts(len(images), high * wide, len(weights)):
        size = positions.stop - positions.start
        rows, clipped = kernels.convert(d[positions], weights, variance, c, 1.0, *draw(size))
        if clipped is not None and c.bound_management:
            rows[clipped] = 0
            found.append(clipped + positions.start)
        kernels.add_patches(rows, g, images[part])
    return torch.cat(found) if found else None


def parts(images: int, positions: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield the images that are taken at a time, and their positions of ``width`` numbers each."""
    step = max(CHUNK // (positions * width), 1)
    for start in range(0, images, step):
        stop = min(start + step, images)
        yield slice(start, stop), slice(start * positions, stop * positions)
