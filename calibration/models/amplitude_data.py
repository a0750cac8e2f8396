"""Reads of sweeps in voltage, a column a voltage, and what a smooth curve is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.data import Data, Run, devices_of, runs_of
from devicemodels.errors import InputError

#: Knots of a curve, and places between which spreads are interpolated.
KNOTS, NODES = 14, 7
_MOST = 400


@dataclass(frozen=True, kw_only=True)
class AmplitudeData(Data):
    """Sweeps, a column a voltage, all of which every sweep has.

    reads: (sequences, voltages) [µS]. volts: (voltages,) [V], ascending. modes: ln reads as
    cosines along the sweeps of a device (orthonormal DCT-II: the first of a device is its mean
    times the root of its sweeps), (sequences, voltages). frequency: of each mode [rad per
    sweep], (sequences,). sweeps: of the device in each row, (sequences,). basis: the natural
    cubic splines that are 1 at one knot, (voltages, KNOTS). knots: [V]. hats: weights of the
    nodes at the knots (KNOTS, NODES) and at the voltages (voltages, NODES). lone: the table has
    one device.
    """

    per_row = ("reads", "seen", "modes", "frequency", "sweeps")

    reads: Tensor
    seen: Tensor
    device: Tensor
    number: int
    volts: Tensor
    modes: Tensor
    frequency: Tensor
    sweeps: Tensor
    basis: Tensor
    knots: Tensor
    hats: tuple[Tensor, Tensor]
    lone: bool


def gather(measurements: Measurements, name: str) -> AmplitudeData:
    """Return the reads of a table for the model ``name``; raises InputError as that says."""
    _check(measurements, name)
    runs = runs_of(measurements)
    # Voltages are equal to a microvolt, whatever a file's decimals.
    where = [np.round(run.rows["amplitude_v"].to_numpy(), 6) for run in runs]
    grid = np.unique(np.concatenate(where))
    if not KNOTS <= len(grid) <= _MOST:
        raise InputError(
            f"{measurements.source}: {len(grid)} different amplitude_v: {name} needs {KNOTS} to "
            f"{_MOST}: sweep the voltage in steps that all sweeps share"
        )
    for run, volts in zip(runs, where, strict=True):
        _check_sweep(run, volts, grid)
    device = devices_of(runs)
    sweeps = torch.bincount(device)
    if len(runs) == len(sweeps):
        raise InputError(
            f"{measurements.source}: one sweep a device tells nothing of cycles: give every "
            "sweep a sequence of its own, and a device two or more"
        )
    reads = torch.as_tensor(
        np.stack([run.reads[np.argsort(v)] for run, v in zip(runs, where, strict=True)])
    )
    parts = reads.log().split(sweeps.tolist())
    rows = torch.cat([torch.arange(int(n)) for n in sweeps])
    return AmplitudeData(
        reads=reads,
        seen=torch.ones_like(reads, dtype=torch.bool),
        device=device,
        number=len(sweeps),
        modes=torch.cat([cosines(len(part)) @ part for part in parts]),
        frequency=math.pi * rows / sweeps[device],
        sweeps=sweeps[device].to(reads.dtype),
        lone=len(sweeps) == 1,
        **_splines(grid),
    )


def cosines(n: int) -> Tensor:
    """Return the orthonormal matrix of the discrete cosine transform DCT-II, (modes, n)."""
    k = torch.arange(n, dtype=torch.float64)
    found = math.sqrt(2 / n) * torch.cos(math.pi * k[:, None] * (k + 0.5) / n)
    found[0] = math.sqrt(1 / n)
    return found


def _splines(grid: NDArray[np.float64]) -> dict[str, Any]:
    knots = np.linspace(grid[0], grid[-1], KNOTS)
    nodes = np.linspace(grid[0], grid[-1], NODES)
    spline = CubicSpline(knots, np.eye(KNOTS), bc_type="natural")
    hats = tuple(
        torch.as_tensor(np.stack([np.interp(v, nodes, one) for one in np.eye(NODES)], 1))
        for v in (knots, grid)
    )
    found = {"volts": grid, "basis": spline(grid), "knots": knots}
    return {name: torch.as_tensor(value) for name, value in found.items()} | {"hats": hats}


def _check(measurements: Measurements, name: str) -> None:
    frame, source = measurements.frame, measurements.source
    if "amplitude_v" not in frame:
        raise InputError(f"{source}: {name} needs the voltage of every pulse: add amplitude_v")
    kinds = frame["pulse"].astype(str).unique()
    if len(kinds) > 1 or kinds[0] == "read":
        raise InputError(
            f"{source}: pulses {', '.join(map(repr, kinds))}: {name} fits the reads after pulses "
            "of one kind: keep those of one, and no row without a pulse"
        )


def _check_sweep(run: Run, volts: NDArray[np.float64], grid: NDArray[np.float64]) -> None:
    if (run.reads <= 0).any():
        raise InputError(f"{run.where}: a read of 0 has no logarithm: leave this sweep out")
    values, times = np.unique(volts, return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"{run.where}: amplitude_v {values[times > 1][0]:g} comes twice: give every sweep, "
            "up or down, a sequence of its own"
        )
    missing = np.setdiff1d(grid, values)
    if len(missing):
        raise InputError(
            f"{run.where}: no read at amplitude_v {missing[0]:g}, where other sweeps have one: "
            "leave this sweep out, or that voltage of all"
        )
