"""Physical quantities: fields of parameter dataclasses with a unit and limits, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from devicemodels.errors import InputError

#: How far a value can be trusted; every value in a parameter file carries one of these.
STATUSES = ("verified", "recalled", "assumed", "fitted", "exact")


def is_number(value: Any) -> bool:
    """Return whether ``value`` is an int or a float; a bool is not a number here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def quantity(unit: str, low: float, high: float, about: str, whole: bool = False) -> Any:
    """Declare a dataclass field: its unit, the values physics allows [low, high], its meaning.

    whole: only whole numbers make sense.
    """
    return field(metadata={"unit": unit, "low": low, "high": high, "about": about, "whole": whole})


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Base of all parameter sets: construction rejects a value outside its physical limits."""

    def __post_init__(self) -> None:
        for item in fields(self):
            low, high = item.metadata["low"], item.metadata["high"]
            value = getattr(self, item.name)
            if not (math.isfinite(value) and low <= value <= high):
                raise InputError(
                    f"{item.name} = {value} {item.metadata['unit']} is impossible: "
                    f"allowed are {low} to {high} ({item.metadata['about']})"
                )
            if item.metadata["whole"] and value != int(value):
                raise InputError(f"{item.name} = {value} {item.metadata['unit']}: must be whole")


@dataclass(frozen=True)
class Quantity:
    """One value of a parameter file with its provenance."""

    name: str
    value: float
    unit: str
    source: str
    status: str
    low: float
    high: float
    about: str
