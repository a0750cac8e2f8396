"""Stochastic bit streams: their gains, and the slots in which the lines of a row fire."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

#: splitmix64 (Steele, Lea & Flood, OOPSLA 2014): the state's increment, the mix's factors.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
#: Slots of a stream that are drawn together.
WORD = 32


@njit(cache=True)
def _top(values: Any) -> Any:
    """Return max|v| of finite float32 v: of their bits, which the compiler turns into vectors."""
    bits, top = values.view(np.int32), np.zeros(1, np.int32)
    highest = top[0]
    for j in range(bits.size):
        highest = np.int32(max(highest, np.int32(bits[j] & np.int32(0x7FFFFFFF))))
    top[0] = highest
    return np.float64(top.view(np.float32)[0])


@njit(cache=True)
def _gains(x: Any, d: Any, lr: float, dw_min: float, longest: int, um: bool, blm: bool) -> Any:
    n = len(x)
    slots, gains_x, gains_d = np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    for row in range(n):
        top_x, top_d = _top(x[row]), _top(d[row])
        if not (top_x and top_d and lr):
            continue
        slots[row] = longest
        if blm:
            slots[row] = max(math.ceil(min(lr * top_x * top_d / dw_min, longest)), 1)
        gain = math.sqrt(lr / (slots[row] * dw_min))
        balance = math.sqrt(top_d / top_x) if um else 1.0
        gains_x[row], gains_d[row] = gain * balance, gain / balance
    return gains_x, gains_d, slots, slots.sum()


def gains(
    x: Tensor, d: Tensor, lr: float, dw_min: float, longest: int, um: bool, blm: bool
) -> tuple[Tensor, Tensor, Tensor, int]:
    gains_x, gains_d, slots, total = _gains(x.numpy(), d.numpy(), lr, dw_min, longest, um, blm)
    return torch.from_numpy(gains_x), torch.from_numpy(gains_d), torch.from_numpy(slots), total


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
def lines(values: Any, gain: float, code: Any, last: Any) -> int:
    """List the lines that can fire, as 2 line + (value > 0), and the last of 2^32 draws to do so.

    Draws are int32, from -2^31 on: vectors compare numbers with signs faster. (A probability of 1
    is one draw more than 32 bits can count.)
    """
    n = 0
    for j in range(values.size):  # no branch: the processor could not foresee it
        draws = int(min(gain * abs(np.float64(values[j])), 1.0) * 2.0**32 + 0.5)
        code[n], last[n] = 2 * j + (values[j] > 0), draws - 1 - 2**31
        n += draws > 0
    return n


@njit(cache=True)
def fire(last: Any, slots: int, bits: Any, words: Any, state: Any) -> Any:
    """Set bit s of each line's word if it fires in slot s < slots; return the state after that."""
    n = last.size
    state = _draw(bits[: (slots * n + 1) // 2], state)
    draws = bits.view(np.int32)
    words[:n] = 0
    for s in range(slots):
        draw, bit = draws[s * n : (s + 1) * n], np.int32(1 << s)
        for j in range(n):
            words[j] |= bit if draw[j] <= last[j] else np.int32(0)
    return state


@njit(cache=True, inline="always")
def ones(word: Any) -> Any:
    """Number of set bits (the SWAR population count)."""
    v = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    v = (v & np.uint64(0x3333333333333333)) + ((v >> np.uint64(2)) & np.uint64(0x3333333333333333))
    v = (v + (v >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (v * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(cache=True)
def fired(words: Any, code: Any, fired_words: Any, fired_code: Any) -> int:
    """List the lines that fire at all; return how many."""
    n = 0
    for j in range(words.size):
        fired_words[n], fired_code[n] = words[j], code[j]
        n += words[j] != 0
    return n


@njit(cache=True)
def by_slot(words: Any, code: Any, lists: Any, sizes: Any) -> None:
    """List the lines that fire in each slot, from their words."""
    sizes[:] = 0
    for j in range(words.size):
        word = np.uint64(np.uint32(words[j]))
        while word:
            rest = word & (word - np.uint64(1))
            s = ones((word ^ rest) - np.uint64(1))
            lists[s, sizes[s]] = code[j]
            sizes[s] += 1
            word = rest
