"""Kalman filter of a scalar state over long sequences, all steps at once and no loop over them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class _Block(NamedTuple):
    """What some successive steps and their reads do to a state of mean m and variance P.

    m' = gain (m + P pull) / (1 + P weight) + offset, P' = gain² P / (1 + P weight) + variance.
    """

    gain: Tensor
    offset: Tensor
    variance: Tensor
    pull: Tensor
    weight: Tensor


def predicted(
    slope: Tensor, shift: Tensor, noise: Tensor, reads: Tensor, read_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of every read but the first given all reads before it.

    x' = slope x + shift + sqrt(noise) N(0, 1), read = x + sqrt(read_noise) N(0, 1). slope, shift,
    noise (..., n): of the steps; reads (..., n + 1); read_noise (..., 1) > 0: variances. Nothing
    is known of x before the first read. Exact; the work is that of a loop, in log2(n) levels
    (Särkkä and García-Fernández, IEEE Trans. Autom. Control 66, 299, 2021).
    """
    seen = noise + read_noise
    share, moved = noise / seen, reads[..., 1:] - shift
    steps = _Block(
        *torch.broadcast_tensors(
            (1 - share) * slope,
            shift + share * moved,
            share * read_noise,
            slope * moved / seen,
            slope**2 / seen,
        )
    )
    shape = steps.gain[..., :1].shape
    mean, variance = _before(steps, reads[..., :1].expand(shape), read_noise.expand(shape))
    return slope * mean + shift, slope**2 * variance + seen


def _before(steps: _Block, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state before each step; mean, variance (..., 1): before the first."""
    n = steps.gain.shape[-1]
    if n == 1:
        return mean, variance
    if n % 2:  # the state after the last step is not asked for: any step will do
        steps = _Block(*(torch.cat([field, field[..., -1:]], -1) for field in steps))
    pairs = [field.unflatten(-1, (-1, 2)).unbind(-1) for field in steps]
    even, odd = (_Block(*(pair[k] for pair in pairs)) for k in (0, 1))
    first = _before(_joined(even, odd), mean, variance)
    second = _after(even, *first)
    both = (torch.stack(pair, -1).flatten(-2) for pair in zip(first, second, strict=True))
    mean, variance = both
    return mean[..., :n], variance[..., :n]


def _after(step: _Block, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    kept = step.gain / (1 + variance * step.weight)
    after = kept * (mean + variance * step.pull) + step.offset
    return after, kept * step.gain * variance + step.variance


def _joined(one: _Block, two: _Block) -> _Block:
    """Return what ``one`` and then ``two`` do."""
    common = 1 / (1 + one.variance * two.weight)
    on, back = two.gain * common, one.gain * common
    return _Block(
        on * one.gain,
        on * (one.offset + one.variance * two.pull) + two.offset,
        on * two.gain * one.variance + two.variance,
        back * (two.pull - two.weight * one.offset) + one.pull,
        back * one.gain * two.weight + one.weight,
    )
