"""Converters around the patches of images: no patch is written down before it is a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from devicemodels.kernels.cpu.vectors import from_bfloat16, to_bfloat16
from mcatrain.kernels import patchwise
from mcatrain.kernels.cpu.digits import MOST, Digits, multiplies_int8
from mcatrain.kernels.cpu.passes import (
    LEAST,
    bits,
    drive_rows,
    reaches,
    rows,
    sense_rows,
    steps,
    top,
    within,
)
from mcatrain.kernels.cpu.products import product
from mcatrain.kernels.cpu.windows import carry
from mcatrain.kernels.patchwise import Draw
from mcatrain.kernels.reference import noise_product
from mcatrain.kernels.windows import Geometry

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

#: Matrices whose rows begin at multiples of so many numbers multiply faster, and loops over whole
#: rows leave no rest.
_LINE = 64
#: Numbers of outputs that are on their way back to pixels at a time: they stay near the core.
_BAND = 2**17


@njit(cache=True)
def _drive_patches(
    images: Any, channels: int, high: int, wide: int, kernel: Any, stride: Any, dilation: Any,
    patch: Any, levels: int, manage: bool, out: Any, digits: Any, squares: Any, scale: Any,
) -> None:  # fmt: skip
    """DAC of each patch into its row of ``out``, or of ``digits`` as whole levels; its squares
    where asked for, its scale."""
    one, limit, level = np.float32(1.0), np.float32(levels), np.float32(1 / levels)
    found = np.empty_like(patch)
    row = 0
    for image in range(images.shape[0]):
        for y in range(high):
            for x in range(wide):
                carry(images[image], y, x, channels, kernel, stride, dilation, patch, False)
                s = top(patch) if manage else one
                scale[row] = s
                # What is no number makes no digit: the scale hands it on.
                over = one / s if s >= LEAST else one if s >= 0 else np.float32(0.0)
                for j in range(patch.size):
                    found[j] = np.rint(within(patch[j] * over, one) * limit)
                if digits.size:
                    digit = digits[row]
                    for j in range(found.size):
                        digit[j] = np.int8(np.int32(found[j]))
                for j in range(found.size):
                    found[j] *= level
                if out.size:
                    out[row] = found
                if squares.size:
                    square = squares[row]
                    for j in range(found.size):
                        square[j] = to_bfloat16(found[j] * found[j])
                row += 1


def convert_patches(
    images: Tensor,
    g: Geometry,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    draw: Draw,
) -> tuple[Tensor, Tensor | None]:
    if not c.input_levels or c.dithers[0] or not images.is_contiguous():
        return patchwise.convert_patches(images, g, weights, variance, c, draw)
    n, height, width, channels = images.shape
    out = g.output(height, width)
    inputs = weights.shape[1]
    pitch = _whole(inputs)
    patch = np.zeros(pitch, np.float32)
    patch[g.kernel[0] * g.kernel[1] * channels : inputs] = 1.0  # the bias, where there is one
    lines = images.view(n, height, width * channels).numpy()
    count = n * out[0] * out[1]
    y = torch.empty(count, len(weights))
    scale, hits = np.empty(count, np.float32), np.empty(count, np.int64)
    # A line is written down in one of two forms, as the product wants it.
    digits = weights_of = None
    if c.noise_management and c.input_levels <= MOST and multiplies_int8():
        digits = Digits(weights, pitch, 1 / c.input_levels)
    else:
        weights_of = _padded(weights, pitch)
    noise = None if variance is None else _padded(variance, pitch)
    total, parts = 0, list(patchwise.parts(n, out[0] * out[1], inputs))
    most = parts[0][1].stop
    line = torch.empty(most if digits is None else 0, pitch)
    whole = torch.empty(0 if digits is None else most, pitch, dtype=torch.int8)
    squares = torch.empty(0 if noise is None else most, pitch, dtype=torch.bfloat16)
    for part, positions in parts:
        size = positions.stop - positions.start
        _drive_patches(
            lines[part], channels, *out, g.kernel, g.stride, g.dilation, patch, c.input_levels,
            c.noise_management, line.numpy(), whole.numpy(), bits(squares), scale[positions],
        )  # fmt: skip
        ys = y[positions]
        if digits is not None:
            digits.products(whole[:size], ys)
        elif weights_of is not None:
            product(line[:size], weights_of, ys)
        spread = None if noise is None else noise_product(squares[:size], noise)
        _, normals, dither = draw(size)
        total += sense_rows(
            ys.numpy(), bits(spread), rows(normals), np.float32(c.output_noise), c.output_levels,
            np.float32(c.output_bound), rows(dither), scale[positions], hits[positions],
        )  # fmt: skip
    return y, torch.from_numpy(hits).nonzero().squeeze(1) if total else None


@njit(cache=True)
def _sense_patches(
    y: Any, outputs: int, spread: Any, normals: Any, noise: Any, levels: int, bound: Any,
    dither: Any, scale: Any, leave: bool, hits: Any, images: Any, channels: int, high: int,
    wide: int, kernel: Any, stride: Any, dilation: Any,
) -> int:  # fmt: skip
    """Noise and ADC of every row of outputs; add it to its patch, or leave it at the bound."""
    step, rate = steps(levels, bound)
    limit, own = np.float32(levels), noise * noise
    row = total = 0
    for image in range(images.shape[0]):
        for line in range(high):
            for x in range(wide):
                yr, s = y[row, :outputs], scale[row]
                if normals.size and spread.size:
                    z, v = normals[row], spread[row]
                    for i in range(outputs):
                        yr[i] += np.sqrt(own + from_bfloat16(v[i])) * z[i]
                elif normals.size:
                    z = normals[row]
                    for i in range(outputs):
                        yr[i] += noise * z[i]
                hits[row] = leave and reaches(yr, bound)
                total += hits[row]
                if levels and dither.size:
                    u = dither[row]
                    for i in range(outputs):
                        value = np.floor(within(yr[i], bound) * rate + u[i])
                        yr[i] = within(value, limit) * step * s
                elif levels:
                    for i in range(outputs):
                        yr[i] = np.rint(within(yr[i], bound) * rate) * step * s
                else:
                    for i in range(outputs):
                        yr[i] = within(yr[i], bound) * s
                if not hits[row]:
                    carry(images[image], line, x, channels, kernel, stride, dilation, yr, True)
                row += 1
    return total


def convert_to_patches(
    d: Tensor,
    g: Geometry,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    draw: Draw,
    images: Tensor,
) -> Tensor | None:
    if not c.input_levels or c.dithers[0] or not images.is_contiguous():
        return patchwise.convert_to_patches(d, g, weights, variance, c, draw, images)
    n, height, width, channels = images.shape
    out = g.output(height, width)
    outputs, inputs = weights.shape
    pitch = _whole(outputs)
    lines = images.view(n, height, width * channels).numpy()
    scale, hits = np.empty(len(d), np.float32), np.empty(len(d), np.int64)
    weights = _padded(weights.T, pitch).T
    noise = None if variance is None else _padded(variance.T, pitch)
    total, parts = 0, list(patchwise.parts(n, out[0] * out[1], outputs))
    most = parts[0][1].stop
    line = torch.empty(most, inputs)
    squares, spread = (
        torch.empty(0 if noise is None else most, width, dtype=torch.bfloat16)
        for width in (inputs, pitch)
    )
    for part, positions in parts:
        size = positions.stop - positions.start
        drive_rows(
            d[positions].numpy(), c.input_levels, c.noise_management, np.float32(1.0), rows(None),
            line.numpy(), bits(squares), scale[positions],
        )  # fmt: skip
        if noise is not None:
            noise_product(squares[:size], noise.T, spread[:size])
        for own, pixels, band in _bands(part, g, out, pitch):
            here = slice(band.start - positions.start, band.stop - positions.start)
            length = band.stop - band.start
            ys = product(line[here], weights)
            _, normals, dither = draw(length)
            total += _sense_patches(
                ys.numpy(), outputs, bits(spread[here]), rows(normals), np.float32(c.output_noise),
                c.output_levels, np.float32(c.output_bound), rows(dither), scale[band],
                c.bound_management, hits[band], lines[own, pixels], channels,
                length // (out[1] * (own.stop - own.start)), out[1], g.kernel, g.stride,
                g.dilation,
            )  # fmt: skip
    return torch.from_numpy(hits).nonzero().squeeze(1) if total else None


def _bands(
    images: slice, g: Geometry, out: tuple[int, int], width: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Yield images, of each the lines of pixels, and the positions that are done at a time.

    Whole images, or of one image the lines that some lines of positions see.
    """
    high, wide = out
    lines = max(_BAND // (wide * width), 1)
    several = max(lines // high, 1)
    for image in range(images.start, images.stop, several):
        stop = min(image + several, images.stop)
        for y in range(0, high, lines):
            end = min(y + lines, high)
            first = image * high * wide
            last = (end - 1) * g.stride[0] + (g.kernel[0] - 1) * g.dilation[0] + 1
            yield (
                slice(image, stop),
                slice(y * g.stride[0], last),
                slice(first + y * wide, first + (stop - image - 1) * high * wide + end * wide),
            )


def _whole(width: int) -> int:
    return -(-width // _LINE) * _LINE


def _padded(matrix: Tensor, width: int) -> Tensor:
    """Return a matrix in rows of ``width`` numbers, the further ones 0."""
    wide = matrix.new_zeros(len(matrix), width)
    wide[:, : matrix.shape[1]] = matrix
    return wide
