"""Log predictive densities of held-out reads: of devices in turn, or of a device's last quarter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from calibration import mean_curve
from calibration.fit import Posterior, fit
from calibration.models.base import CalibrationModel, Values
from calibration.models.data import Data
from calibration.rivals import Candidate

with warnings.catch_warnings():  # arviz announces its next version at every first import of a day
    warnings.simplefilter("ignore")
    import arviz

#: Devices from which on each is left out by importance sampling instead of a fit without it.
_DEVICES = 10
#: Fits of a model at most; more devices than these share them in groups.
_FITS = 10
#: Pareto k above which importance sampling is not to be trusted (Vehtari et al., Statistics and
#: Computing 27, 1413, 2017).
_PARETO = 0.7
#: Blocks of the last quarter, for its standard error.
_BLOCKS = 8
#: Draws, in effect, below which a mean over draws is one of few.
_FEW = 5.0
#: Reads times draws of a score, and of what is held at once.
_WORK, _HELD = 4_000_000, 50_000
#: Batches of the search at most: Newton's method follows, and the fits are many.
_STEPS, _STEPS_NEAR = 100, 10


@dataclass(frozen=True)
class Score:
    """ln p of the held-out reads of each unit, a device or a block, and what to know of it."""

    nats: Tensor
    note: str = ""


@dataclass(frozen=True)
class Refit:
    """How models are fitted for a comparison: the arguments of `fit`."""

    seed: int
    steps: int
    draws: int

    def __call__(
        self, model: CalibrationModel, data: Data, near: Posterior | None = None
    ) -> Posterior:
        """Return the posterior; near: one of nearly the same data, to begin at."""
        steps, start = min(self.steps, _STEPS), None
        if near is not None and near.method != "exact":
            start = {name: draws.median() for name, draws in near.draws.items()}
            steps = min(steps, _STEPS_NEAR)
        return fit(model, data, seed=self.seed, steps=steps, draws=self.draws, start=start)


class Devices:
    """Each device in turn is held out. reads: scored of each device, (devices,)."""

    def __init__(self, own: Candidate, refit: Refit) -> None:
        self._own, self._refit = own, refit
        self._many = len(own.data) >= _DEVICES
        self.reads = own.data.by_device((own.data.lengths - 1).double())
        way = "Pareto-smoothed importance sampling" if self._many else "a fit to the others"
        self.how = f"each of {len(own.data)} devices held out in turn, by {way}"

    def baseline(self) -> Score:
        """Score the means of the other devices."""
        data, place = _placed(self._own)
        scored = _between(data, torch.ones_like(data.lengths), data.lengths)
        clips = self._own.model.clips
        return Score(
            mean_curve.by_others(data.reads, scored, place, data.device, clips),
            "least squares: the other devices' mean at each place, one Gaussian residual",
        )

    def score(self, candidate: Candidate, posterior: Posterior | None) -> Score:
        """Score a model; posterior: of all devices, where known."""
        model, data = candidate.model, candidate.data
        everyone = torch.arange(len(data))
        posterior = posterior or self._refit(model, data)
        if not self._many:
            nats, notes = self._without(model, data, everyone, posterior)
            return Score(nats, _joined(notes))
        nats, pareto = _psis(model, data, posterior)
        bad = everyone[pareto > _PARETO]
        notes = [f"Pareto k up to {float(pareto.max()):.2f}"]
        if len(bad):
            nats[bad], more = self._without(model, data, bad, posterior)
            groups = min(len(bad), _FITS)
            notes += [f"above {_PARETO} for {len(bad)} devices, held out by {groups} fits", *more]
        return Score(nats, _joined([*posterior.remarks[:1], *notes]))

    def _without(
        self, model: CalibrationModel, data: Data, devices: Tensor, near: Posterior
    ) -> tuple[Tensor, list[str]]:
        """Return ln p of these devices, each by a fit without it and its group, and warnings."""
        found, notes, everyone = [], [], torch.arange(len(data))
        groups, lost = devices.tensor_split(min(len(devices), _FITS)), 0
        for group in groups:
            inside = torch.isin(everyone, group)
            rest = self._refit(model, data.take(everyone[~inside]), near)
            # With another device: of one alone, step-response takes its own factor as 1.
            part = data.take(torch.cat([group, everyone[~inside][:1]]))
            reads = _densities(model, rest, part)
            first = _densities(model, rest, _first(part), len(reads))
            for k in range(len(group)):
                nats, few = _log_mean(reads[:, k])
                found.append(nats - _log_mean(first[:, k])[0])
                notes.append(few)
            lost += bool(rest.remarks)
        notes += [f"{lost} of {len(groups)} fits without devices not converged"] * bool(lost)
        return torch.stack(found), notes


class LastQuarter:
    """The last quarter of each sequence of one device is held out; reads: of each block of it."""

    def __init__(self, own: Candidate, refit: Refit) -> None:
        self._own, self._refit = own, refit
        self._ends = [self._end(own.data, 0.75 + 0.25 * b / _BLOCKS) for b in range(_BLOCKS + 1)]
        kept = [self._ends[0]]  # blocks without a read are none
        for end in self._ends[1:]:
            if (end > kept[-1]).any():
                kept.append(end)
        self._ends = kept
        self.reads = torch.tensor([float((b - a).sum()) for a, b in pairwise(kept)])
        self.how = (
            f"the last quarter of each sequence, from a fit to the rest; errors over "
            f"{len(self.reads)} blocks"
        )

    @staticmethod
    def _end(data: Data, part: float) -> Tensor:
        return (data.lengths * part).ceil().long().clamp(min=1)

    def baseline(self) -> Score:
        """Score a polynomial through the first three quarters."""
        data, place = _placed(self._own)
        start, half = torch.zeros_like(data.lengths), self._end(data, 0.5)
        first, last, clips = self._ends[0], self._ends[-1], self._own.model.clips
        used, held = _between(data, start, first), _between(data, first, last)
        nats = torch.zeros_like(data.reads)
        nats[held] = mean_curve.extrapolated(
            data.reads, place, _between(data, start, half), used, held, clips
        )
        blocks = [nats[_between(data, a, b)].sum() for a, b in pairwise(self._ends)]
        return Score(
            torch.stack(blocks),
            "least squares: a polynomial over the place, its degree and Gaussian residual by "
            "predicting the third quarter from the first half",
        )

    def score(self, candidate: Candidate, posterior: Posterior | None) -> Score:
        """Score a model. posterior: not used, as it has seen what is held out."""
        model, data = candidate.model, candidate.data
        known = data.until(self._ends[0])
        rest = self._refit(model, known)
        before = _densities(model, rest, known)[:, 0]
        ends, few = [before.new_zeros(())], ""
        for end in self._ends[1:]:
            gained = _densities(model, rest, data.until(end), len(before))[:, 0] - before
            nats, few = _log_mean(gained)
            ends.append(nats)
        return Score(torch.stack(ends).diff(), _joined([*rest.remarks[:1], few]))


def _psis(model: CalibrationModel, data: Data, posterior: Posterior) -> tuple[Tensor, Tensor]:
    """Return ln p of each device by importance sampling from the posterior of all, and Pareto k.

    As arviz.loo, but for the density of the first reads, which is taken off.
    """
    reads = _densities(model, posterior, data)
    weights, pareto = arviz.psislw(-reads.T.numpy(), reff=1.0)
    log_weights = torch.as_tensor(weights).T
    first = _densities(model, posterior, _first(data), len(reads))
    nats = torch.logsumexp(log_weights + reads, 0) - torch.logsumexp(log_weights + first, 0)
    return nats, torch.as_tensor(pareto)


def _densities(
    model: CalibrationModel, posterior: Posterior, data: Data, draws: int | None = None
) -> Tensor:
    """Return ln p of each device's reads, (draws, devices), of evenly chosen draws.

    draws: how many; by the number of reads if not given.
    """
    flat: Values = posterior.flat()
    there, reads = len(next(iter(flat.values()))), int(data.lengths.sum())
    number = min(there, draws or max(200, _WORK // reads))
    chosen = torch.linspace(0, there - 1, number).round().long()
    with torch.no_grad():
        parts = [
            model.log_density({name: value[part] for name, value in flat.items()}, data)
            for part in chosen.split(max(1, _HELD // reads))
        ]
    return torch.cat(parts)


def _first(data: Data) -> Data:
    return data.until(torch.ones_like(data.lengths))


def _log_mean(logs: Tensor) -> tuple[Tensor, str]:
    """Return ln of the mean of exp(logs) over draws (draws,), and a warning if few carry it."""
    total = torch.logsumexp(logs, 0)
    effective = float(torch.exp(2 * total - torch.logsumexp(2 * logs, 0)))
    said = "few draws carry the score: it is a lower bound" if effective < _FEW else ""
    return total - math.log(len(logs)), said


def _joined(notes: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(note for note in notes if note))


def _placed(own: Candidate) -> tuple[Data, Tensor]:
    _, groups = own.model.groups(own.data)
    return own.data, mean_curve.places(groups, own.data.seen)


def _between(data: Data, first: Tensor, end: Tensor) -> Tensor:
    """Return which reads of each sequence are from number ``first`` on, before number ``end``."""
    at = torch.arange(data.reads.shape[1])
    return (at >= first[:, None]) & (at < end[:, None])
