"""The parameter file of a fitted step device, and the draws of its constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

import numpy as np
import tomli_w
from numpy.typing import NDArray

from calibration.diagnostics import Line, in_words
from calibration.fit import Posterior
from calibration.measurements import Measurements
from calibration.models.step_scale import RESPONSES
from devicemodels.errors import InputError, closest
from devicemodels.model import DEVICE_TYPES

#: Fields of the file that are a constant of the fit as it stands.
_SAME = {
    "up_down": "up_down", "dw_min_std": "cycle", "slope_up": "slope_up",
    "slope_down": "slope_down", "A_up": "A_up", "A_down": "A_down", "gamma_up": "gamma_up",
    "gamma_down": "gamma_down",
}  # fmt: skip
_NOT_MEASURED = ("assumed", "not measured: the fitted model has no such spread")
_ABSENT = {
    "up_down_dtod": (0.0, *_NOT_MEASURED),
    "w_max_dtod": (0.0, *_NOT_MEASURED),
    "w_min_dtod": (0.0, *_NOT_MEASURED),
    "a": (1.0, "exact", "z = w where w runs from -1 to 1"),
    "b": (0.0, "exact", "z = w where w runs from -1 to 1"),
}
#: A value, its status and its source.
_Entry = tuple[float, str, str]
_Number = TypeVar("_Number", float, NDArray[np.float64])


def step_file(
    response: str, lines: list[Line], title: str, source: str, table: Measurements
) -> str:
    """Return the text of a step device's parameter file with posterior means.

    A weight is 2 (g - middle) / (g_high - g_low), so that the window is -1 to 1: of soft bounds
    the fitted one, else the lowest and highest read of the table. source: what every fitted value
    came from. Many devices' log-normal steps are given by their mean and relative deviation; of
    one device the spread is the prior's and marked as assumed. A value beyond the limits of the
    device is cut to them, and says so, where its 95 % interval reaches them. Raises InputError
    where it does not, for bounds in the wrong order and for lines of another response.
    """
    if response not in RESPONSES:
        raise InputError(f"response {response!r}: {closest(str(response), RESPONSES)}")
    kind = RESPONSES[response]
    limits = {item.name: item.metadata for item in fields(DEVICE_TYPES[kind])}
    found = {line.name: line for line in lines}
    wanted = [_SAME[name] for name in limits if name in _SAME] + ["step", "step_spread"]
    wanted += ["g_high", "g_low"] if response == "soft-bounds" else []
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(f"{title}: no {missing[0]} in this fit: was it of a {response} response?")
    low, high, whence = _window(response, found, table)
    if not high > low:
        raise InputError(
            f"{title}: fitted bounds {low:.4g} to {high:.4g} uS leave no window: measure closer "
            "to the bounds, or fit --response linear"
        )
    entries: dict[str, _Entry] = dict(_ABSENT)
    status = "exact" if response == "soft-bounds" else "assumed"
    entries |= {
        "w_max": (1.0, status, f"{high:.6g} uS, {whence}"),
        "w_min": (-1.0, status, f"{low:.6g} uS, {whence}"),
    }
    entries |= {
        name: _within(name, found[same], limits[name], title, source)
        for name, same in _SAME.items()
        if name in limits
    }
    spread = found["step_spread"].mean
    steps = _steps(found["step"].mean, spread, high - low, len(table.devices))
    entries["dw_min_dtod"] = (spread, "assumed", "mean of the prior: one device was measured")
    entries |= {name: (float(value), "fitted", source) for name, value in steps.items()}
    text = {
        "device_type": kind,
        "title": title,
        "publication": f"none: fitted to {table.source}",
        "note": f"A weight of -1 to 1 is {low:.6g} to {high:.6g} uS. Posterior means (95 % "
        f"intervals): {in_words(lines)}. Noise of single reads is left out.",
        "device": {name: _quantity(name, entries[name], limits[name], title) for name in limits},
    }
    return tomli_w.dumps(text)


def _window(
    response: str, found: Mapping[str, Line], table: Measurements
) -> tuple[float, float, str]:
    """Return lowest and highest conductance [µS], and what they are."""
    if response == "soft-bounds":
        return found["g_low"].mean, found["g_high"].mean, "the fitted bound, by choice of the unit"
    reads = table.frame["conductance_us"]
    whence = "the outermost read: nothing is known beyond it"
    return float(reads.min()), float(reads.max()), whence


def step_draws(
    response: str, posterior: Posterior, table: Measurements
) -> dict[str, NDArray[np.float64]]:
    """Return draws of the constants of a step device that were fitted, (draws,) each.

    Values beyond the device's limits are cut to them; draws whose bounds are in the wrong order
    are left out, for no device is so.
    """
    limits = {item.name: item.metadata for item in fields(DEVICE_TYPES[RESPONSES[response]])}
    draws = {name: values.numpy() for name, values in posterior.flat().items()}
    if response == "soft-bounds":
        possible = draws["g_high"] > draws["g_low"]
        draws = {name: values[possible] for name, values in draws.items()}
        size = draws["g_high"] - draws["g_low"]
    else:
        reads = table.frame["conductance_us"]
        size = np.full_like(draws["step"], reads.max() - reads.min())
    found = {name: draws[same] for name, same in _SAME.items() if name in limits}
    found |= _steps(draws["step"], draws["step_spread"], size, len(table.devices))
    return {
        name: np.clip(v, limits[name]["low"], limits[name]["high"]) for name, v in found.items()
    }


def _steps(step: _Number, spread: _Number, size: _Number, devices: int) -> dict[str, _Number]:
    """Return mean step and relative spread of log-normal steps, in weights; one device has none."""
    if devices == 1:
        return {"dw_min": 2 * step / size}
    return {
        "dw_min": 2 * step / size * np.exp(spread**2 / 2),
        "dw_min_dtod": np.sqrt(np.expm1(spread**2)),
    }


def _within(name: str, line: Line, limit: Mapping[str, float], title: str, source: str) -> _Entry:
    value = min(max(line.mean, limit["low"]), limit["high"])
    if value == line.mean:
        return value, "fitted", source
    if not line.low <= value <= line.high:
        raise InputError(
            f"{title}: {line.name} = {line.mean:.4g} ({line.low:.4g} to {line.high:.4g}) is beyond "
            f"the limit {value:g} of {name}: no device of this type is so; try another response"
        )
    return value, "fitted", f"{source}; cut from {line.mean:.4g} to the limit of the device type"


def _quantity(
    name: str, entry: _Entry, limit: Mapping[str, float | str], title: str
) -> dict[str, object]:
    (value, status, source), (low, high) = entry, (float(limit["low"]), float(limit["high"]))
    if not low <= value <= high:
        raise InputError(
            f"{title}: {name} = {value:.4g} is beyond its limits {low:g} to {high:g}: the table "
            "does not tell it; measure more pulses"
        )
    return {
        "value": float(value),
        "unit": limit["unit"],
        "range": [low, high],
        "status": status,
        "source": source,
    }
