"""Changes of conductance by up and down pulses, each with the state before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.data import PAD, READ, Data, Run, devices_of, padded, runs_of
from calibration.models.step_data import DOWN, UP
from devicemodels.errors import InputError

_KINDS = {"read": READ, "up": UP, "set": UP, "down": DOWN, "reset": DOWN}
#: Fewest pulses of either direction.
_LEAST = 10


@dataclass(frozen=True)
class TableData(Data):
    """States between pulses, padded to one length.

    reads: (sequences, states) [µS], the mean of the reads between two pulses; the first of each
    sequence is where it starts. kind: the pulse before it (UP, DOWN; READ for the start, PAD for
    padding). window: lowest and highest state of the table [µS]. seen: all but the starts.
    """

    per_row = ("reads", "kind")

    reads: Tensor
    kind: Tensor
    device: Tensor
    number: int
    window: tuple[float, float]

    @property
    def seen(self) -> Tensor:  # type: ignore[override]
        return self.kind >= UP

    def changes(self, kind: int) -> tuple[Tensor, Tensor]:
        """Return the states before pulses of a kind and the changes [µS], (pulses,) in order."""
        where = self.kind[:, 1:] == kind
        return self.reads[:, :-1][where], self.reads.diff(dim=1)[where]


def gather(measurements: Measurements) -> TableData:
    """Return the states of a table of reads: set counts as up, reset as down.

    Raises InputError for fewer than ten changes of either direction, and reads all equal.
    """
    runs = runs_of(measurements)
    found = [_states(run) for run in runs]
    kinds = [kind for _, kind in found]
    for way, words in ((UP, "up (or set)"), (DOWN, "down (or reset)")):
        count = sum(int((one == way).sum()) for one in kinds)
        if count < _LEAST:
            raise InputError(
                f"{measurements.source}: {count} {words} pulses after a starting row: table needs "
                f"{_LEAST} of either direction; fit SET pulses alone with --model set-response"
            )
    reads, kind = padded([states for states, _ in found]), padded(kinds, np.int64)
    low, high = (float(end) for end in torch.aminmax(reads[kind != PAD]))
    if not high > low:
        raise InputError(f"{measurements.source}: all reads are {low:g} uS: no change to fit")
    return TableData(reads, kind, devices_of(runs), len(measurements.devices), (low, high))


def _states(run: Run) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the mean read after each pulse [µS], and the pulse; the first row is the start."""
    kind = np.array([READ, *(_KINDS[pulse] for pulse in run.pulses[1:])])
    begins = np.flatnonzero((kind >= UP) | (np.arange(len(kind)) == 0))
    number = np.diff(np.append(begins, len(kind)))
    return np.add.reduceat(run.reads, begins) / number, kind[begins]
