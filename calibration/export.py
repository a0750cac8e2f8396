"""What a fit leaves: the parameter file, and the posterior draws beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import xarray
from numpy.typing import NDArray

from calibration import files
from calibration.diagnostics import Line, in_words, inference_data
from calibration.fit import Posterior
from devicemodels.devices.pcm import PCMParameters
from devicemodels.model import DeviceModel
from devicemodels.posterior import GROUP
from devicemodels.quantities import Parameters

#: The constants that decide the mean SET step.
_STEP = ("m1", "c1", "A1", "a", "g_min", "g_max", "reset_mean")
#: What a PCM device can be, by constant.
_LIMITS = {item.name: item.metadata for item in fields(PCMParameters)}
#: The granularity in weight units that the experiment worked with (Front. Neurosci. 14:406, 2020).
_EPSILON = 0.096
_PULSES = 10


def posterior_file(parameters: Path) -> Path:
    """Return the name of the posterior beside a parameter file."""
    return parameters.with_suffix(".posterior.nc")


def write_posterior(
    path: Path,
    posterior: Posterior,
    about: Mapping[str, str],
    device: Mapping[str, NDArray[np.float64]],
) -> None:
    """Write the draws as netCDF, which arviz.from_netcdf opens.

    about: attributes of the file. device: draws of the device's own constants, (draws, ...) each,
    as `devicemodels.posterior` reads them; none for a model without a device.
    """
    data = inference_data(posterior)
    data.posterior.attrs.update(about)
    if device:
        arrays = {
            name: (["draw", *(f"{name}_{k}" for k in range(values.ndim - 1))], values)
            for name, values in device.items()
        }
        data.add_groups({GROUP: xarray.Dataset(arrays)}, warn_on_custom_groups=False)
    for group in data.groups():
        data[group].attrs.pop("created_at", None)  # the same fit gives the same file
    with files.replacing(path) as part:
        data.to_netcdf(str(part), engine="h5netcdf")


def with_posterior(text: str, path: Path) -> str:
    """Return the text of a parameter file that names its posterior, a file beside it."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{text}\n{tomli_w.dumps({'posterior': {'file': path.name, 'sha256': sha256}})}"


def pcm_draws(posterior: Posterior) -> dict[str, NDArray[np.float64]]:
    """Return draws of the constants that a PCM device has, within its limits, (draws,) each."""
    return {
        name: draws.clamp(_LIMITS[name]["low"], _LIMITS[name]["high"]).numpy()
        for name, draws in posterior.flat().items()
        if name in _LIMITS
    }


def pcm_file(lines: list[Line], base: DeviceModel, title: str, source: str, table: str) -> str:
    """Return the text of a PCM parameter file with posterior means.

    base: a PCM model, where the file takes what was not measured, as it stands there. source:
    what every fitted value came from. Where SET steps were fitted, the granularity is the mean
    step of the first ten pulses, beta keeps its 0.096 weight units, and the pair's limits follow
    g_max.
    """
    assert isinstance(base.device, PCMParameters)
    assert base.synapse is not None
    fitted = {
        line.name: min(max(line.mean, _LIMITS[line.name]["low"]), _LIMITS[line.name]["high"])
        for line in lines
        if line.name in _LIMITS
    }
    device, pair = replace(base.device, **fitted), base.synapse
    sources = dict.fromkeys(fitted, ("fitted", source))
    if set(_STEP) <= fitted.keys():
        response = device.mean_set_response(_PULSES)
        device = replace(device, mean_step=max((response[-1] - response[0]) / _PULSES, 1e-6))
        refresh = 2 / 3 * device.g_max
        pair = replace(
            pair,
            beta=device.mean_step / _EPSILON,
            refresh_above=refresh,
            refresh_below=0.75 * refresh,
            initial_mean=response[1],
        )
        sources["mean_step"] = ("fitted", f"mean step of the first {_PULSES} pulses of this fit")
        sources |= _PAIR
    text = {
        "device_type": "pcm",
        "title": title,
        "publication": f"none: fitted to {table}",
        "note": f"Posterior means (95 % intervals): {in_words(lines)}.",
        "device": _section(device, base, sources),
        "synapse": _section(pair, base, sources),
    }
    return tomli_w.dumps(text)


_PAIR = {
    "beta": ("assumed", f"mean_step / {_EPSILON}, the epsilon of Front. Neurosci. 14:406"),
    "refresh_above": ("assumed", "two thirds of g_max, as in nandakumar2018"),
    "refresh_below": ("assumed", "three quarters of refresh_above, as in nandakumar2018"),
    "initial_mean": ("assumed", "mean conductance after one SET pulse of this fit"),
}


def _section(
    values: Parameters, base: DeviceModel, sources: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    stated = {q.name: q for q in base.quantities}
    found = {}
    for item in fields(values):
        value, was = getattr(values, item.name), stated[item.name]
        status, source = sources.get(
            item.name, (was.status, f"not measured here: as {base.name} ({was.source})")
        )
        found[item.name] = {
            "value": int(value) if item.metadata["whole"] else float(value),
            "unit": item.metadata["unit"],
            "range": [float(item.metadata["low"]), float(item.metadata["high"])],
            "status": status,
            "source": source,
        }
    return found
