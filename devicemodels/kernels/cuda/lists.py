"""Sparse lists made in one pass: every block takes the places it needs from a counter."""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def take_places(counter, wanted):
    """Return a place in the list for every lane of ``wanted`` (BLOCK,), a mask; move the counter.

    counter: pointer to int64. The order of the blocks is left to chance.
    """
    ones = wanted.to(tl.int64)
    start = tl.atomic_add(counter, tl.sum(ones, axis=0))
    return start + tl.cumsum(ones, axis=0) - ones


def in_order(index: Tensor, counter: Tensor) -> tuple[Tensor, Tensor]:
    """Return what was listed, ascending, and the order it had: the same list in every run.

    index: room for all, of which the first counter[0] are taken. Waits for the device.
    """
    index, order = torch.sort(index[: int(counter[0])])
    return index, order


def blocks(size: int, block: int) -> tuple[int]:
    """Return the grid of a kernel over ``size`` elements."""
    return (triton.cdiv(size, block),)
