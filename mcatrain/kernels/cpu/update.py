"""What an update asks of chi: a sparse list of pulses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mcatrain.kernels import reference

_BLOCK = 2048
_MOST_PULSES = float(reference.MOST_PULSES)
_NO_EVENT = torch.empty(0, dtype=torch.int64)
_NO_GRADIENT = np.empty(0, dtype=np.float32)


# Sums may be reordered, no more: 0 times what is no finite number is NaN.
@njit(cache=True, fastmath={"reassoc"})
def trouble(values: Any) -> Any:
    """Return 0, or NaN where a number of values (n,) is not finite."""
    total, none = np.float32(0.0), np.float32(0.0)
    for i in range(values.size):
        total += none * values[i]
    return total


@njit(cache=True)
def _troubles(arrays: Any) -> Any:
    total = np.float32(0.0)
    for values in arrays:
        total += trouble(values)
    return total


def is_finite(*values: Tensor) -> bool:
    for v in values:
        if v.dtype != torch.float32 or not v.is_contiguous():
            return reference.is_finite(*values)
    # In one call: of the factors of a gradient, which are small, that is what costs.
    return not math.isnan(_troubles(tuple(map(_flat, values))))


@njit(cache=True)
def _count_hits(chi: Any, gradient: Any, scale: Any, threshold: Any, hits: Any) -> int:
    """Count and mark the hits, after adding a gradient, if any, to the block of chi at hand."""
    total = 0
    for block in range(hits.size):
        found = 0
        # A slice and no branch: the compiler turns this loop into vector compares (9x).
        part = chi[block * _BLOCK : (block + 1) * _BLOCK]
        slope = gradient[block * _BLOCK : (block + 1) * _BLOCK]
        for i in range(slope.size):
            part[i] += scale * slope[i]
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
    index, count = np.empty(total, np.int64), np.empty(total, np.int64)
    n = _take(chi, block, threshold, epsilon, hits, index, count)
    return torch.from_numpy(index[:n]), torch.from_numpy(count[:n])


def _threshold(epsilon: float) -> Any:
    # A hair low, so that rounding to float32 hides no pulse; _take decides in float64.
    return np.float32(epsilon * (1 - 1e-6))


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return _spend(chi, _NO_GRADIENT, 0.0, epsilon)


def descend(chi: Tensor, gradient: Tensor, scale: float, epsilon: float) -> tuple[Tensor, Tensor]:
    return _spend(chi, _flat(gradient), scale, epsilon)


def _flat(values: Tensor) -> Any:
    """Return a contiguous tensor's numbers (n,)."""
    assert values.is_contiguous()
    return values.detach().numpy().reshape(-1)  # numpy's own: torch's view takes five times longer


def _spend(chi: Tensor, gradient: Any, scale: float, epsilon: float) -> tuple[Tensor, Tensor]:
    flat, threshold = _flat(chi), _threshold(epsilon)
    hits = np.empty(-(-flat.size // _BLOCK), dtype=np.int32)
    total = _count_hits(flat, gradient, np.float32(scale), threshold, hits)
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
