"""Times after training as they are written on the command line: 1s,1h,1d,30d,1y."""

from __future__ import annotations

import math
import re

from devicemodels.errors import InputError

#: Seconds of each unit; a year has 365 days.
UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "y": 365 * 86_400.0}
_TIME = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)")


def times_s(text: str) -> list[float]:
    """Return the times [s]. Raises InputError for what is no time, and if they do not increase."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError("--times: give at least one time, e.g. 1h,1d")
    found: list[float] = []
    for k, part in enumerate(parts):
        time_s = _one(part, text)
        if found and time_s <= found[-1]:
            raise InputError(
                f"--times {text!r}: {part} does not come after {parts[k - 1]}: give rising times"
            )
        found.append(time_s)
    return found


def _one(part: str, text: str) -> float:
    match = _TIME.fullmatch(part)
    if match is None:
        raise InputError(f"--times {text!r}: {part!r} is no time: give e.g. 30s, 1h, 1d or 1y")
    number, unit = match.groups()
    if unit not in UNITS:
        said = f"unknown unit {unit!r}" if unit else "a unit is missing"
        raise InputError(f"--times {text!r}: {part}: {said}: known: {', '.join(UNITS)}")
    time_s = float(number) * UNITS[unit]
    if not 0 < time_s < math.inf:
        raise InputError(f"--times {text!r}: {part}: give a time above 0")
    return time_s


def in_words(time_s: float) -> str:
    """Return a time in the largest unit that leaves 1 or more: 3600.0 is '1 h'."""
    for unit in ("y", "d", "h", "min"):
        if time_s >= UNITS[unit]:
            return f"{time_s / UNITS[unit]:.3g} {unit}"
    return f"{time_s:.3g} s"
