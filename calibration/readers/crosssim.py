"""Measured update tables of CrossSim: how a pulse changes a conductance, in distribution.

Source: github.com/sandialabs/cross-sim-data, commit 2ebec1f, lookup_tables (BSD-3-Clause). TaOx
resistive memory: Agarwal et al., VLSI 2017; ENODe (electrochemical): van de Burgt et al., Nat.
Mater. 2017. These are not reads of devices but fits of their statistics, so they are no
`Measurements`. The files ENODe_multi_* state no unit; they are not read here.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.readers import published
from devicemodels.errors import InputError

_ORIGIN = "github.com/sandialabs/cross-sim-data, lookup_tables"
_MICRO = 1e6  # µS in a siemens, the unit of the files


@dataclass(frozen=True, eq=False)
class UpdateTable:
    """The distribution of the change that one pulse makes, at each conductance.

    conductance: (n,), rising [µS]; cdf: (m,), rising from 0 to 1; change: (m, n) [µS], the change
    at that conductance which a fraction cdf of pulses does not exceed. As published, change
    falls along cdf in a few places, by up to 62 µS: sort it before it is inverted.
    """

    conductance: NDArray[np.float64]
    cdf: NDArray[np.float64]
    change: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UpdateTables:
    """The tables of one device, for pulses that increase and that decrease its conductance."""

    increasing: UpdateTable
    decreasing: UpdateTable


def taox(folder: Path | str) -> dict[int, UpdateTables]:
    """Read ``folder``/TaOx_luts_decimated5.npz: 41 devices by number, 101 x 101 values each.

    The file holds every fifth row and column of the published 501 x 501, in float32. Raises
    InputError for a missing or other file.
    """
    path = Path(folder) / "TaOx_luts_decimated5.npz"
    content = published(path, _ORIGIN)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError):
        arrays = {}

    def pick(way: str, device: int) -> UpdateTable:
        g, cdf, change = (arrays[f"{what}_{way}_{device}"] for what in ("G", "cdf", "dG"))
        return _table(g, cdf, change, path)

    devices = sorted(int(name[6:]) for name in arrays if re.fullmatch(r"G_inc_\d+", name))
    if not devices:
        raise _other(path)
    try:
        return {k: UpdateTables(pick("inc", k), pick("dec", k)) for k in devices}
    except KeyError:
        raise _other(path) from None


def enode(folder: Path | str) -> UpdateTables:
    """Read ``folder``/ENODe/dG_increasing.txt.xz and dG_decreasing.txt.xz: one device, 122 x 48.

    Raises InputError for a missing or other file.
    """
    folder = Path(folder) / "ENODe"
    return UpdateTables(
        _text_table(folder / "dG_increasing.txt.xz"), _text_table(folder / "dG_decreasing.txt.xz")
    )


def _text_table(path: Path) -> UpdateTable:
    """Read the published text: a line of words, conductances, CDF, a blank line, changes."""
    lines = published(path, _ORIGIN).decode("latin-1").splitlines()
    try:
        g, cdf, *change = (_numbers(line) for line in lines[1:] if line.strip())
        return _table(g, cdf, np.array(change), path)
    except ValueError:
        raise _other(path) from None


def _numbers(line: str) -> NDArray[np.float64]:
    return np.array([float(text) for text in line.split(",") if text.strip()])


def _table(g: NDArray, cdf: NDArray, change: NDArray, path: Path) -> UpdateTable:
    axes = (g, cdf)
    if (
        not all(axis.ndim == 1 and (np.diff(axis) > 0).all() for axis in axes)
        or change.shape != (len(cdf), len(g))
        or not np.isfinite(change).all()
    ):
        raise _other(path)
    return UpdateTable(
        g.astype(np.float64) * _MICRO, cdf.astype(np.float64), change.astype(np.float64) * _MICRO
    )


def _other(path: Path) -> InputError:
    return InputError(f"{path}: not a file of update tables: get the data of {_ORIGIN}")
