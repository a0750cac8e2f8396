"""Kernels in Numba, for the CPU: one pass, no temporaries, no compiler needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

_NOTHING = np.empty((0, 0), dtype=np.float32)
_BLOCK = 2048


@njit(cache=True)
def _dac(x: Any, levels: int, manage: bool, dither: Any, out: Any, scale: Any) -> None:
    for r in range(x.shape[0]):
        top = np.float32(1.0)
        if manage:
            top = np.float32(0.0)
            for j in range(x.shape[1]):
                top = max(top, abs(x[r, j]))
        scale[r, 0] = top
        divisor = top if top > 0 else np.float32(1.0)
        for j in range(x.shape[1]):
            value = x[r, j] / divisor
            if levels:
                value = min(max(value, np.float32(-1.0)), np.float32(1.0)) * np.float32(levels)
                if dither.size:
                    value = np.floor(value + dither[r, j])
                else:
                    value = np.rint(value)
                limit = np.float32(levels)
                value = min(max(value, -limit), limit) / limit
            out[r, j] = value


def dac(
    x: Tensor, levels: int, noise_management: bool, dither: Tensor | None
) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    out, scale = torch.empty_like(x), x.new_empty(len(x), 1)
    _dac(
        x.numpy(), levels, noise_management,
        _NOTHING if dither is None else dither.numpy(), out.numpy(), scale.numpy(),
    )  # fmt: skip
    return out, scale


@njit(cache=True)
def _adc(
    y: Any, variance: Any, normals: Any, noise: float, levels: int, bound: float, clipped: Any
) -> int:
    hits = 0
    step = np.float32(bound / levels) if levels else np.float32(1.0)
    limit = np.float32(bound)
    for r in range(y.shape[0]):
        hit = False
        for i in range(y.shape[1]):
            value = y[r, i]
            if variance.size:
                value += np.sqrt(variance[r, i] + np.float32(noise * noise)) * normals[r, i]
            if abs(value) >= limit:
                hit = True
                value = min(max(value, -limit), limit)
            if levels:
                value = np.rint(value / step) * step
            y[r, i] = value
        if hit:
            clipped[hits] = r
            hits += 1
    return hits


def adc(
    y: Tensor,
    variance: Tensor | None,
    normals: Tensor | None,
    noise: float,
    levels: int,
    bound: float,
) -> tuple[Tensor, Tensor | None]:
    y = y.contiguous()
    clipped = torch.empty(len(y), dtype=torch.int64)
    quiet = variance is None or normals is None
    hits = _adc(
        y.numpy(), _NOTHING if quiet else variance.numpy(),  # type: ignore[union-attr]
        _NOTHING if quiet else normals.numpy(),  # type: ignore[union-attr]
        noise, levels, bound, clipped.numpy(),
    )  # fmt: skip
    return y, clipped[:hits] if hits and not math.isinf(bound) else None


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
def _take(chi: Any, threshold: Any, epsilon: float, hits: Any, index: Any, count: Any) -> int:
    n = 0
    for block in range(hits.size):
        if not hits[block]:
            continue
        for i in range(block * _BLOCK, min((block + 1) * _BLOCK, chi.size)):
            if abs(chi[i]) >= threshold:
                value = np.float64(chi[i])
                pulses = math.trunc(value / epsilon)
                if pulses != 0:
                    index[n], count[n] = i, pulses
                    n += 1
                    chi[i] = value - pulses * epsilon
    return n


_EMPTY = torch.empty(0, dtype=torch.int64)


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    flat = chi.detach().view(-1).numpy()
    threshold = np.float32(epsilon * (1 - 1e-6))
    hits = np.empty(-(-flat.size // _BLOCK), dtype=np.int32)
    total = _count_hits(flat, threshold, hits)
    if not total:
        return _EMPTY, _EMPTY
    index = torch.empty(total, dtype=torch.int64)
    count = torch.empty(total, dtype=torch.int64)
    n = _take(flat, threshold, epsilon, hits, index.numpy(), count.numpy())
    return index[:n], count[:n]


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
