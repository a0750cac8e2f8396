"""Parameter files: data, not code. Load one by name or path, check it, build synapses from it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from devicemodels.devices.ideal import IdealArray, IdealParameters
from devicemodels.devices.pcm import NONIDEALITIES, PCMParameters
from devicemodels.devices.step import (
    ExpStepParameters,
    LinearStepParameters,
    SoftBoundsParameters,
    StepArray,
    StepParameters,
)
from devicemodels.errors import InputError, closest
from devicemodels.quantities import STATUSES, Parameters, Quantity
from devicemodels.state import Chance
from devicemodels.synapses.base import Synapse
from devicemodels.synapses.bipolar import SingleBipolar
from devicemodels.synapses.pair import DifferentialPair, PairParameters

#: Device types a parameter file can name, and the parameters each one needs.
DEVICE_TYPES: dict[str, type[Parameters]] = {
    "pcm": PCMParameters,
    "constant-step": StepParameters,
    "linear-step": LinearStepParameters,
    "soft-bounds": SoftBoundsParameters,
    "exponential-step": ExpStepParameters,
    "ideal": IdealParameters,
}
_HEADER = ("device_type", "title", "publication", "note")
_ENTRY = ("value", "unit", "range", "status", "source")


@dataclass(frozen=True)
class DeviceModel:
    """A checked parameter file: what device, with which constants, from which sources."""

    name: str
    device_type: str
    title: str
    publication: str
    note: str
    device: Parameters
    synapse: PairParameters | None
    quantities: tuple[Quantity, ...]
    text: str

    def without(self, *nonidealities: str) -> DeviceModel:
        """Return the model with PCM non-idealities switched off (see PCMParameters.without)."""
        if not nonidealities:
            return self
        if not isinstance(self.device, PCMParameters):
            raise InputError(
                f"cannot switch off {', '.join(nonidealities)} on {self.name!r}: only PCM models "
                f"have these; for a {self.device_type} device change its parameter file"
            )
        return replace(self, device=self.device.without(*nonidealities))

    def build(self, shape: tuple[int, int], chance: Chance, **options: Any) -> Synapse:
        """Make a synapse of ``shape`` (out, in) with fresh devices drawn from ``chance``.

        options (pairs only): drift_tolerance, beta [µS per unit weight].
        """
        if isinstance(self.device, PCMParameters):
            assert self.synapse is not None
            _reject_unknown(options, ("beta", "drift_tolerance"), self.name, "option")
            beta = options.pop("beta", None)
            pair = self.synapse if beta is None else replace(self.synapse, beta=beta)
            return DifferentialPair(shape, self.device, pair, chance, **options)
        if options:
            raise InputError(
                f"{', '.join(options)} does not apply to {self.name!r}: its devices hold weights "
                "directly; only PCM pairs have it"
            )
        size = shape[0] * shape[1]
        if isinstance(self.device, StepParameters):
            step = StepArray(size, self.device, chance)
            return SingleBipolar(shape, step, self.device.dw_min, chance)
        assert isinstance(self.device, IdealParameters)
        ideal = IdealArray(size, self.device, chance)
        return SingleBipolar(shape, ideal, self.device.step, chance)


def available() -> list[str]:
    """Return the names of the parameter files that ship with the package."""
    folder = resources.files("devicemodels") / "parameters"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def load(name: str | Path) -> DeviceModel:
    """Load a shipped parameter file by name, or any by path (a name with '/' or '.toml').

    Raises InputError, naming file, key and remedy, for an unknown name or key, a missing unit,
    an impossible value.
    """
    text = str(name)
    if text.endswith(".toml") or "/" in text:
        path = Path(text)
        try:
            return parse(path.read_text(encoding="utf-8"), path.stem, text)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise InputError(f"{text}: cannot read the device model: {reason}") from None
    if text not in available():
        raise InputError(f"no device model {text!r}: {closest(text, available())}; or a FILE.toml")
    source = resources.files("devicemodels") / "parameters" / f"{text}.toml"
    return parse(source.read_text(encoding="utf-8"), text, f"{text}.toml")


def parse(text: str, name: str, where: str) -> DeviceModel:
    """Check the text of a parameter file; ``where`` names it in errors."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond Python's limits
        raise InputError(f"{where}: not valid TOML: {error}") from None
    for key in _HEADER:
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise InputError(f'{where}: {key} is missing: add a line {key} = "..."')
    kind = table["device_type"]
    if kind not in DEVICE_TYPES:
        raise InputError(f"{where}: device_type {kind!r} is unknown: {closest(kind, DEVICE_TYPES)}")
    paired = kind == "pcm"
    sections = ("device", "synapse") if paired else ("device",)
    _reject_unknown(table, (*_HEADER, *sections), where, "section")
    read = {"device": DEVICE_TYPES[kind], "synapse": PairParameters}
    built, quantities = {}, []
    for section in sections:
        built[section], found = _section(table.get(section), read[section], section, where)
        quantities += found
    pair = built.get("synapse")
    return DeviceModel(
        name=name,
        **{key: table[key] for key in _HEADER},
        device=built["device"],
        synapse=pair if isinstance(pair, PairParameters) else None,
        quantities=tuple(quantities),
        text=text,
    )


def _reject_unknown(table: dict[str, Any], known: Collection[str], where: str, what: str) -> None:
    for key in table:
        if key not in known:
            raise InputError(f"{where}: unknown {what} {key!r}: {closest(key, known)}")


def _section(
    table: Any, kind: type[Parameters], section: str, where: str
) -> tuple[Parameters, list[Quantity]]:
    if not isinstance(table, dict):
        raise InputError(f"{where}: section [{section}] is missing")
    wanted = {item.name: item.metadata for item in fields(kind)}
    _reject_unknown(table, wanted, where, f"key in [{section}]")
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
    form = f'write {{ value = ..., unit = "{meta["unit"]}", range = [low, high], status, source }}'
    if not isinstance(entry, dict):
        raise InputError(f"{where}: a bare value has no unit: {form}")
    _reject_unknown(entry, _ENTRY, where, "key")
    for key in _ENTRY:
        if key not in entry:
            raise InputError(f"{where}: {key} is missing: {form}")
    if entry["unit"] != meta["unit"]:
        raise InputError(f"{where}: unit {entry['unit']!r} is not allowed: give {meta['unit']!r}")
    if entry["status"] not in STATUSES:
        raise InputError(f"{where}: status {entry['status']!r}: allowed are {', '.join(STATUSES)}")
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise InputError(f"{where}: source is empty: say where the value comes from")
    limits = entry["range"]
    if not (isinstance(limits, list) and len(limits) == 2 and all(map(_is_number, limits))):
        raise InputError(f"{where}: range must be two numbers [low, high]")
    value, (low, high) = entry["value"], limits
    if not _is_number(value):
        raise InputError(f"{where}: value {value!r} is not a number")
    allowed_low, allowed_high = max(low, meta["low"]), min(high, meta["high"])
    # Compared before it is converted: an integer can be too large for a float.
    if not (allowed_low <= value <= allowed_high and math.isfinite(value)):
        raise InputError(
            f"{where} = {value} {meta['unit']} is out of range: allowed are {allowed_low} to "
            f"{allowed_high} ({meta['about']})"
        )
    return Quantity(
        name, float(value), entry["unit"], entry["source"], entry["status"], low, high,
        meta["about"],
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


__all__ = ["DEVICE_TYPES", "NONIDEALITIES", "DeviceModel", "available", "load", "parse"]
