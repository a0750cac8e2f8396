"""Units of conductance: the ways a table may state it, all converted to µS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from calibration.checks import SKIP, Numbers, Origin, numbers
from devicemodels.errors import InputError

#: The ways to state a conductance; a table uses exactly one.
WAYS = (
    ("conductance_us",),
    ("conductance_s",),
    ("resistance_ohm",),
    ("current_a", "read_voltage_v"),
)
_MICRO = 1e6  # µS in a siemens
#: Plausible medians: no device of the field is typically below 1 nS or above 0.1 S.
_SMALLEST_US = 1e-3
_LARGEST_S = 1e-1
_SMALLEST_OHM = 1.0


def way(names: Sequence[str], origin: Origin) -> tuple[str, ...]:
    """Return the columns that state the conductance.

    Raises InputError if none do, if a column lacks its partner, or if it is stated twice.
    """
    given = [columns for columns in WAYS if any(name in names for name in columns)]
    if not given:
        raise InputError(
            f"{origin.name}: no column states the conductance: add conductance_us, or "
            "conductance_s, resistance_ohm, or current_a with read_voltage_v"
        )
    if len(given) > 1:
        twice = " and by ".join(next(name for name in c if name in names) for c in given)
        raise InputError(f"{origin.name}: conductance is stated by {twice}: keep one of them")
    for name in given[0]:
        if name not in names:
            other = next(n for n in given[0] if n != name)
            raise InputError(
                f"{origin.name}: column {name} is missing: {other} alone gives no conductance: "
                f"add {name}, or state the conductance another way"
            )
    return given[0]


def conductance_us(frame: pd.DataFrame, columns: tuple[str, ...], origin: Origin) -> Numbers:
    """Return the conductance [µS] that ``columns``, one of WAYS, state.

    Raises InputError for a value that is not a finite number, a negative conductance or
    resistance, a resistance or read voltage of zero, values that look like another unit.
    """
    result = _CONVERT[columns](*(numbers(frame[name], origin) for name in columns), origin)
    origin.refuse(np.isinf(result), columns[0], lambda at: "is out of all reason: check the unit")
    return result


def seems_siemens(values_us: Numbers) -> bool:
    """Return whether numbers called µS are so small that they look like siemens.

    Zeros tell nothing: a device that does not conduct reads 0 in any unit.
    """
    positive = values_us[values_us > 0]
    return bool(positive.size) and bool(np.median(positive) < _SMALLEST_US)


def _from_microsiemens(values: Numbers, origin: Origin) -> Numbers:
    _refuse_negative(values, "conductance_us", origin)
    if seems_siemens(values):
        raise _unit(values, "conductance_us", "siemens: name the column conductance_s", origin)
    return values


def _from_siemens(values: Numbers, origin: Origin) -> Numbers:
    _refuse_negative(values, "conductance_s", origin)
    if np.median(values) > _LARGEST_S:
        likely = "microsiemens: name the column conductance_us"
        raise _unit(values, "conductance_s", likely, origin)
    with np.errstate(over="ignore"):
        return values * _MICRO


def _from_ohm(values: Numbers, origin: Origin) -> Numbers:
    origin.refuse(
        values <= 0,
        "resistance_ohm",
        lambda at: f"{values[at]:g} ohm is no resistance: give more than 0, or {SKIP}",
    )
    if np.median(values) < _SMALLEST_OHM:
        raise _unit(values, "resistance_ohm", "Mohm or kohm: multiply it to ohm", origin)
    with np.errstate(over="ignore"):
        return _MICRO / values


def _from_current(current: Numbers, voltage: Numbers, origin: Origin) -> Numbers:
    origin.refuse(
        voltage == 0,
        "read_voltage_v",
        lambda at: "is 0, which reads no conductance: give the voltage of the read",
    )
    with np.errstate(over="ignore"):
        result = current / voltage * _MICRO
    origin.refuse(
        result < 0,
        "current_a",
        lambda at: (
            f"{current[at]:g} A at {voltage[at]:g} V is a negative conductance: mend a sign, "
            f"or {SKIP}"
        ),
    )
    if np.median(result) > _LARGEST_S * _MICRO:
        raise _unit(current, "current_a", "microamperes: multiply it to amperes", origin)
    return result


_CONVERT: dict[tuple[str, ...], Callable[..., Numbers]] = dict(
    zip(WAYS, (_from_microsiemens, _from_siemens, _from_ohm, _from_current), strict=True)
)


def _refuse_negative(values: Numbers, column: str, origin: Origin) -> None:
    origin.refuse(
        values < 0,
        column,
        lambda at: f"{values[at]:g} is negative: a conductance is not: {SKIP}",
    )


def _unit(values: Numbers, column: str, likely: str, origin: Origin) -> InputError:
    return InputError(
        f"{origin.name}: column {column}: a median of {np.median(values):g} looks like {likely}"
    )
