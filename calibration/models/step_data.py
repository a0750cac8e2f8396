"""Reads between up and down pulses, and what their differences tell before any fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.data import PAD, READ, Data, devices_of, padded, runs_of
from devicemodels.errors import InputError

#: What came before a read beside `PAD` and `READ` (the starting state too).
UP, DOWN = 2, 3
_KINDS = {"read": READ, "up": UP, "down": DOWN}


@dataclass(frozen=True)
class StepData(Data):
    """Sequences of reads, padded to one length.

    reads: (sequences, steps) [µS], the first of each the starting state. kind: what came before
    a read (an up or down pulse, nothing, or padding). path: a causal moving average of the reads
    [µS], at which the steps are linearised. window: lowest and highest read of the table [µS].
    seen: all reads but the starting states, which the model takes as given.
    """

    per_row = ("reads", "kind", "path")

    reads: Tensor
    kind: Tensor
    path: Tensor
    device: Tensor
    number: int
    window: tuple[float, float]

    @property
    def seen(self) -> Tensor:  # type: ignore[override]
        return (self.kind != PAD) & (torch.arange(self.kind.shape[1]) > 0)


def gather(measurements: Measurements) -> StepData:
    """Return the reads of a table; raises InputError for one that steps cannot be fitted to."""
    source, runs = measurements.source, runs_of(measurements)
    kinds = []
    for run in runs:
        other = [pulse for pulse in run.pulses[1:].tolist() if pulse not in _KINDS]
        if other:
            raise InputError(
                f"{run.where}: step-response knows up, down "
                f"and read, not {other[0]!r}: fit SET pulses with --model set-response"
            )
        kinds.append([READ, *(_KINDS[pulse] for pulse in run.pulses[1:])])
    moved = sum(kind in (UP, DOWN) for one in kinds for kind in one)
    if moved < 2:
        raise InputError(
            f"{source}: {moved} up or down pulses after a starting row: step-response needs two "
            "at least, and tells noise from steps by tens of them"
        )
    reads, kind = padded([run.reads for run in runs]), padded(kinds, np.int64)
    low, high = (float(end) for end in torch.aminmax(reads[kind != PAD]))
    if not high > low:
        raise InputError(f"{source}: all reads are {low:g} uS: no step to fit")
    _, deviation, correlation = differences(reads, kind)
    path = _average(reads.numpy(), _weight(correlation) if deviation > 0 else 1.0)
    return StepData(
        reads, kind, torch.as_tensor(path), devices_of(runs), len(measurements.devices), (low, high)
    )


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
