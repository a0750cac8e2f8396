"""Reads of devices that nothing disturbs: a programming pulse or none, then reads alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.data import Data, devices_of, padded, runs_of
from devicemodels.errors import InputError

#: Pulses that a sequence of phase-change memory may begin with.
PROGRAMMING = ("set", "reset")


@dataclass(frozen=True, kw_only=True)
class Sequences(Data):
    """Sequences of reads, padded with 0 to one length.

    reads in µS. time_s: of the same shape [s], or None for a table without times.
    """

    per_row = ("reads", "seen", "time_s")

    reads: Tensor
    seen: Tensor
    time_s: Tensor | None
    device: Tensor
    number: int


def gather(
    measurements: Measurements, begin: tuple[str, ...], remedy: str, zero: str
) -> dict[str, Any]:
    """Return the fields of `Sequences` for a table.

    Raises InputError for a sequence that begins with another pulse than ``begin`` (remedy: what
    to do about it), that holds a pulse later on, or a read of 0 (zero: why that is of no use).
    """
    runs = runs_of(measurements)
    for run in runs:
        if run.pulses[0] not in begin:
            raise InputError(f"{run.where} begins with pulse = {run.pulses[0]}: {remedy}")
        later = run.pulses[1:]
        if (later != "read").any():
            raise InputError(
                f"{run.where}: a pulse {later[later != 'read'][0]!r} comes between the "
                "reads: give the reads after every pulse a sequence of their own"
            )
        if (run.reads <= 0).any():
            raise InputError(f"{run.where}: a read of 0 {zero}: leave this sequence out")
    timed = "time_s" in measurements.frame
    return {
        "reads": padded([run.reads for run in runs]),
        "seen": padded([np.ones(len(run.reads)) for run in runs], bool),
        "time_s": padded([run.rows["time_s"] for run in runs]) if timed else None,
        "device": devices_of(runs),
        "number": len(measurements.devices),
    }
