"""What a fit leaves: the parameter file, and the posterior draws beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import tomli_w

import devicemodels
from calibration.diagnostics import Line, inference_data
from calibration.fit import Posterior
from calibration.models.base import CalibrationModel
from devicemodels.devices.pcm import PCMParameters
from devicemodels.synapses.pair import PairParameters

#: Where a PCM file takes what SET measurements cannot tell.
_BASE = "nandakumar2018"
#: The granularity in weight units that the experiment worked with (Front. Neurosci. 14:406, 2020).
_EPSILON = 0.096
_PULSES = 10


def posterior_file(parameters: Path) -> Path:
    """Return the name of the posterior beside a parameter file."""
    return parameters.with_suffix(".posterior.nc")


def write_posterior(path: Path, posterior: Posterior, about: Mapping[str, str]) -> None:
    """Write the draws as netCDF, which arviz.from_netcdf opens; about: attributes of the file."""
    data = inference_data(posterior)
    data.posterior.attrs.update(about)
    part = path.with_name(path.name + ".part")
    data.to_netcdf(str(part), engine="h5netcdf")
    os.replace(part, path)


def pcm_file(
    model: CalibrationModel, lines: list[Line], title: str, source: str, table: str
) -> str:
    """Return the text of a PCM parameter file with posterior means.

    source: what every fitted value came from. What SET measurements cannot tell is copied from
    nandakumar2018 and marked as assumed; the granularity is the mean step of the first ten
    pulses, and beta keeps its 0.096 weight units.
    """
    base = devicemodels.load(_BASE)
    assert isinstance(base.device, PCMParameters)
    assert base.synapse is not None
    known = {item.name: item.metadata for item in fields(PCMParameters)}
    mine = {line.name: line for line in lines if line.name in known}
    fitted = {
        name: min(max(line.mean, known[name]["low"]), known[name]["high"])
        for name, line in mine.items()
    }
    device = replace(base.device, **fitted)
    response = device.mean_set_response(_PULSES)
    device = replace(device, mean_step=max((response[-1] - response[0]) / _PULSES, 1e-6))
    refresh = 2 / 3 * device.g_max
    pair = replace(
        base.synapse,
        beta=device.mean_step / _EPSILON,
        refresh_above=refresh,
        refresh_below=0.75 * refresh,
        initial_mean=response[1],
    )
    sources = dict.fromkeys(fitted, ("fitted", source))
    sources["mean_step"] = ("fitted", f"mean step of the first {_PULSES} pulses of this fit")
    spread = "; ".join(f"{x.name} {x.mean:.4g} ({x.low:.4g} to {x.high:.4g})" for x in lines)
    text = {
        "device_type": model.device_type,
        "title": title,
        "publication": f"none: fitted to {table}",
        "note": f"Posterior means (95 % intervals): {spread}.",
        "device": _section(device, base, sources, PCMParameters),
        "synapse": _section(pair, base, _pair_sources(), PairParameters),
    }
    return tomli_w.dumps(text)


def _pair_sources() -> dict[str, tuple[str, str]]:
    return {
        "beta": ("assumed", f"mean_step / {_EPSILON}, the epsilon of Front. Neurosci. 14:406"),
        "refresh_above": ("assumed", "two thirds of g_max, as in nandakumar2018"),
        "refresh_below": ("assumed", "three quarters of refresh_above, as in nandakumar2018"),
        "initial_mean": ("assumed", "mean conductance after one SET pulse of this fit"),
    }


def _section(
    values: Any, base: devicemodels.DeviceModel, sources: Mapping[str, tuple[str, str]], kind: Any
) -> dict[str, dict[str, Any]]:
    stated = {q.name: q for q in base.quantities}
    found = {}
    for item in fields(kind):
        value = getattr(values, item.name)
        status, source = sources.get(
            item.name, ("assumed", f"not measured: as {base.name} ({stated[item.name].source})")
        )
        found[item.name] = {
            "value": int(value) if item.metadata["whole"] else float(value),
            "unit": item.metadata["unit"],
            "range": [float(item.metadata["low"]), float(item.metadata["high"])],
            "status": status,
            "source": source,
        }
    return found
