"""Reads of a table as tensors, a row a sequence: what all models share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from calibration.measurements import Measurements

#: What came before a read: nothing measured, no pulse; pulses have numbers above these.
PAD, READ = 0, 1


class Data:
    """Sequences of reads, padded to one length; a frozen dataclass with these fields.

    reads: (sequences, reads) float64 in the unit of the table. seen: same shape, bool: reads that
    were measured, and are compared. device: the index of the device of each sequence
    (sequences,), ascending. number: devices. per_row: the fields with a row a sequence, but
    device.
    """

    per_row: ClassVar[tuple[str, ...]]
    reads: Tensor
    seen: Tensor
    device: Tensor
    number: int

    def __len__(self) -> int:
        """Return the number of devices."""
        return self.number

    def at(self, rows: Tensor | slice) -> dict[str, Any]:
        """Return the fields ``per_row`` of some sequences; None stays None."""
        found = {name: getattr(self, name) for name in self.per_row}
        return {name: None if value is None else value[rows] for name, value in found.items()}

    def take(self, devices: Tensor) -> Self:
        """Return the reads of the devices with these indices (n,)."""
        place = torch.full((self.number,), -1).scatter_(0, devices, torch.arange(len(devices)))
        rows = torch.nonzero(place[self.device] >= 0).squeeze(1)
        rows = rows[place[self.device[rows]].argsort(stable=True)]
        own: Any = self
        found: Self = replace(
            own, **self.at(rows), device=place[self.device[rows]], number=len(devices)
        )
        return found

    def by_device(self, values: Tensor) -> Tensor:
        """Return the sums of (..., sequences) over the sequences of each device."""
        total = values.new_zeros(*values.shape[:-1], self.number)
        return total.index_add(-1, self.device, values)


@dataclass(frozen=True)
class Run:
    """A sequence of a table: index of its device, its place in words, its rows and their pulses."""

    device: int
    where: str
    rows: pd.DataFrame
    pulses: NDArray[Any]

    @property
    def reads(self) -> NDArray[np.float64]:
        """The conductances [µS]."""
        return self.rows["conductance_us"].to_numpy()


def runs_of(measurements: Measurements) -> list[Run]:
    """Return the sequences of a table, by device in order of first appearance."""
    order: dict[Any, int] = {name: k for k, name in enumerate(measurements.devices)}
    grouped = measurements.frame.groupby(["device", "sequence"], sort=False, observed=True)
    found = []
    for (device, sequence), rows in grouped:
        where = f"{measurements.source}: device {device}, sequence {sequence}"
        found.append(Run(order[device], where, rows, rows["pulse"].astype(str).to_numpy()))
    return sorted(found, key=lambda run: run.device)


def devices_of(runs: Sequence[Run]) -> Tensor:
    """Return the index of the device of each sequence, (sequences,)."""
    return torch.tensor([run.device for run in runs])


def padded(columns: Sequence[ArrayLike], kind: type = float) -> Tensor:
    """Return columns of several lengths as rows of one, padded with 0."""
    arrays = [np.asarray(column) for column in columns]
    found: NDArray[Any] = np.zeros((len(arrays), max(map(len, arrays))), kind)
    for row, values in zip(found, arrays, strict=True):
        row[: len(values)] = values
    return torch.as_tensor(found)


def last_of_pulse(kind: Tensor, seen: Tensor) -> Tensor:
    """Return which reads are the last before another pulse, or the end, (sequences, reads)."""
    following = torch.cat([kind[:, 1:], torch.zeros_like(kind[:, :1])], 1)
    return seen & (following != READ)
