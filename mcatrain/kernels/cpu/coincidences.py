"""Coincidences of bit streams: row after row, or summed over many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mcatrain.kernels import reference
from mcatrain.kernels.cpu.streams import WORD, by_slot, fire, fired, lines, ones

#: Events that find room from the start.
_ROOM = 4096


@njit(cache=True)
def _firings(words: Any) -> Any:
    total = np.uint64(0)
    for r in range(words.size):
        total += ones(np.uint64(np.uint32(words[r])))
    return np.int64(total)


@njit(cache=True)
def _coincidences(words: Any, sizes: Any) -> int:
    """Return how often the lines ``words`` meet the ``sizes`` lines that fire in each slot."""
    total = 0
    for s in range(sizes.size):
        firing = 0
        for r in range(words.size):
            firing += (words[r] >> np.int32(s)) & 1
        total += firing * sizes[s]
    return total


# Lines of x and d as `lines` lists them. Signs that differ make -x d positive: an up pulse.
@njit(cache=True)
def _meet_by_slot(
    lists: Any, sizes: Any, words_d: Any, code_d: Any, inputs: int, index: Any, count: Any
) -> None:
    """List the weights both of whose lines fire, slot by slot: an event is one pulse."""
    n = 0
    for r in range(words_d.size):
        start, positive = (code_d[r] >> 1) * inputs, code_d[r] & 1
        word = np.uint64(np.uint32(words_d[r]))
        while word:
            rest = word & (word - np.uint64(1))
            s = ones((word ^ rest) - np.uint64(1))
            for k in range(sizes[s]):
                index[n + k] = start + (lists[s, k] >> 1)
                count[n + k] = 2 * ((lists[s, k] & 1) ^ positive) - 1
            n += sizes[s]
            word = rest


@njit(cache=True)
def _meet_by_pair(
    words_x: Any, code_x: Any, words_d: Any, code_d: Any, inputs: int, index: Any, count: Any
) -> Any:
    """List the weights both of whose lines fire in a slot: an event is all their pulses."""
    n = np.uint64(0)
    for r in range(words_d.size):
        start, positive = (code_d[r] >> 1) * inputs, code_d[r] & 1
        for c in range(words_x.size):
            met = np.uint64(np.uint32(words_x[c] & words_d[r]))
            index[n] = start + (code_x[c] >> 1)
            count[n] = np.int64(ones(met)) * (2 * ((code_x[c] & 1) ^ positive) - 1)
            n += min(met, np.uint64(1))  # `met > 0` becomes a branch that cannot be foreseen
    return np.int64(n)


@njit(cache=True)
def _longer(values: Any, n: int, size: int) -> Any:
    grown = np.empty(size, values.dtype)
    grown[:n] = values[:n]
    return grown


@njit(cache=True)
def _in_order(x: Any, d: Any, gains_x: Any, gains_d: Any, slots: Any, state: Any, most: int) -> Any:
    size = max(x.shape[1], d.shape[1])
    code, last = np.empty((2, size), np.int64), np.empty((2, size), np.int32)
    bits, words = np.empty(WORD * size // 2, np.uint64), np.empty(size, np.int32)
    met, line = np.empty((2, size), np.int32), np.empty((2, size), np.int64)
    lists, sizes = np.empty((WORD, x.shape[1]), np.int64), np.empty(WORD, np.int64)
    index, count = np.empty(_ROOM, np.int64), np.empty(_ROOM, np.int64)
    n = row = 0
    while row < len(x) and n < most:
        n_x = lines(x[row], gains_x[row], code[0], last[0])
        n_d = lines(d[row], gains_d[row], code[1], last[1])
        for first in range(0, slots[row] if n_x and n_d else 0, WORD):
            length = min(slots[row] - first, WORD)
            state = fire(last[0, :n_x], length, bits, words, state)
            a = fired(words[:n_x], code[0], met[0], line[0])
            state = fire(last[1, :n_d], length, bits, words, state)
            b = fired(words[:n_d], code[1], met[1], line[1])
            # By pair costs a step a pair; by slot one a coincidence, and several a firing line.
            by_pair = a * b < 8 * (a + b) or (
                2 * _firings(met[0, :a]) * _firings(met[1, :b]) > a * b * length
            )
            events = a * b + 1  # `_meet_by_pair` writes one place further
            if not by_pair:
                by_slot(met[0, :a], line[0], lists, sizes)
                events = _coincidences(met[1, :b], sizes[:length])
            if n + events > index.size:
                room = 2 * (n + events)
                index, count = _longer(index, n, room), _longer(count, n, room)
            new = index[n:], count[n:]
            if by_pair:
                n += _meet_by_pair(met[0, :a], line[0], met[1, :b], line[1], x.shape[1], *new)
            else:
                _meet_by_slot(lists, sizes, met[1, :b], line[1], x.shape[1], *new)
                n += events
        row += 1
    return index[:n], count[:n], row


def coincidences(
    x: Tensor, d: Tensor, gains_x: Tensor, gains_d: Tensor, slots: Tensor, seed: int
) -> tuple[Tensor, Tensor, int]:
    index, count, rows = _in_order(
        x.numpy(), d.numpy(), gains_x.numpy(), gains_d.numpy(), slots.numpy(), np.uint64(seed),
        reference.MOST_EVENTS,
    )  # fmt: skip
    return torch.from_numpy(index), torch.from_numpy(count), rows


@njit(cache=True)
def _add_streams(
    x: Any, d: Any, gains_x: Any, gains_d: Any, slots: Any, state: Any, counts: Any
) -> None:
    """Add the pulses of all rows to counts (out, 2 in): columns 2 j are down, 2 j + 1 up.

    They are added one by one, slot by slot: most lines are silent in most slots.
    """
    most = max(x.shape[1], d.shape[1])
    code_x, code_d = np.empty(most, np.int64), np.empty(most, np.int64)
    last_x, last_d = np.empty(most, np.int32), np.empty(most, np.int32)
    fired_x, fired_d = np.empty((WORD, most), np.int64), np.empty((WORD, most), np.int64)
    sizes_x, sizes_d = np.empty(WORD, np.int64), np.empty(WORD, np.int64)
    bits, words = np.empty(WORD * most // 2, np.uint64), np.empty(most, np.int32)
    for row in range(x.shape[0]):
        n_x = lines(x[row], gains_x[row], code_x, last_x)
        n_d = lines(d[row], gains_d[row], code_d, last_d)
        for first in range(0, slots[row] if n_x and n_d else 0, WORD):
            length = min(slots[row] - first, WORD)
            state = fire(last_x[:n_x], length, bits, words, state)
            by_slot(words[:n_x], code_x, fired_x, sizes_x)
            state = fire(last_d[:n_d], length, bits, words, state)
            by_slot(words[:n_d], code_d, fired_d, sizes_d)
            for s in range(length):
                for r in range(sizes_d[s]):
                    line, positive = counts[fired_d[s, r] >> 1], fired_d[s, r] & 1
                    for c in range(sizes_x[s]):
                        # Signs that differ make -x d positive: an up pulse.
                        line[fired_x[s, c] ^ positive] += 1


@njit(cache=True)
def _collect(counts: Any) -> Any:
    """Return index and signed number of the up pulses of counts (weights, 2), then of the down."""
    ups, downs = 0, 0
    for k in range(len(counts)):
        downs += counts[k, 0] != 0
        ups += counts[k, 1] != 0
    # One place more than is filled: an entry is written before it is known to be one.
    up, up_count = np.empty(ups + 1, np.int64), np.empty(ups + 1, np.int64)
    down, down_count = np.empty(downs + 1, np.int64), np.empty(downs + 1, np.int64)
    ups, downs = 0, 0
    for k in range(len(counts)):
        down[downs], down_count[downs] = k, -counts[k, 0]
        downs += counts[k, 0] != 0
        up[ups], up_count[ups] = k, counts[k, 1]
        ups += counts[k, 1] != 0
    return up[:ups], up_count[:ups], down[:downs], down_count[:downs]


def coincidences_sum(
    x: Tensor, d: Tensor, gains_x: Tensor, gains_d: Tensor, slots: Tensor, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    total = int(slots.sum())
    counts = np.zeros((d.shape[1], 2 * x.shape[1]), np.int32 if total < 2**31 else np.int64)
    _add_streams(
        x.numpy(), d.numpy(), gains_x.numpy(), gains_d.numpy(), slots.numpy(), np.uint64(seed),
        counts,
    )  # fmt: skip
    found = _collect(counts.reshape(-1, 2))
    up, up_count, down, down_count = map(torch.from_numpy, found)
    return (up, up_count), (down, down_count)
