"""Kernels in Numba, for the CPU: one pass, no temporaries, no compiler needed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mcatrain.kernels import reference

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

_BLOCK = 2048
_MOST_PULSES = float(reference.MOST_PULSES)
_NO_LINE = np.empty(0, dtype=np.float32)
_NO_ARRAY = np.empty((0, 0), dtype=np.float32)
_NO_EVENT = torch.empty(0, dtype=torch.int64)
_FIRST = torch.zeros(1, dtype=torch.int64)


@njit(cache=True, inline="always")
def _round(value: Any, dither: Any, at: int, limit: Any) -> Any:
    """To nearest, or stochastically where there is dither; within the levels."""
    value = np.floor(value + dither[at]) if dither.size else np.rint(value)
    return min(max(value, -limit), limit)


@njit(cache=True)
def _drive(x: Any, levels: int, manage: bool, divisor: Any, dither: Any, out: Any) -> Any:
    """DAC of one vector into ``out``; return the scale to multiply the outputs back with."""
    scale = divisor
    if manage:
        top = np.float32(0.0)
        for j in range(x.size):
            top = max(top, abs(x[j]))
        scale *= top
    over = scale if scale > 0 else np.float32(1.0)
    limit, one = np.float32(levels), np.float32(1.0)
    for j in range(x.size):
        value = x[j] / over
        if levels:
            value = min(max(value, -one), one) * limit
            value = _round(value, dither, j, limit) / limit
        out[j] = value
    return scale


@njit(cache=True)
def _sense(
    y: Any, spread: Any, normals: Any, noise: Any, levels: int, bound: Any, dither: Any, scale: Any
) -> bool:
    """Noise and ADC of one vector of outputs, in place; return whether one is at its bound."""
    clipped = False
    step = bound / np.float32(levels) if levels else np.float32(1.0)
    for i in range(y.size):
        value = y[i]
        if normals.size:
            variance = noise * noise
            if spread.size:
                variance += spread[i]
            value += np.sqrt(variance) * normals[i]
        if abs(value) >= bound:
            clipped = True
            value = min(max(value, -bound), bound)
        if levels:
            value = _round(value / step, dither, i, np.float32(levels)) * step
        y[i] = value * scale
    return clipped


# Sums may be reordered, or the compiler could not add in vectors; nothing else is relaxed.
@njit(cache=True, fastmath={"reassoc", "contract"})
def _products(x: Any, w: Any, s: Any, y: Any, spread: Any) -> None:
    """y = w x and, where s is given, spread = s x^2, in one pass over the array."""
    squares = x * x
    for i in range(w.shape[0]):
        wi, total = w[i], np.float32(0.0)
        if s.size:
            si, variance = s[i], np.float32(0.0)
            for j in range(wi.size):
                total += wi[j] * x[j]
                variance += si[j] * squares[j]
            spread[i] = variance
        else:
            for j in range(wi.size):
                total += wi[j] * x[j]
        y[i] = total


@njit(cache=True)
def _transposed_products(x: Any, w: Any, s: Any, y: Any, spread: Any) -> None:
    """y = w^T x and spread = s^T x^2, row by row of w."""
    y[:] = 0.0
    spread[:] = 0.0
    for i in range(w.shape[0]):
        xi = x[i]
        if xi == 0:
            continue
        wi = w[i]
        for j in range(wi.size):
            y[j] += wi[j] * xi
        if s.size:
            si, square = s[i], xi * xi
            for j in range(si.size):
                spread[j] += si[j] * square


@njit(cache=True)
def _convert_one(
    x: Any, w: Any, s: Any, transposed: bool, in_levels: int, manage: bool, divisor: Any,
    dither: Any, normals: Any, noise: Any, out_levels: int, bound: Any, out_dither: Any, y: Any,
) -> bool:  # fmt: skip
    line = np.empty_like(x)
    scale = _drive(x, in_levels, manage, divisor, dither, line)
    spread = np.empty(y.size if s.size else 0, dtype=np.float32)
    if transposed:
        _transposed_products(line, w, s, y, spread)
    else:
        _products(line, w, s, y, spread)
    return _sense(y, spread, normals, noise, out_levels, bound, out_dither, scale)


def convert(
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    divisor: float,
    dither: Tensor | None,
    normals: Tensor | None,
    output_dither: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    if len(x) > 1:
        # A batch is a matrix product: torch's own, with the reference around it.
        return reference.convert(x, weights, variance, c, divisor, dither, normals, output_dither)
    transposed = not weights.is_contiguous()
    y = x.new_empty(1, len(weights))
    s = variance
    if transposed:
        weights, s = weights.T, None if s is None else s.T
    clipped = _convert_one(
        x.numpy()[0], weights.numpy(), _NO_ARRAY if s is None else s.numpy(), transposed,
        c.input_levels, c.noise_management, np.float32(divisor),
        _line(dither), _line(normals), np.float32(c.output_noise), c.output_levels,
        np.float32(c.output_bound), _line(output_dither), y.numpy()[0],
    )  # fmt: skip
    return y, _FIRST if clipped else None


def _line(values: Tensor | None) -> Any:
    return _NO_LINE if values is None else values.numpy()[0]


@njit(cache=True)
def _count_hits(chi: Any, threshold: Any, hits: Any) -> int:
    total = 0
    for block in range(hits.size):
        found = 0
        # A slice and no branch: the compiler turns this loop into vector compares (9x).
        part = chi[block * _BLOCK : (block + 1) * _BLOCK]
        for i in range(part.size):
            found += abs(part[i]) >= threshold
        hits[block] = found
        total += found
    return total


@njit(cache=True)
def _take(
    chi: Any, block: int, threshold: Any, epsilon: float, hits: Any, index: Any, count: Any
) -> int:
    n = 0
    for b in range(hits.size):
        if not hits[b]:
            continue
        for i in range(b * block, min((b + 1) * block, chi.size)):
            if abs(chi[i]) >= threshold:
                value = np.float64(chi[i])
                pulses = math.trunc(min(max(value / epsilon, -_MOST_PULSES), _MOST_PULSES))
                if pulses != 0:
                    index[n], count[n] = i, pulses
                    n += 1
                    chi[i] = value - pulses * epsilon
    return n


def _collect(
    chi: Any, block: int, threshold: Any, epsilon: float, hits: Any, total: int
) -> tuple[Tensor, Tensor]:
    """Take the pulses out of the blocks of chi that were hit."""
    if not total:
        return _NO_EVENT, _NO_EVENT
    index = torch.empty(total, dtype=torch.int64)
    count = torch.empty(total, dtype=torch.int64)
    n = _take(chi, block, threshold, epsilon, hits, index.numpy(), count.numpy())
    return index[:n], count[:n]


def _threshold(epsilon: float) -> Any:
    # A hair low, so that rounding to float32 hides no pulse; _take decides in float64.
    return np.float32(epsilon * (1 - 1e-6))


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    flat, threshold = chi.detach().view(-1).numpy(), _threshold(epsilon)
    hits = np.empty(-(-flat.size // _BLOCK), dtype=np.int32)
    total = _count_hits(flat, threshold, hits)
    return _collect(flat, _BLOCK, threshold, epsilon, hits, total)


@njit(cache=True)
def _accumulate(chi: Any, x: Any, d: Any, scale: Any, threshold: Any, hit_rows: Any) -> int:
    """chi += scale d x^T, touching only nonzero rows and columns; count and mark the hits."""
    columns = np.nonzero(x)[0]
    values = x[columns]
    sparse = 3 * columns.size < x.size
    total = 0
    for i in range(d.size):
        factor, row, hits = scale * d[i], chi[i], 0
        if factor != 0:
            if sparse:
                for k in range(columns.size):
                    j = columns[k]
                    row[j] += factor * values[k]
                    hits += abs(row[j]) >= threshold
            else:
                for j in range(row.size):
                    row[j] += factor * x[j]
                for j in range(row.size):
                    hits += abs(row[j]) >= threshold
        hit_rows[i] = hits
        total += hits
    return total


def accumulate(
    chi: Tensor, x: Tensor, d: Tensor, scale: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    array, threshold = chi.detach().numpy(), _threshold(epsilon)
    hits = np.empty(len(array), dtype=np.int32)
    total = _accumulate(array, x.numpy(), d.numpy(), np.float32(scale), threshold, hits)
    return _collect(array.reshape(-1), array.shape[1], threshold, epsilon, hits, total)


@njit(cache=True)
def _stream(values: Any, gain: Any, chance: Any, lines: Any, bits: Any) -> int:
    """Pack the slots in which each line fires, 64 to a word; keep the lines that fire at all."""
    n = 0
    words = bits.shape[0]
    for j in range(values.size):
        probability = gain * abs(values[j])
        if probability == 0:
            continue
        fired = False
        for w in range(words):
            word = np.uint64(0)
            for s in range(w * 64, min((w + 1) * 64, chance.shape[0])):
                if chance[s, j] < probability:
                    word |= np.uint64(1) << np.uint64(s - w * 64)
            bits[w, n] = word
            fired |= word != 0
        if fired:
            lines[n] = j
            n += 1
    return n


@njit(cache=True, inline="always")
def _ones(word: Any) -> Any:
    """Number of set bits (the SWAR population count)."""
    v = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    v = (v & np.uint64(0x3333333333333333)) + ((v >> np.uint64(2)) & np.uint64(0x3333333333333333))
    v = (v + (v >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (v * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(cache=True)
def _coincide(x: Any, d: Any, gain_x: Any, gain_d: Any, chance_x: Any, chance_d: Any) -> Any:
    words = (chance_x.shape[0] + 63) // 64
    columns, rows = np.empty(x.size, np.int64), np.empty(d.size, np.int64)
    a = np.empty((words, x.size), np.uint64)
    b = np.empty((words, d.size), np.uint64)
    n_columns = _stream(x, gain_x, chance_x, columns, a)
    n_rows = _stream(d, gain_d, chance_d, rows, b)
    index = np.empty(n_rows * n_columns, np.int64)
    count = np.empty(n_rows * n_columns, np.int64)
    n = 0
    for r in range(n_rows):
        row = rows[r]
        for c in range(n_columns):
            met = np.uint64(0)
            for w in range(words):
                met += _ones(a[w, c] & b[w, r])
            if met:
                index[n] = row * x.size + columns[c]
                count[n] = -np.int64(met) if (x[columns[c]] > 0) == (d[row] > 0) else np.int64(met)
                n += 1
    return index[:n], count[:n]


def coincidences(
    x: Tensor, d: Tensor, gain_x: float, gain_d: float, chance_x: Tensor, chance_d: Tensor
) -> tuple[Tensor, Tensor]:
    index, count = _coincide(
        x.numpy(), d.numpy(), np.float32(gain_x), np.float32(gain_d),
        chance_x.numpy(), chance_d.numpy(),
    )  # fmt: skip
    return torch.from_numpy(index), torch.from_numpy(count)
