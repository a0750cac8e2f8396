"""Which models may be compared with a fitted one on its table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from calibration.measurements import Measurements
from calibration.models import MODELS
from calibration.models.base import CalibrationModel
from calibration.models.data import Data
from calibration.models.step_scale import RESPONSES
from devicemodels.errors import InputError, closest

#: Reads of the largest table that is compared unasked.
MOST_READS = 20_000
#: What --compare takes beside names.
WAYS = ("auto", "none", "all")


@dataclass(frozen=True)
class Candidate:
    """A model, the name that it has in a comparison, and the table as it takes it."""

    name: str
    model: CalibrationModel
    data: Data


def name_of(model: CalibrationModel) -> str:
    """Return the name of a model with what was chosen for it: step-response:linear."""
    if getattr(model, "heavy_tails", False):
        return f"{model.name}:heavy-tails"
    response = getattr(model, "response", None)
    return model.name if response is None else f"{model.name}:{response}"


def makers(options: Mapping[str, Any]) -> dict[str, Callable[[], CalibrationModel]]:
    """Return every model in every response by `name_of`; options go to models that have them."""
    found: dict[str, Callable[[], CalibrationModel]] = {}
    for name, kind in MODELS.items():
        has = inspect.signature(kind).parameters
        make = partial(kind, **{key: value for key, value in options.items() if key in has})
        if "response" in has:
            found |= {f"{name}:{way}": partial(make, response=way) for way in RESPONSES}
        else:
            found[name] = make
        if "heavy_tails" in has:
            found[f"{name}:heavy-tails"] = partial(make, heavy_tails=True)
    return found


def chosen(text: str) -> list[str]:
    """Return the names that --compare asks for; a name without its response means all of them.

    Raises InputError for a name that is none.
    """
    known = list(makers({}))
    if text in WAYS:
        return known
    found: list[str] = []
    for name in text.split(","):
        names = [k for k in known if k == name] or [k for k in known if k.split(":")[0] == name]
        if not names:
            raise InputError(
                f"--compare {name!r}: {closest(name, dict.fromkeys([*WAYS, *MODELS, *known]))}; "
                "separate names by commas"
            )
        found += names
    return list(dict.fromkeys(found))


def gather(
    own: Candidate, measurements: Measurements, compare: str, options: Mapping[str, Any]
) -> tuple[list[Candidate], str]:
    """Return the fitted model and its rivals, and why there are none ("" where there are).

    compare: auto, none, all, or names with commas. Rivals are of the same family and take the
    table. Raises InputError for one that was named and is no rival.
    """
    if compare == "none":
        return [], "Not asked for: --compare auto or all."
    named = compare not in WAYS
    if not own.model.family:
        if named:
            raise InputError(f"--compare {compare}: {_alone(own.model)}: leave it out")
        return [], f"{_alone(own.model).capitalize()}."
    if compare == "auto" and measurements.rows > MOST_READS:
        return [], (
            f"Left out, as it takes long: the table holds more than {MOST_READS:,} reads; ask with "
            "--compare all, or by name."
        )
    make, found = makers(options), [own]
    for name in chosen(compare):
        if name == own.name:
            continue
        try:
            found.append(_rival(name, make[name](), own, measurements))
        except InputError as error:
            if named:
                raise InputError(f"--compare {name}: {error}") from error
    return found, ""


def _rival(
    name: str, model: CalibrationModel, own: Candidate, measurements: Measurements
) -> Candidate:
    if model.family != own.model.family:
        raise InputError(f"describes other reads than {own.model.name}: leave it out")
    data = model.prepare(measurements)
    same = data.number == own.data.number
    if not same or not torch.equal(_later(data), _later(own.data)):
        raise InputError(f"takes other reads of this table than {own.model.name}: leave it out")
    if model.clips != own.model.clips and (measurements.frame["conductance_us"] <= 0).any():
        raise InputError(
            f"counts a read of 0 otherwise than {own.model.name}: leave out the reads of 0"
        )
    return Candidate(name, model, data)


def _later(data: Data) -> torch.Tensor:
    """Return the number of reads after the first ones of each device's sequences."""
    return data.by_device((data.lengths - 1).double())


def _alone(model: CalibrationModel) -> str:
    return f"no other model gives densities of what {model.name} describes"
