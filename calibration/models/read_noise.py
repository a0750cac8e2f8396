"""read-noise: what repeated reads of an unchanged device scatter, white and 1/f."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.flicker import covariance, time_constants
from calibration.models.priors import half_normal, log_normal
from calibration.models.sequences import PROGRAMMING, Sequences, gather
from devicemodels.errors import InputError

#: Spread of the prior of G around 0 [µS]: above any device of the field.
_WIDE = 1000.0
#: No instrument resolves less [µS]; it keeps noiseless tables from a density without bound.
_RESOLUTION = 1e-4
#: Reads of a sequence with times, whose covariance is a matrix.
_LONGEST = 500
#: Elements of the covariances held at once.
_HELD = 1_000_000
_PLACES = 20

_WHITE = (
    Constant("m3", "1", "slope of the read noise against G", half_normal(0.05)),
    Constant("c3", "uS", "read noise at G = 0", half_normal(0.3)),
)
_COLOURED = (
    Constant(
        "flicker",
        "1",
        "relative 1/f noise of an e-fold of time, at the middle of the times",
        half_normal(0.05),
    ),
    Constant("slope", "1", "exponent of 1/f", log_normal(1.0, 0.3)),
)


@dataclass(frozen=True, kw_only=True)
class NoiseData(Sequences):
    """Repeated reads. tau_s: time constants of the 1/f noise [s], ascending; none without times."""

    tau_s: Tensor


class ReadNoise(CalibrationModel):
    """Read noise of Nandakumar et al., J. Appl. Phys. 124, 152135 (2018), and 1/f noise.

    Of a sequence of reads at one free level G, with S the mean of the sequence's own reads,

        read = G + (m3 S + c3) N(0, 1) + flicker S z(t)

    The noise is taken at S as the true G is not seen; G itself is integrated out in closed form.
    z, for tables with time_s only, is a sum of independent Ornstein-Uhlenbeck processes, their
    time constants tau spaced evenly in ln tau from the shortest interval to the longest span of
    the table (what is faster is white, what is slower is a level), their variances
    (tau / middle)^(slope - 1) for each e-fold of tau, middle the geometric mean of the ends:
    in between, the spectrum is 1/f^slope. Drift is no part of this: read where it has become
    slow, or it passes for noise of long times.

    constants: m3 and c3; with flicker and slope once `prepare` has met a table with times.
    """

    name = "read-noise"
    device_type = "pcm"

    def __init__(self) -> None:
        self.constants = _WHITE

    def prepare(self, measurements: Measurements) -> NoiseData:
        """Return the reads of sequences of 'read' rows, that may begin with a SET or RESET.

        time_s: optional, any clock [s]. Raises InputError for other pulses, a read of 0 (what lay
        below is cut off), sequences of one read only, and 1/f noise of more than 500 reads.
        """
        found = gather(
            measurements,
            (*PROGRAMMING, "read"),
            "read-noise takes reads of an undisturbed device (pulse = read), after one set or "
            "reset at most",
            "hides its noise",
        )
        if found["reads"].shape[1] < 2:
            raise InputError(
                f"{measurements.source}: no sequence holds two reads: read-noise needs repeated "
                "reads of a device: number them by step, in one sequence"
            )
        tau = torch.zeros(0, dtype=torch.float64)
        if found["time_s"] is not None:
            longest = int(found["seen"].sum(1).max())
            if longest > _LONGEST:
                raise InputError(
                    f"{measurements.source}: a sequence of {longest:,} reads is too long for 1/f "
                    f"noise: thin it to {_LONGEST} (in even steps of ln time_s), or remove the "
                    "column time_s to fit white noise alone"
                )
            tau = time_constants(found["time_s"], found["seen"])
        self.constants = _WHITE + _COLOURED if len(tau) else _WHITE
        return NoiseData(**found, tau_s=tau)

    def log_likelihood(self, values: Values, data: NoiseData) -> Tensor:
        draws = next(iter(values.values())).numel()
        parts = []
        for part in _parts(data, draws):
            # The covariances of one part are held at a time, in the slope too.
            parts.append(
                checkpoint(_log_p, values, part, use_reentrant=False, preserve_rng_state=False)
            )
        return data.by_device(torch.cat(parts, -1))

    def replicate(self, values: Values, data: NoiseData, chance: torch.Generator) -> Tensor:
        """Return reads (sequences, reads) of devices of the same levels.

        The level that fits best, which is free, is that of the measured sequence, so that
        measured reads rank evenly among replicates. Padding is 0.
        """
        found = []
        for part in _parts(data, 1):
            noise = torch.randn(part.reads.shape, generator=chance, dtype=torch.float64)
            weight = part.seen.double()
            if len(part.tau_s):
                root = torch.linalg.cholesky(_covariance(values, part))
                noise = (root @ noise[..., None]).squeeze(-1)
                weight = torch.cholesky_solve(weight[..., None], root).squeeze(-1)
            else:
                noise = _white(values, part).sqrt()[:, None] * noise
            level = (weight * (part.reads - noise)).sum(1) / weight.sum(1)
            found.append(torch.where(part.seen, (level[:, None] + noise).clamp(min=0), 0.0))
        return torch.cat(found)

    def groups(self, data: NoiseData) -> tuple[str, list[tuple[float, Tensor]]]:
        """Return reads by their place in the sequence from 1, many of them in twenty bins."""
        width = data.reads.shape[1]
        found = []
        for place in torch.arange(width).tensor_split(min(width, _PLACES)):
            where = torch.zeros_like(data.seen)
            where[:, place] = data.seen[:, place]
            found.append((float(place.double().mean()) + 1, where))
        return "read", found


def _parts(data: NoiseData, draws: int) -> Iterator[NoiseData]:
    """Yield the sequences in parts whose covariances can be held at once."""
    rows, width = data.reads.shape
    held = max(1, _HELD // (draws * width**2)) if len(data.tau_s) else rows
    for k in range(0, rows, held):
        part = slice(k, k + held)
        yield replace(data, **data.at(part), device=data.device[part])


def _mean(data: NoiseData) -> Tensor:
    return data.reads.sum(1) / data.seen.sum(1)


def _white(values: Values, data: NoiseData) -> Tensor:
    """Return the variance of the white noise of a sequence [µS²], (draws..., sequences)."""
    m3, c3 = values["m3"][..., None], values["c3"][..., None]
    return (m3 * _mean(data) + c3) ** 2 + _RESOLUTION**2


def _covariance(values: Values, data: NoiseData) -> Tensor:
    """Return the covariance of the reads [µS²], (draws..., sequences, reads, reads)."""
    assert data.time_s is not None
    lag = (data.time_s[:, :, None] - data.time_s[:, None, :]).abs()
    z = covariance(values["slope"], lag, data.tau_s)
    relative = values["flicker"][..., None, None, None] ** 2 * z
    both = data.seen[:, :, None] & data.seen[:, None, :]
    # Padding is as if white noise of variance 1: without a part in determinant and sums.
    coloured = torch.where(both, relative * _mean(data)[:, None, None] ** 2, 0.0)
    white = torch.where(data.seen, _white(values, data)[..., None], 1.0)
    return coloured + torch.diag_embed(white)


def _log_p(values: Values, data: NoiseData) -> Tensor:
    """Return ln p of each sequence, its level integrated out, (draws..., sequences)."""
    seen, mean = data.seen.double(), _mean(data)
    n, about = seen.sum(1), seen * (data.reads - mean[:, None])
    if len(data.tau_s):
        root = torch.linalg.cholesky(_covariance(values, data))
        both = torch.stack([seen, about], -1).expand(*root.shape[:-1], 2)
        one, rest = torch.linalg.solve_triangular(root, both, upper=False).unbind(-1)
        precision, force, square = (one**2).sum(-1), (one * rest).sum(-1), (rest**2).sum(-1)
        log = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    else:
        variance = _white(values, data)
        precision, square = n / variance, (about**2).sum(1) / variance
        force, log = torch.zeros_like(precision), n * variance.log()
    level = mean + force / precision
    square = square - force**2 / precision + level**2 / (_WIDE**2 + 1 / precision)
    log = log + n * math.log(2 * math.pi) + torch.log1p(_WIDE**2 * precision)
    return -0.5 * (square + log)
