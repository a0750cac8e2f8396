"""Parameter files of table devices: they load, do what was measured, and keep their draws."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import devicemodels
from calibration import diagnostics
from calibration.fit import Posterior, fit
from calibration.measurements import Measurements, write
from calibration.models.table import Table
from calibration.models.table_quantiles import FRACTIONS
from calibration.readers import crosssim
from calibration.readers.crosssim import UpdateTable, UpdateTables
from calibration.synthetic import measure, measure_tables
from calibration.table_file import published_file, table_draws, table_file
from devicemodels.devices.table import TableArray, TableParameters
from devicemodels.errors import InputError
from devicemodels.state import Chance
from mcatrain.cli import main
from tests.calibration.test_readers import real

pytestmark = pytest.mark.usefixtures("torch_state")


def published(window: tuple[float, float] = (10.0, 30.0), size: float = 1.0) -> UpdateTables:
    """Return changes even between 0 and twice their mean, which vanishes at the window's end."""
    g = np.linspace(*window, 21)
    cdf = np.linspace(0, 1, 11)
    up = np.outer(2 * cdf, 0.1 * size * (window[1] - g))
    down = np.outer(2 * cdf, 0.05 * size * (g - window[0]))
    return UpdateTables(UpdateTable(g, cdf, up), UpdateTable(g, cdf, -down[::-1]))


def fitted(measured: Measurements, draws: int = 100) -> Posterior:
    torch.set_default_dtype(torch.float64)
    model = Table()
    posterior = fit(model, model.prepare(measured), draws=draws)
    torch.set_default_dtype(torch.float32)
    return posterior


def text_of(posterior: Posterior, measured: Measurements) -> str:
    lines = diagnostics.summary(posterior)
    return table_file(posterior, lines, "a fit", "this fit", measured)


def mean_changes(physics: TableParameters, weight: float) -> tuple[float, float]:
    """Return the mean changes of 20,000 devices by one pulse up, and one down [weight]."""
    found = []
    for sign in (1, -1):
        array = TableArray(20_000, physics, Chance(0, "test"))
        array.write(torch.full((20_000,), weight))
        array.pulse(torch.arange(20_000), torch.full((20_000,), sign))
        found.append(float(array.weight.double().mean()) - weight)
    return found[0], found[1]


def test_fit_does_what_was_measured(tmp_path: Path) -> None:
    """Mean changes of the known tables, at three states, within 15 %: 3,000 pulses, seed 1."""
    measured = measure_tables({1: published()}, 60, 50, seed=1)
    posterior = fitted(measured)
    path = tmp_path / "device.toml"
    path.write_text(text_of(posterior, measured))
    model = devicemodels.load(path)
    physics = model.device
    assert isinstance(physics, TableParameters)
    assert physics.granularity == pytest.approx(physics.mean_step, rel=1e-9)
    assert {q.name: q.status for q in model.quantities}["change_up"] == "fitted"
    low, high = (float(x) for x in posterior.flat()["base_up"][0, :2])
    for g in (15.0, 20.0, 24.0):
        weight = (2 * g - low - high) / (high - low)
        up, down = (x * (high - low) / 2 for x in mean_changes(physics, weight))
        assert up == pytest.approx(0.1 * (30 - g), rel=0.15)
        assert down == pytest.approx(-0.05 * (g - 10), rel=0.15)
    model.build((2, 3), Chance(0, "test"), zero_shift=5)


def test_draws_are_named_as_the_device_has_them() -> None:
    measured = measure_tables({1: published()}, 20, 20, seed=2)
    posterior = fitted(measured, 30)
    draws = table_draws(posterior)
    assert set(draws) == {"change_up", "change_down"}
    device = tomllib.loads(text_of(posterior, measured))["device"]
    for name, values in draws.items():
        assert values.shape == (30, 1, len(FRACTIONS), 33)
        np.testing.assert_allclose(values.mean(0), device[name]["values"], atol=1e-6)
        assert np.abs(values).max() <= 2
        assert values.std(0).max() > 0
    rest = {name: device[name]["values"] for name in ("states", "fractions")}
    for k in (0, 29):
        one = {name: values[k].tolist() for name, values in draws.items()}
        assert TableParameters(granularity=0.1, **rest, **one).mean_step > 0


def test_noise_of_reads_is_told() -> None:
    measured = measure_tables({1: published(size=0.1)}, 20, 20, seed=3)
    assert "Noise of single reads counts" in text_of(fitted(measured), measured)
    chance = np.random.default_rng(0)
    reads = measured.frame["conductance_us"] + 2 * chance.normal(size=measured.rows)
    noisy = replace(measured, frame=measured.frame.assign(conductance_us=reads))
    assert "much of the spread is noise of reads" in text_of(fitted(noisy), noisy)


def test_exchanged_pulses_are_refused() -> None:
    measured = measure_tables({1: published()}, 20, 20, seed=4)
    frame = measured.frame.copy()
    frame["pulse"] = frame["pulse"].cat.rename_categories({"up": "down", "down": "up"})
    other = replace(measured, frame=frame)
    with pytest.raises(InputError, match="are they exchanged") as caught:
        text_of(fitted(other), other)
    assert "\n" not in str(caught.value)


def test_published_tables_become_devices(tmp_path: Path) -> None:
    """Two devices of other windows: each keeps its own, in common units of weight."""
    both = {1: published(), 2: published((5.0, 20.0))}
    path = tmp_path / "device.toml"
    path.write_text(published_file(both, "two", "nobody 2000", "a test"))
    model = devicemodels.load(path)
    physics = model.device
    assert isinstance(physics, TableParameters)
    assert "5 to 30 uS" in model.note
    array = TableArray(400, physics, Chance(0, "test"))
    everyone = torch.arange(400)
    # At most a cell of the grid short of an end that lies between its states, never beyond.
    for count, highest in ((200, (30.0, 20.0)), (-400, (10.0, 5.0))):
        array.pulse(everyone, torch.full((400,), count))
        ends = (2 * torch.tensor(highest) - 35) / 25
        short = (ends[array.which] - array.weight) * (1 if count > 0 else -1)
        assert short.min() > -1e-5
        assert short.max() < 0.0625


@pytest.mark.slow
def test_from_a_table_to_training(empty_desk: None, tmp_path: Path) -> None:
    """The command's files; a fitted file is measured like any other device."""
    write(measure_tables({1: published(), 2: published()}, 15, 15, seed=5), "reads.csv")
    options = ["--model", "table", "--draws", "60", "--out", "mine.toml"]
    assert main(["fit", "reads.csv", *options]) == 0
    model = devicemodels.load("mine.toml")
    assert model.device_type == "table"
    page = Path("mine.report.html").read_text()
    assert "Changes by state" in page
    assert "posterior in closed form" in page
    again = measure(model, 3, 12)
    assert again.rows == 3 * 25
    assert fitted(again, 20).method == "exact"


@pytest.mark.slow
def test_published_taox(tmp_path: Path) -> None:
    """41 devices: mean changes at three states are the published ones within 3 %.

    Of the largest change, and as far as they end in the device's own range.
    """
    tables = crosssim.taox(real("device_crosssim"))
    path = tmp_path / "taox.toml"
    path.write_text(published_file(tables, "TaOx", "Agarwal et al., VLSI 2017", "CrossSim"))
    physics = devicemodels.load(path).device
    assert isinstance(physics, TableParameters)
    ends = [t.increasing.conductance[k] for t in tables.values() for k in (0, -1)]
    low, high = min(ends), max(ends)
    x = np.linspace(low, high, 33)
    found = physics.means().numpy() * (high - low) / 2
    for k, one in enumerate(tables.values()):
        for way, table in enumerate((one.decreasing, one.increasing)):
            change, g = np.sort(table.change, 0), table.conductance
            for j in (6, 9, 12):
                here = np.array([np.interp(x[j], g, row) for row in change])
                wanted = np.trapezoid(np.clip(here, g[0] - x[j], g[-1] - x[j]), table.cdf)
                size = np.abs(here).max()
                assert found[k, way, j] == pytest.approx(wanted, abs=0.03 * size)
