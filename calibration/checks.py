"""Checks of a measurement table: each mistake is one line of file, row, column and remedy."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from devicemodels.errors import InputError, closest

#: A float64 holds every whole number up to here.
_LARGEST = 2**53
#: The remedy for a value that cannot be mended: a mere gap in the steps would hide a pulse.
SKIP = "leave the row out and begin a new sequence after it"

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Wholes = NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """Where a table comes from, for the words of an error.

    name: the file; word, first: what its rows are called, and the number of the first one.
    """

    name: str
    word: str = "row"
    first: int = 1

    def row(self, position: int) -> str:
        """Return the name of the row at ``position`` (from 0), as a user would count it."""
        return f"{self.word} {self.first + position}"

    def refuse(self, bad: Mask, column: str, what: Callable[[int], str]) -> None:
        """Raise InputError for the first row that is ``bad``; what: its position to the words."""
        if bad.any():
            at = int(bad.argmax())
            raise InputError(f"{self.name}: {self.row(at)}, column {column}: {what(at)}")


def check_columns(
    names: Sequence[str], known: Sequence[str], required: Sequence[str], origin: Origin
) -> None:
    """Raise InputError for a column without a name, given twice, not known, or missing."""
    for number, name in enumerate(names, start=1):
        if not name:
            raise InputError(
                f"{origin.name}: column {number} has no name: name it or remove it (a comma too "
                "many at the end of the header?)"
            )
        if name not in known:
            raise InputError(
                f"{origin.name}: unknown column {name!r}: rename or remove it: "
                f"{closest(name, known)}"
            )
        if name in names[: number - 1]:
            raise InputError(f"{origin.name}: column {name} occurs twice: remove one of the two")
    for name in required:
        if name not in names:
            raise InputError(
                f"{origin.name}: column {name} is missing: add it; needed are "
                f"{', '.join(required)} and a conductance"
            )


def numbers(column: pd.Series, origin: Origin) -> Numbers:
    """Return a column as finite float64. Raises InputError for text, a blank, NaN, infinity."""
    name = str(column.name)
    if pd.api.types.is_float_dtype(column) or pd.api.types.is_integer_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
    else:
        values = np.empty(len(column))
        for at, cell in enumerate(column.astype(object)):
            try:
                values[at] = _number(cell)
            except (TypeError, ValueError, OverflowError):
                raise InputError(
                    f"{origin.name}: {origin.row(at)}, column {name}: {reprlib.repr(cell)} is not "
                    "a number: write one such as 12.5 or 2e-6, without a unit"
                ) from None
    origin.refuse(
        np.isnan(values),
        name,
        lambda at: f"is blank or NaN: give a number, or {SKIP}",
    )
    origin.refuse(np.isinf(values), name, lambda at: f"is infinite: give a number, or {SKIP}")
    return values


def _number(cell: object) -> float:
    """Return a cell as a float, NaN if it is blank. Raises what float() raises."""
    if isinstance(cell, str):
        if "_" in cell:  # 1_000 is a thousand to Python; in a table it is a typing error
            raise ValueError
        return float(cell.strip() or "nan")
    if isinstance(cell, bool | np.bool_):
        raise TypeError
    return float("nan") if pd.isna(cell) else float(cell)  # type: ignore[call-overload, arg-type]


def wholes(column: pd.Series, origin: Origin) -> Wholes:
    """Return a column as int64 of at least 0. Raises InputError for anything else."""
    name, values = str(column.name), numbers(column, origin)
    origin.refuse(
        values != np.floor(values),
        name,
        lambda at: f"{values[at]:g} is not whole: count 0, 1, 2, ...",
    )
    origin.refuse(
        values < 0, name, lambda at: f"{values[at]:g} is negative: count from 0, or from 1"
    )
    origin.refuse(
        values > _LARGEST, name, lambda at: f"{values[at]:g} is too large: count 0, 1, 2, ..."
    )
    return values.astype(np.int64)


def texts(column: pd.Series, origin: Origin) -> pd.Series:
    """Return a column of names as text without outer blanks. Raises InputError for other cells."""
    cells = column.astype(object)
    blank = cells.isna()
    kind = cells.map(
        lambda cell: isinstance(cell, str | int | np.integer) and not isinstance(cell, bool)
    )
    found = cells.where(~blank, "").astype(str).str.strip()
    name = str(column.name)
    origin.refuse(
        (blank | (found == "")).to_numpy(bool),
        name,
        lambda at: f"is blank: give the {name} in every row",
    )
    origin.refuse(
        ~(kind & found.map(str.isprintable)).to_numpy(bool),
        name,
        lambda at: (
            f"{reprlib.repr(cells.iloc[at])} is no name: give text on one line or a whole number"
        ),
    )
    return found


def check_pulses(pulse: pd.Series, known: Sequence[str], origin: Origin) -> None:
    """Raise InputError for the first pulse that is not ``known``."""
    origin.refuse(
        ~pulse.isin(known).to_numpy(bool),
        "pulse",
        lambda at: (
            f"unknown pulse {reprlib.repr(pulse.iloc[at])}: {closest(pulse.iloc[at], known)}"
        ),
    )


def check_steps(device: pd.Series, sequence: Wholes, step: Wholes, origin: Origin) -> None:
    """Raise InputError for a read given twice, out of order, or after a gap.

    Steps must go up by one within a device and sequence, in the order of the rows; rows of
    several sequences may be mixed.
    """

    def read(at: int) -> str:
        return f"step {step[at]} of device {device.iloc[at]}, sequence {sequence[at]},"

    keys = pd.DataFrame({"device": device, "sequence": sequence, "step": step})

    def first(at: int) -> str:
        return origin.row(int((keys == keys.iloc[at]).all(axis=1).to_numpy().argmax()))

    origin.refuse(
        keys.duplicated().to_numpy(),
        "step",
        lambda at: (
            f"{read(at)} is already in {first(at)}: remove one of the two, or number "
            "repeated measurements by the column sequence"
        ),
    )
    change = _changes(device, sequence, step)
    origin.refuse(
        change < 0,
        "step",
        lambda at: f"{read(at)} follows step {step[at] - int(change[at])}: sort the rows by step",
    )
    origin.refuse(
        change > 1,
        "step",
        lambda at: (
            f"{read(at)} follows step {step[at] - int(change[at])}, so a change would be that of "
            "several pulses: renumber the steps, or split the sequence where reads are missing"
        ),
    )


def check_times(device: pd.Series, sequence: Wholes, time_s: Numbers, origin: Origin) -> None:
    """Raise InputError where time goes back within a device and sequence."""
    change = _changes(device, sequence, time_s)
    origin.refuse(
        change < 0,
        "time_s",
        lambda at: (
            f"{time_s[at]:g} s is earlier than the read before it in device {device.iloc[at]}, "
            f"sequence {sequence[at]}: time must not decrease: split the sequence, or mend the "
            "clock"
        ),
    )


def check_widths(width_s: Numbers, origin: Origin) -> None:
    """Raise InputError for a pulse width that is not positive."""
    origin.refuse(
        width_s <= 0,
        "width_s",
        lambda at: (
            f"{width_s[at]:g} s is no pulse width: give seconds above 0, or remove the column"
        ),
    )


def _changes(device: pd.Series, sequence: Wholes, values: Wholes | Numbers) -> Numbers:
    """Return each row's value minus that of the row before in its sequence; NaN for the first."""
    keys = [device.to_numpy(), sequence]
    return pd.Series(values).groupby(keys, sort=False).diff().to_numpy(np.float64)
