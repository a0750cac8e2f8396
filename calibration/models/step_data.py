"""Reads between up and down pulses, and what their differences tell before any fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.base import Data
from devicemodels.errors import InputError

#: What came before a read: nothing measured, no pulse (or the starting state), a pulse.
PAD, READ, UP, DOWN = 0, 1, 2, 3
_KINDS = {"read": READ, "up": UP, "down": DOWN}


@dataclass(frozen=True)
class StepData(Data):
    """Sequences of reads, padded to one length.

    reads: (sequences, steps) [µS], the first of each the starting state. kind: what came before
    a read (an up or down pulse, nothing, or padding). path: a causal moving average of the reads
    [µS], at which the steps are linearised. device: the index of the device of each sequence
    (sequences,), ascending. window: lowest and highest read of the table [µS]. seen: all reads
    but the starting states, which the model takes as given.
    """

    reads: Tensor
    kind: Tensor
    path: Tensor
    device: Tensor
    number: int
    window: tuple[float, float]

    @property
    def seen(self) -> Tensor:  # type: ignore[override]
        return (self.kind != PAD) & (torch.arange(self.kind.shape[1]) > 0)

    def __len__(self) -> int:
        return self.number

    def take(self, devices: Tensor) -> StepData:
        place = torch.full((self.number,), -1).scatter_(0, devices, torch.arange(len(devices)))
        rows = torch.nonzero(place[self.device] >= 0).squeeze(1)
        rows = rows[place[self.device[rows]].argsort(stable=True)]
        kept = {name: getattr(self, name)[rows] for name in ("reads", "kind", "path")}
        return StepData(
            **kept, device=place[self.device[rows]], number=len(devices), window=self.window
        )

    def by_device(self, of_sequences: Tensor) -> Tensor:
        """Return sums of (..., sequences) over the sequences of each device."""
        total = of_sequences.new_zeros(*of_sequences.shape[:-1], self.number)
        return total.index_add(-1, self.device, of_sequences)


def gather(measurements: Measurements) -> StepData:
    """Return the reads of a table; raises InputError for one that steps cannot be fitted to."""
    frame, source = measurements.frame, measurements.source
    order: dict[Any, int] = {name: k for k, name in enumerate(measurements.devices)}
    runs = []
    for (device, sequence), rows in frame.groupby(
        ["device", "sequence"], sort=False, observed=True
    ):
        pulses = rows["pulse"].astype(str).tolist()
        other = [pulse for pulse in pulses[1:] if pulse not in _KINDS]
        if other:
            raise InputError(
                f"{source}: device {device}, sequence {sequence}: step-response knows up, down "
                f"and read, not {other[0]!r}: fit SET pulses with --model set-response"
            )
        kinds = [READ, *(_KINDS[pulse] for pulse in pulses[1:])]
        runs.append((order[device], rows["conductance_us"].to_numpy(), kinds))
    moved = sum(kind in (UP, DOWN) for _, _, kinds in runs for kind in kinds)
    if moved < 2:
        raise InputError(
            f"{source}: {moved} up or down pulses after a starting row: step-response needs two "
            "at least, and tells noise from steps by tens of them"
        )
    runs.sort(key=lambda run: run[0])
    shape = (len(runs), max(len(kinds) for _, _, kinds in runs))
    reads, kind = np.zeros(shape), np.zeros(shape, np.int64)
    for k, (_, values, kinds) in enumerate(runs):
        reads[k, : len(kinds)], kind[k, : len(kinds)] = values, kinds
    low, high = reads[kind != PAD].min(), reads[kind != PAD].max()
    if not high > low:
        raise InputError(f"{source}: all reads are {low:g} uS: no step to fit")
    _, deviation, correlation = differences(torch.as_tensor(reads), torch.as_tensor(kind))
    path = _average(reads, _weight(correlation) if deviation > 0 else 1.0)
    return StepData(
        torch.as_tensor(reads), torch.as_tensor(kind), torch.as_tensor(path),
        torch.tensor([run[0] for run in runs]), len(order), (float(low), float(high)),
    )  # fmt: skip


def differences(reads: Tensor, kind: Tensor) -> tuple[dict[int, float], float, float]:
    """Return of successive reads the mean difference after each kind of pulse [µS].

    Then the deviation from it [µS] and the correlation of successive deviations.
    """
    moved, after = reads.diff(dim=1), kind[:, 1:]
    means = {k: float(moved[after == k].mean()) for k in (UP, DOWN) if (after == k).any()}
    rest = torch.where(after == PAD, 0.0, moved)
    for k, mean in means.items():
        rest = torch.where(after == k, rest - mean, rest)
    deviation = float(rest[after != PAD].square().mean().sqrt())
    both = after[:, 1:] != PAD
    if not both.any() or not deviation > 0:
        return means, deviation, 0.0
    common = float((rest[:, 1:] * rest[:, :-1])[both].mean())
    return means, deviation, max(-0.4999, common / deviation**2)


def _weight(correlation: float) -> float:
    """Return the weight of the newest read in the moving average that predicts the next best.

    That of exponential smoothing, for differences of this correlation: 1 without read noise.
    """
    if correlation > -1e-6:
        return 1.0
    root = math.sqrt(1 - 4 * correlation**2)
    return max(0.02, 1 + (1 - root) / (2 * correlation))


def _average(reads: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    path = reads.copy()
    for k in range(1, reads.shape[1]):
        path[:, k] = path[:, k - 1] + weight * (reads[:, k] - path[:, k - 1])
    return path
