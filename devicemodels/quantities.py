"""Physical quantities: fields of parameter dataclasses with a unit and limits, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from devicemodels.errors import InputError

#: How far a value can be trusted; every value in a parameter file carries one of these.
STATUSES = ("verified", "recalled", "assumed", "fitted", "exact")


def is_number(value: Any) -> bool:
    """Return whether ``value`` is an int or a float; a bool is not a number here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def quantity(
    unit: str, low: float, high: float, about: str, whole: bool = False, dims: int = 0
) -> Any:
    """Declare a dataclass field: its unit, the values physics allows [low, high], its meaning.

    whole: only whole numbers make sense. dims: 0 for a number, else how deep its numbers are
    nested in lists; they are kept as tuples of floats.
    """
    limits = {"unit": unit, "low": low, "high": high, "about": about}
    return field(metadata=limits | {"whole": whole, "dims": dims})


def nested(values: Any, dims: int, what: str) -> tuple[Any, ...]:
    """Return numbers in nested lists of equal lengths as tuples; ``what`` names them in errors.

    Raises InputError for anything else, and for a number that is not finite.
    """
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0)
    if found.ndim != dims or not found.size or not np.isfinite(found).all():
        raise InputError(
            f"{what}: must be finite numbers in {dims} nested lists, those of a level equally long"
        )
    return _tuples(found.tolist())


def _tuples(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuples(value) if isinstance(value, list) else value for value in values)


def shown(value: float | tuple[Any, ...]) -> str:
    """Return a value in words: a number, or how many numbers an array has, and their range."""
    if not isinstance(value, tuple):
        return f"{value:g}"
    numbers = np.asarray(value)
    lengths = " x ".join(map(str, numbers.shape))
    return f"{lengths} values, {numbers.min():g} to {numbers.max():g}"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Base of all parameter sets: construction rejects a value outside its physical limits."""

    def __post_init__(self) -> None:
        for item in fields(self):
            low, high = item.metadata["low"], item.metadata["high"]
            value = getattr(self, item.name)
            if item.metadata["dims"]:
                value = nested(value, item.metadata["dims"], item.name)
                object.__setattr__(self, item.name, value)
                outside = [x for x in np.ravel(value) if not low <= x <= high]
                if outside:
                    raise InputError(
                        f"{item.name}: {outside[0]:g} {item.metadata['unit']} is impossible: "
                        f"allowed are {low} to {high} ({item.metadata['about']})"
                    )
                continue
            if not (math.isfinite(value) and low <= value <= high):
                raise InputError(
                    f"{item.name} = {value} {item.metadata['unit']} is impossible: "
                    f"allowed are {low} to {high} ({item.metadata['about']})"
                )
            if item.metadata["whole"] and value != int(value):
                raise InputError(f"{item.name} = {value} {item.metadata['unit']}: must be whole")


@dataclass(frozen=True)
class Quantity:
    """One value of a parameter file with its provenance; an array is nested tuples."""

    name: str
    value: Any
    unit: str
    source: str
    status: str
    low: float
    high: float
    about: str
