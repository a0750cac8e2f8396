"""Priors in physical units, float64 whatever torch's default."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import HalfNormal, LogNormal, Normal
from torch import Tensor


def normal(mean: float, deviation: float) -> Any:
    """Return a normal prior."""
    return Normal(_double(mean), _double(deviation))


def log_normal(median: float, deviation: float) -> Any:
    """Return a prior above 0 whose logarithm has this standard deviation."""
    return LogNormal(_double(math.log(median)), _double(deviation))


def half_normal(scale: float) -> Any:
    """Return a prior for a spread, which may be 0."""
    return HalfNormal(_double(scale))


def median(prior: Any) -> Tensor:
    """Return the median of a prior, shape ()."""
    return prior.icdf(_double(0.5))


def _double(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)
