"""Measurement tables: one read of a device a row, checked, in microsiemens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from calibration import checks, files, units
from calibration.checks import Origin
from devicemodels.errors import InputError, closest

#: What happened to the device since its row before: a pulse of this kind, or 'read' for none.
PULSES = ("set", "reset", "up", "down", "read")
#: Columns that a table may have beside those that it needs.
OPTIONAL = ("amplitude_v", "width_s", "time_s")
_NEEDED = ("device", "step", "pulse")
_KNOWN = (*_NEEDED, "sequence", *OPTIONAL, *(name for way in units.WAYS for name in way))


@dataclass(frozen=True, eq=False)
class Measurements:
    """A checked table; made by `read` and `table`.

    frame: a row a read, sorted by device (in order of first appearance), sequence and step, with
    columns device (category of text), sequence, step (int64; steps of a sequence go up by one),
    pulse (category PULSES), conductance_us [µS], and those of amplitude_v [V], width_s [s],
    time_s [s] that were given. source: the file, as named. sha256: of the file's bytes, or of
    the table as CSV text where it was made in memory.
    """

    frame: pd.DataFrame
    source: str
    sha256: str

    @property
    def devices(self) -> list[str]:
        """The names of the devices, in order of first appearance."""
        return list(self.frame["device"].cat.categories)

    @property
    def rows(self) -> int:
        """The number of reads."""
        return len(self.frame)

    def only(self, devices: Iterable[str]) -> Measurements:
        """Return the measurements of these devices. Raises InputError for an unknown one."""
        return self._keep(self.frame["device"].isin(self._known(devices)))

    def without(self, devices: Iterable[str]) -> Measurements:
        """Return the measurements of all other devices. Raises InputError for an unknown one."""
        return self._keep(~self.frame["device"].isin(self._known(devices)))

    def pulses(self, *kinds: str) -> pd.DataFrame:
        """Return the rows read after pulses of these kinds: a frame, as its steps have gaps.

        Raises InputError for an unknown kind.
        """
        for kind in kinds:
            if kind not in PULSES:
                raise InputError(f"no pulse {kind!r}: {closest(kind, PULSES)}")
        return self.frame[self.frame["pulse"].isin(kinds)].reset_index(drop=True)

    def summary(self) -> str:
        """Return a few lines: how much was measured, pulses by kind, range of conductance."""
        steps = self.frame.groupby(["device", "sequence"], observed=True, sort=False).size()
        pulses = self.frame["pulse"].value_counts(sort=False)
        g = self.frame["conductance_us"]
        also = [name for name in OPTIONAL if name in self.frame]
        return "\n".join(
            (
                f"{self.source}: {self.rows:,} reads, {len(self.devices):,} devices, "
                f"{len(steps):,} sequences",
                f"pulses: {', '.join(f'{k} {n:,}' for k, n in pulses.items() if n)}",
                f"steps a sequence: {steps.min():,} to {steps.max():,}, median {steps.median():g}",
                f"conductance: {g.min():.4g} to {g.max():.4g} µS, median {g.median():.4g} µS",
                f"also given: {', '.join(also) or 'nothing'}",
            )
        )

    def _known(self, devices: Iterable[str]) -> list[str]:
        names = [devices] if isinstance(devices, str) else [str(name) for name in devices]
        known = set(self.devices)
        for name in names:
            if name not in known:
                raise InputError(f"{self.source}: no device {name!r}: see Measurements.devices")
        return names

    def _keep(self, rows: pd.Series) -> Measurements:
        if not rows.any():
            raise InputError(f"{self.source}: no device is left: keep at least one")
        frame = self.frame[rows].reset_index(drop=True)
        frame["device"] = frame["device"].cat.remove_unused_categories()
        return Measurements(frame, self.source, _fingerprint(frame))


def read(path: Path | str) -> Measurements:
    """Read a table: CSV (.csv, also .gz or .xz), with a header and commas, or Parquet.

    Columns: device, step, pulse, optionally sequence (0 if absent) and OPTIONAL, and the
    conductance as conductance_us, conductance_s, resistance_ohm, or current_a and
    read_voltage_v. Raises InputError, naming file, row, column and remedy, for a file or a
    table that is anything else.
    """
    content = files.contents(path)
    frame, origin = files.decoded(content, path)
    return Measurements(_checked(frame, origin), str(path), hashlib.sha256(content).hexdigest())


def table(frame: pd.DataFrame, source: str) -> Measurements:
    """Check a table in memory, with the columns that `read` knows; its index means nothing.

    source: what errors and reports call it; they count its rows from 1. Raises InputError as
    `read` does.
    """
    frame = _checked(frame, Origin(source))
    return Measurements(frame, source, _fingerprint(frame))


def write(measurements: Measurements, path: Path | str) -> None:
    """Write a table as CSV or Parquet, by suffix, in one step: never a part of a file.

    `read` gives back the same frame. Conductances so small that they would be taken for siemens
    (median below 1 nS) are written as siemens; they return within rounding (2e-16). Raises
    InputError for an unknown suffix or a folder that cannot be written.
    """
    frame = measurements.frame
    if units.seems_siemens(frame["conductance_us"].to_numpy()):
        frame = frame.assign(conductance_us=frame["conductance_us"] / 1e6)
        frame = frame.rename(columns={"conductance_us": "conductance_s"})
    files.replace(path, files.encoded(frame, path))


def _checked(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Return the frame of `Measurements` from a table as given."""
    names = [str(name).strip() for name in frame.columns]
    checks.check_columns(names, _KNOWN, _NEEDED, origin)
    way = units.way(names, origin)
    if frame.empty:
        raise InputError(f"{origin.name}: holds a header and no rows: add a row a read")
    frame = frame.set_axis(names, axis="columns").reset_index(drop=True)
    device = checks.texts(frame["device"], origin)
    pulse = checks.texts(frame["pulse"], origin)
    checks.check_pulses(pulse, PULSES, origin)
    step = checks.wholes(frame["step"], origin)
    sequence = np.zeros_like(step)
    if "sequence" in frame:
        sequence = checks.wholes(frame["sequence"], origin)
    optional = {name: checks.numbers(frame[name], origin) for name in OPTIONAL if name in frame}
    conductance = units.conductance_us(frame, way, origin)
    if "width_s" in optional:
        checks.check_widths(optional["width_s"], origin)
    checks.check_steps(device, sequence, step, origin)
    if "time_s" in optional:
        checks.check_times(device, sequence, optional["time_s"], origin)
    tidy = pd.DataFrame(
        {
            "device": pd.Categorical(device, categories=device.unique()),
            "sequence": sequence,
            "step": step,
            "pulse": pd.Categorical(pulse, categories=PULSES),
            "conductance_us": conductance,
            **optional,
        }
    )
    return tidy.sort_values(["device", "sequence", "step"], ignore_index=True)


def _fingerprint(frame: pd.DataFrame) -> str:
    return hashlib.sha256(files.encoded(frame, "table.csv")).hexdigest()
