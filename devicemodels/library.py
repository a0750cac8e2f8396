"""Parameter files: data, not code. Load one by name or path and check it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from devicemodels.devices.pcm import NONIDEALITIES
from devicemodels.errors import InputError, closest, reject_unknown
from devicemodels.model import DEVICE_TYPES, DeviceModel
from devicemodels.parameter_files import read_file, read_table, shipped
from devicemodels.posterior import posterior_of
from devicemodels.quantities import STATUSES, Parameters, Quantity, is_number, nested
from devicemodels.synapses.pair import PairParameters

_HEADER = ("device_type", "title", "publication", "note")
_ENTRY = ("unit", "range", "status", "source")


def available() -> list[str]:
    """Return the names of the parameter files that ship with the package."""
    return shipped("devicemodels")


def load(name: str | Path) -> DeviceModel:
    """Load a shipped parameter file by name, or any by path (a name with '/' or '.toml').

    Raises InputError, naming file, key and remedy, for an unknown name or key, a missing unit,
    an impossible value.
    """
    file = read_file(name, "devicemodels", "device model")
    return parse(file.text, file.name, file.where, file.folder)


def parse(text: str, name: str, where: str, folder: Path = Path()) -> DeviceModel:
    """Check the text of a parameter file; ``where`` names it in errors.

    folder: where its posterior lies, if it names one.
    """
    table = read_table(text, _HEADER, where)
    kind = table["device_type"]
    if kind not in DEVICE_TYPES:
        raise InputError(f"{where}: device_type {kind!r} is unknown: {closest(kind, DEVICE_TYPES)}")
    paired = kind == "pcm"
    sections = ("device", "synapse") if paired else ("device",)
    reject_unknown(table, (*_HEADER, *sections, "posterior"), where, "section")
    read = {"device": DEVICE_TYPES[kind], "synapse": PairParameters}
    built, quantities = {}, []
    for section in sections:
        built[section], found = read_section(table.get(section), read[section], section, where)
        quantities += found
    pair = built.get("synapse")
    return DeviceModel(
        name=name,
        **{key: table[key] for key in _HEADER},
        device=built["device"],
        synapse=pair if isinstance(pair, PairParameters) else None,
        quantities=tuple(quantities),
        text=text,
        posterior=posterior_of(table["posterior"], where, folder) if "posterior" in table else None,
    )


def read_section(
    table: Any, kind: type[Parameters], section: str, where: str
) -> tuple[Parameters, list[Quantity]]:
    """Build ``kind`` from a section of a parameter file; ``where`` names the file in errors."""
    if not isinstance(table, dict):
        raise InputError(f"{where}: section [{section}] is missing")
    wanted = {item.name: item.metadata for item in fields(kind)}
    reject_unknown(table, wanted, where, f"key in [{section}]")
    quantities = []
    for key, meta in wanted.items():
        if key not in table:
            raise InputError(f"{where}: [{section}] {key} is missing: {meta['about']}")
        quantities.append(_quantity(table[key], key, meta, f"{where}: [{section}] {key}"))
    build: Callable[..., Parameters] = kind
    try:
        return build(**{q.name: q.value for q in quantities}), quantities
    except InputError as error:
        raise InputError(f"{where}: [{section}] {error}") from None


def _quantity(entry: Any, name: str, meta: Any, where: str) -> Quantity:
    key_of_value = "values" if meta["dims"] else "value"
    named = f'{key_of_value} = ..., unit = "{meta["unit"]}"'
    form = f"write {{ {named}, range = [low, high], status, source }}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: a bare value has no unit: {form}")
    wanted = (key_of_value, *_ENTRY)
    reject_unknown(entry, wanted, where, "key")
    for key in wanted:
        if key not in entry:
            raise InputError(f"{where}: {key} is missing: {form}")
    if entry["unit"] != meta["unit"]:
        raise InputError(f"{where}: unit {entry['unit']!r} is not allowed: give {meta['unit']!r}")
    if entry["status"] not in STATUSES:
        raise InputError(f"{where}: status {entry['status']!r}: allowed are {', '.join(STATUSES)}")
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise InputError(f"{where}: source is empty: say where the value comes from")
    limits = entry["range"]
    if not (isinstance(limits, list) and len(limits) == 2 and all(map(is_number, limits))):
        raise InputError(f"{where}: range must be two numbers [low, high]")
    value, (low, high) = entry[key_of_value], limits
    allowed_low, allowed_high = max(low, meta["low"]), min(high, meta["high"])
    if meta["dims"]:
        value = nested(value, meta["dims"], f"{where}: values")
        ends = float(np.min(value)), float(np.max(value))
    elif is_number(value):
        ends = value, value
    else:
        raise InputError(f"{where}: value {value!r} is not a number")
    # Compared before it is converted: an integer can be too large for a float.
    if not (allowed_low <= ends[0] and ends[1] <= allowed_high and math.isfinite(ends[0])):
        wrong = ends[1] if allowed_low <= ends[0] else ends[0]
        raise InputError(
            f"{where} = {wrong} {meta['unit']} is out of range: allowed are {allowed_low} to "
            f"{allowed_high} ({meta['about']})"
        )
    return Quantity(
        name, value if meta["dims"] else float(value), entry["unit"], entry["source"],
        entry["status"], low, high, meta["about"],
    )  # fmt: skip


__all__ = ["DEVICE_TYPES", "NONIDEALITIES", "DeviceModel", "available", "load", "parse"]
