"""The parameter file of a table device: of a fit, or of published tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import tomli_w
from numpy.typing import NDArray

from calibration.diagnostics import Line, in_words
from calibration.fit import Posterior
from calibration.measurements import Measurements
from calibration.models.step_data import differences
from calibration.models.table_data import gather
from calibration.models.table_quantiles import FRACTIONS, STATES, tables
from calibration.readers.crosssim import UpdateTable, UpdateTables
from devicemodels.devices.table import TableParameters
from devicemodels.errors import InputError

#: Largest change [weight]: from end to end of the window.
_MOST = 2.0
#: Correlation of successive changes below which noise of the reads is worth a word.
_NOISY = -0.2


def table_file(
    posterior: Posterior, lines: list[Line], title: str, source: str, table: Measurements
) -> str:
    """Return the text of a table device's parameter file with the posterior mean table.

    A weight is 2 (g - middle) / (g_high - g_low), so that the lowest and highest state measured
    are -1 and 1. Every quantile is averaged over the draws. source: what fitted values came from.
    Raises InputError where up pulses do not raise the conductance more than down pulses do.
    """
    low, high = _window(posterior)
    values = {name: draws.mean(0) for name, draws in table_draws(posterior).items()}
    note = (
        f"A weight of -1 to 1 is {low:.6g} to {high:.6g} uS, the outermost states measured. "
        f"Posterior means (95 % intervals): {in_words(lines)}. "
    )
    data = gather(table)
    correlation = differences(data.reads, data.kind)[2]
    if correlation < _NOISY:
        note += (
            f"Successive changes have correlation {correlation:.2f}, that of white read noise is "
            "-0.5: much of the spread is noise of reads, which this device takes for changes of "
            "state; step-response tells them apart."
        )
    else:
        note += "Noise of single reads counts as change of state."
    return _text(values, "fitted", source, title, f"none: fitted to {table.source}", note)


def table_draws(posterior: Posterior) -> dict[str, NDArray[np.float64]]:
    """Return change_up and change_down of the device [weight], (draws, 1, fractions, states)."""
    low, high = _window(posterior)
    found = {}
    for way, change in tables(posterior.flat()).items():
        found[f"change_{way}"] = (2 / (high - low) * change.numpy())[:, None]
    return found


def published_file(
    published: Mapping[int, UpdateTables], title: str, publication: str, source: str
) -> str:
    """Return the text of a parameter file with a table a published device.

    A weight of -1 to 1 is the lowest to the highest conductance of any device; a device stays
    within its own. Changes are sorted along the fractions, and read off by linear interpolation.
    source: where the tables come from. Raises InputError as `table_file`.
    """
    ends = [g[k] for one in published.values() for g in _grids(one) for k in (0, -1)]
    low, high = min(ends), max(ends)
    x, scale = np.linspace(low, high, STATES), 2 / (high - low)
    values = {
        "change_up": np.stack([_resampled(one.increasing, x) for one in published.values()]),
        "change_down": np.stack([_resampled(one.decreasing, x) for one in published.values()]),
    }
    note = (
        f"A weight of -1 to 1 is {low:.6g} to {high:.6g} uS, the outermost conductances of the "
        f"{len(published)} tables; every simulated device follows one of them."
    )
    scaled = {name: scale * change for name, change in values.items()}
    return _text(scaled, "verified", source, title, publication, note)


def _grids(one: UpdateTables) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return one.increasing.conductance, one.decreasing.conductance


def _resampled(one: UpdateTable, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the changes (fractions, states) [µS] on our grids, so that bounds are kept."""
    change, g = np.sort(one.change, axis=0), one.conductance
    along = np.stack([np.interp(FRACTIONS, one.cdf, column) for column in change.T], 1)
    found = np.stack([np.interp(x, g, row) for row in along])
    # x + change is linear between states: inside the bounds at these, it is so between them.
    return np.clip(found, g[0] - x, g[-1] - x)


def _window(posterior: Posterior) -> tuple[float, float]:
    low, high = posterior.flat()["base_up"][0, :2].tolist()
    return low, high


def _text(
    values: Mapping[str, NDArray[np.float64]],
    status: str,
    source: str,
    title: str,
    publication: str,
    note: str,
) -> str:
    arrays = {
        "states": np.linspace(-1, 1, STATES),
        "fractions": np.array(FRACTIONS),
        **{name: np.round(change, 6) for name, change in values.items()},
    }
    lists = {name: array.tolist() for name, array in arrays.items()}
    step = TableParameters(granularity=1.0, **lists).mean_step
    if not step > 0:
        raise InputError(
            f"{title}: up pulses do not raise the conductance more than down pulses do (mean step "
            f"{step:.3g} of a weight): are they exchanged? else measure more pulses"
        )
    made = {
        "granularity": ("exact", "mean_step of the table"),
        "states": ("exact", "equal parts of the window"),
        "fractions": ("exact", "a grid, denser at its ends; there, the outermost values known"),
    }
    device = {}
    for item in fields(TableParameters):
        limit, name = item.metadata, item.name
        how, whence = made.get(name, (status, source))
        wide = _MOST if name.startswith("change") else limit["high"]
        device[name] = {
            **({"values": lists[name]} if name in lists else {"value": step}),
            "unit": limit["unit"],
            "range": [max(float(limit["low"]), -wide), float(wide)],
            "status": how,
            "source": whence,
        }
    text = {
        "device_type": "table",
        "title": title,
        "publication": publication,
        "note": note,
        "device": device,
    }
    return tomli_w.dumps(text)
