"""What a least-squares fit of a mean curve says of held-out reads, with one Gaussian residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.special import log_ndtr

#: No instrument repeats a read better [µS]; it keeps noiseless tables from a density without bound.
_RESOLUTION = 1e-5
#: Highest degree of a polynomial that is trusted beyond its data.
_DEGREES = 4


def places(groups: Sequence[tuple[float, Tensor]], measured: Tensor) -> Tensor:
    """Return the index of the place of every read, (sequences, reads) int64.

    groups: as of `CalibrationModel.groups`. A read at none of them takes the place of the next
    read of its sequence that has one, or else of the last: it was read after the same pulse.
    """
    found = torch.full(measured.shape, -1)
    for k, (_, where) in enumerate(groups):
        found[where] = k
    order = range(1, measured.shape[1])
    for k in reversed(order):
        found[:, k - 1] = torch.where(found[:, k - 1] < 0, found[:, k], found[:, k - 1])
    for k in order:
        found[:, k] = torch.where(found[:, k] < 0, found[:, k - 1], found[:, k])
    return found.clamp(min=0)


def by_others(
    reads: Tensor, scored: Tensor, place: Tensor, device: Tensor, clips: bool = False
) -> Tensor:
    """Return ln p of each device's reads by the curve of all others, (devices,); closed form.

    The curve is the mean m of the others' n reads at a place, which is what least squares gives;
    their deviations from it have one variance s² (degrees of freedom: reads less places), and a
    read at this place is N(m, s² (1 + 1/n)). A place where only this device was read takes the
    curve at the nearest earlier place, or else later. While no device's others have two reads at
    any place, places are joined in pairs. scored: which reads count (sequences, reads) bool.
    device: of each sequence. clips: a read of 0 stands for all below. Two devices or more.
    """
    number = int(device.max()) + 1
    middle = reads[scored].mean()
    y, of = reads - middle, device[:, None].expand_as(reads)
    zero = scored & (reads <= 0) & clips
    while True:
        shape = (number, int(place.max()) + 1)
        cell = of * shape[1] + place

        def sums(
            values: Tensor, which: Tensor, cell: Tensor = cell, shape: tuple = shape
        ) -> Tensor:
            total = torch.zeros(shape[0] * shape[1], dtype=torch.float64)
            return total.index_add(0, cell[which], values[which]).view(shape)

        one = torch.ones_like(y)
        n, s, q = (sums(v, scored) for v in (one, y, y**2))
        others_n, others_s, others_q = (total.sum(0) - total for total in (n, s, q))
        freedom = (others_n - 1).clamp(min=0).sum(1, keepdim=True)
        if (freedom > 0).all() or shape[1] == 1:
            break
        place = place // 2
    mean = others_s / others_n.clamp(min=1)
    rest = (others_q - others_n * mean**2).clamp(min=0).sum(1, keepdim=True)
    residual = rest / freedom.clamp(min=1) + _RESOLUTION**2
    variance = residual * (1 + 1 / others_n.clamp(min=1))
    mean = _filled(mean, others_n > 0)
    density = scored & ~zero
    n, s, q = (sums(v, density) for v in (one, y, y**2))
    square = (q - 2 * mean * s + n * mean**2) / variance
    total = -0.5 * (square + n * torch.log(2 * math.pi * variance))
    below = log_ndtr((-middle - mean) / variance.sqrt())
    return (total + sums(one, zero) * below).sum(1)


def _filled(mean: Tensor, known: Tensor) -> Tensor:
    """Return the curve (devices, places), gaps filled from the next earlier place, or later."""
    mean, known = mean.clone(), known.clone()
    columns = list(range(mean.shape[1]))
    for way in (columns, columns[::-1]):
        for before, k in pairwise(way):
            mean[:, k] = torch.where(known[:, k], mean[:, k], mean[:, before])
            known[:, k] |= known[:, before]
    return mean


def extrapolated(
    reads: Tensor, place: Tensor, half: Tensor, train: Tensor, held: Tensor, clips: bool = False
) -> Tensor:
    """Return ln p of the held-out reads by a curve through earlier ones, (held-out reads,).

    half, train, held: which reads (sequences, reads) bool; half is a part of train. The curve is a
    polynomial over the place, of degree 0 to 3. Its degree is the one that, fitted to ``half``,
    predicts the rest of ``train`` best, and its residual is the error there: a curve's error
    beyond its data is no less than what it shows when this is tried.
    """
    x = place.double() / place.max().clamp(min=1)
    again = train & ~half
    if not again.any():
        again = train
    tried = []
    for degree in range(min(_DEGREES, len(x[half].unique()))):
        error = reads[again] - _polynomial(x[half], reads[half], x[again], degree)
        tried.append((float(error.square().mean()), degree))
    variance, degree = min(tried)
    mean = _polynomial(x[train], reads[train], x[held], degree)
    spread = torch.tensor(variance + _RESOLUTION**2, dtype=torch.float64)
    y = reads[held]
    found = -0.5 * ((y - mean) ** 2 / spread + torch.log(2 * math.pi * spread))
    return torch.where((y > 0) | (not clips), found, log_ndtr(-mean / spread.sqrt()))


def _polynomial(x: Tensor, y: Tensor, at: Tensor, degree: int) -> Tensor:
    powers = torch.arange(degree + 1)
    found = torch.linalg.lstsq(x[:, None] ** powers, y[:, None], driver="gelsd").solution
    return (at[:, None] ** powers @ found)[:, 0]
