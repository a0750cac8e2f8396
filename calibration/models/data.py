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

    @property
    def lengths(self) -> Tensor:
        """The number of reads of each sequence, (sequences,)."""
        kind: Tensor | None = getattr(self, "kind", None)
        return (self.seen if kind is None else kind != PAD).sum(1)

    def until(self, lengths: Tensor) -> Self:
        """Return the first reads of each sequence, so many (sequences,), 1 or more."""
        # Two places at least: a likelihood may ask for a step, if only to skip it.
        shape, width = self.reads.shape, max(2, int(lengths.max()))
        kept = torch.arange(shape[1]) < lengths[:, None]
        found = self.at(slice(None))
        found["reads"] = torch.where(kept, self.reads, 0.0)
        if "kind" in found:
            found["kind"] = torch.where(kept, found["kind"], PAD)
        else:
            found["seen"] = self.seen & kept
        for name, value in found.items():
            if value is not None and value.shape == shape:
                found[name] = value[:, :width]
        own: Any = self
        cut: Self = replace(own, **found)
        return cut

    def by_device(self, values: Tensor) -> Tensor:
        """Return the sums of (..., sequences) over the sequences of each device."""
        total = values.new_zeros(*values.shape[:-1], self.number)
        return total.index_add(-1, self.device, values)


@dataclass(frozen=True, eq=False)
class Run:
    """A sequence of a table: the index of its device, its pulses, and its reads [µS]."""

    device: int
    pulses: NDArray[Any]
    reads: NDArray[np.float64]
    _from: Measurements
    _begin: int

    @property
    def rows(self) -> pd.DataFrame:
        """Its rows of the table."""
        return self._from.frame.iloc[self._begin : self._begin + len(self.reads)]

    @property
    def where(self) -> str:
        """Its place in words."""
        device, sequence = self.rows["device"].iloc[0], self.rows["sequence"].iloc[0]
        return f"{self._from.source}: device {device}, sequence {sequence}"


def runs_of(measurements: Measurements) -> list[Run]:
    """Return the sequences of a table, by device in order of first appearance."""
    frame = measurements.frame
    device = frame["device"].cat.codes.to_numpy()
    new = (np.diff(device) != 0) | (np.diff(frame["sequence"].to_numpy()) != 0)
    begins = np.flatnonzero(np.concatenate([[True], new]))
    pulses = frame["pulse"].astype(object).to_numpy()
    reads = frame["conductance_us"].to_numpy(np.float64)
    ends = [*begins[1:], len(frame)]
    return [
        Run(int(device[a]), pulses[a:b], reads[a:b], measurements, int(a))
        for a, b in zip(begins, ends, strict=True)
    ]


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
