"""1/f noise as a sum of Ornstein-Uhlenbeck processes, evenly spaced in ln of their time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Time constants a decade: their sum follows 1/f within 1 %.
_DENSE = 2


def time_constants(time_s: Tensor, seen: Tensor) -> Tensor:
    """Return time constants [s], ascending, from the shortest interval to the longest span.

    time_s, seen: (sequences, reads). None at all where all times of each sequence are equal.
    """
    interval = time_s.diff(dim=1)[seen[:, 1:]]
    interval = interval[interval > 0]
    if not len(interval):
        return interval
    last = torch.where(seen, time_s, -math.inf).max(1).values
    shortest, longest = float(interval.min()), float((last - time_s[:, 0]).max())
    decades = math.log10(longest / shortest)
    number = 1 + math.ceil(_DENSE * decades)
    return shortest * 10 ** torch.linspace(0, decades, number, dtype=torch.float64)


def covariance(slope: Tensor, lag_s: Tensor, tau_s: Tensor) -> Tensor:
    """Return the covariance at these lags, (draws..., *lags), for slopes (draws...,).

    An e-fold of time constants tau has the variance (tau / middle)^(slope - 1), middle the
    geometric mean of the first and the last: the spectrum between them is 1/f^slope.
    """
    log = tau_s.log()
    width = (log[-1] - log[0]) / (len(log) - 1) if len(log) > 1 else 1.0
    variance = width * torch.exp((slope[..., None] - 1) * (log - (log[0] + log[-1]) / 2))
    decay = torch.exp(-lag_s.flatten() / tau_s[:, None])
    return (variance @ decay).view(*slope.shape, *lag_s.shape)
