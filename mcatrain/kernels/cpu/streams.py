"""Coincidences of stochastic bit streams: of one example, or summed over many."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

#: splitmix64 (Steele, Lea & Flood, OOPSLA 2014): the state's increment, the mix's factors.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
#: Slots of a stream that are drawn together.
_WORD = 32


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
    return _tensors(index, count)


@njit(cache=True)
def _draw(out: Any, state: Any) -> Any:
    """Fill with random bits, 64 of each state of the counter; return the state that follows."""
    # Counted and not carried from draw to draw: the compiler turns this loop into vectors.
    for k in range(out.size):
        v = state + np.uint64(k) * _GAMMA
        v = (v ^ (v >> np.uint64(30))) * _MIX[0]
        v = (v ^ (v >> np.uint64(27))) * _MIX[1]
        out[k] = v ^ (v >> np.uint64(31))
    return state + np.uint64(out.size) * _GAMMA


@njit(cache=True)
def _lines(values: Any, gain: float, code: Any, last: Any) -> int:
    """List the lines that can fire, as 2 line + (value > 0), and the last of 2^32 draws to do so.

    (A probability of 1 is one more draw than 32 bits can count.)
    """
    n = 0
    for j in range(values.size):
        draws = int(min(gain * abs(np.float64(values[j])), 1.0) * 2.0**32 + 0.5)
        code[n], last[n] = 2 * j + (values[j] > 0), draws - 1
        n += draws > 0
    return n


@njit(cache=True)
def _fire(last: Any, slots: int, bits: Any, words: Any, state: Any) -> Any:
    """Set bit s of each line's word if it fires in slot s < slots; return the state after that."""
    n = last.size
    state = _draw(bits[: (slots * n + 1) // 2], state)
    draws = bits.view(np.uint32)
    words[:n] = 0
    for s in range(slots):
        draw = draws[s * n : (s + 1) * n]
        for j in range(n):
            words[j] |= np.uint32(draw[j] <= last[j]) << np.uint32(s)
    return state


@njit(cache=True)
def _by_slot(words: Any, code: Any, lists: Any, sizes: Any) -> None:
    """List the lines that fire in each slot, from their words."""
    sizes[:] = 0
    for j in range(words.size):
        word = np.uint64(words[j])
        while word:
            rest = word & (word - np.uint64(1))
            s = _ones((word ^ rest) - np.uint64(1))
            lists[s, sizes[s]] = code[j]
            sizes[s] += 1
            word = rest


@njit(cache=True)
def _add_streams(
    x: Any, d: Any, gains_x: Any, gains_d: Any, slots: Any, state: Any, counts: Any
) -> None:
    """Add the pulses of all rows to counts (out, 2 in): columns 2 j are down, 2 j + 1 up.

    They are added one by one, slot by slot: most lines are silent in most slots.
    """
    most = max(x.shape[1], d.shape[1])
    code_x, code_d = np.empty(most, np.int64), np.empty(most, np.int64)
    last_x, last_d = np.empty(most, np.uint32), np.empty(most, np.uint32)
    fired_x, fired_d = np.empty((_WORD, most), np.int64), np.empty((_WORD, most), np.int64)
    sizes_x, sizes_d = np.empty(_WORD, np.int64), np.empty(_WORD, np.int64)
    bits, words = np.empty(_WORD * most // 2, np.uint64), np.empty(most, np.uint32)
    for row in range(x.shape[0]):
        n_x = _lines(x[row], gains_x[row], code_x, last_x)
        n_d = _lines(d[row], gains_d[row], code_d, last_d)
        for first in range(0, slots[row] if n_x and n_d else 0, _WORD):
            length = min(slots[row] - first, _WORD)
            state = _fire(last_x[:n_x], length, bits, words, state)
            _by_slot(words[:n_x], code_x, fired_x, sizes_x)
            state = _fire(last_d[:n_d], length, bits, words, state)
            _by_slot(words[:n_d], code_d, fired_d, sizes_d)
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
    up, up_count, down, down_count = _collect(counts.reshape(-1, 2))
    return _tensors(up, up_count), _tensors(down, down_count)


def _tensors(index: Any, count: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(index), torch.from_numpy(count)
