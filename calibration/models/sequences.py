"""Reads of devices that nothing disturbs: a programming pulse or none, then reads alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.base import Data
from devicemodels.errors import InputError

#: Pulses that a sequence of phase-change memory may begin with.
PROGRAMMING = ("set", "reset")


@dataclass(frozen=True, kw_only=True)
class Sequences(Data):
    """Sequences of reads, padded with 0 to one length.

    reads: (sequences, reads) [µS]. seen: same shape, which were measured. time_s: same shape
    [s], or None for a table without times. device: the index of the device of each sequence
    (sequences,), ascending.
    """

    reads: Tensor
    seen: Tensor
    time_s: Tensor | None
    device: Tensor
    number: int

    def __len__(self) -> int:
        return self.number

    def take(self, devices: Tensor) -> Self:
        place = torch.full((self.number,), -1).scatter_(0, devices, torch.arange(len(devices)))
        rows = torch.nonzero(place[self.device] >= 0).squeeze(1)
        rows = rows[place[self.device[rows]].argsort(stable=True)]
        return replace(
            self,
            reads=self.reads[rows],
            seen=self.seen[rows],
            time_s=None if self.time_s is None else self.time_s[rows],
            device=place[self.device[rows]],
            number=len(devices),
        )

    def by_device(self, values: Tensor) -> Tensor:
        """Return the sums of (..., sequences) over the sequences of each device."""
        total = values.new_zeros(*values.shape[:-1], self.number)
        return total.index_add(-1, self.device, values)


def gather(
    measurements: Measurements, begin: tuple[str, ...], remedy: str, zero: str
) -> dict[str, Any]:
    """Return the fields of `Sequences` for a table.

    Raises InputError for a sequence that begins with another pulse than ``begin`` (remedy: what
    to do about it), that holds a pulse later on, or a read of 0 (zero: why that is of no use).
    """
    order: dict[Any, int] = {name: k for k, name in enumerate(measurements.devices)}
    runs: list[tuple[int, pd.DataFrame]] = []
    for (device, sequence), rows in measurements.frame.groupby(
        ["device", "sequence"], sort=False, observed=True
    ):
        where = f"{measurements.source}: device {device}, sequence {sequence}"
        pulses = rows["pulse"].astype(str).to_numpy()
        if pulses[0] not in begin:
            raise InputError(f"{where} begins with pulse = {pulses[0]}: {remedy}")
        if (pulses[1:] != "read").any():
            raise InputError(
                f"{where}: a pulse {pulses[1:][pulses[1:] != 'read'][0]!r} comes between the "
                "reads: give the reads after every pulse a sequence of their own"
            )
        if (rows["conductance_us"] <= 0).any():
            raise InputError(f"{where}: a read of 0 {zero}: leave this sequence out")
        runs.append((order[device], rows))
    runs.sort(key=lambda run: run[0])
    width = max(len(rows) for _, rows in runs)

    def padded(value: Callable[[pd.DataFrame], Any], kind: type) -> Tensor:
        found: NDArray[Any] = np.zeros((len(runs), width), kind)
        for k, (_, rows) in enumerate(runs):
            found[k, : len(rows)] = value(rows)
        return torch.as_tensor(found)

    timed = "time_s" in measurements.frame
    return {
        "reads": padded(lambda rows: rows["conductance_us"], float),
        "seen": padded(lambda rows: True, bool),
        "time_s": padded(lambda rows: rows["time_s"], float) if timed else None,
        "device": torch.tensor([device for device, _ in runs]),
        "number": len(order),
    }
