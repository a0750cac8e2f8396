"""drift: its likelihood is a dense normal's, and the shipped device's exponents come back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from torch import Tensor

import devicemodels
from calibration import diagnostics
from calibration.fit import Posterior, fit
from calibration.measurements import Measurements, table
from calibration.models.drift import Drift, DriftData
from devicemodels.devices.pcm import PCMArray, PCMParameters
from devicemodels.errors import InputError
from devicemodels.state import Chance

pytestmark = pytest.mark.usefixtures("double")

TRUTH = {"nu_mean": 0.04, "nu_std": 0.01, "nu_slope": -0.015, "read_error": 0.05}
T0 = 38.6


def values(**changes: float) -> dict[str, Tensor]:
    return {name: torch.tensor(v) for name, v in (TRUTH | changes).items()}


def tabled(reads: NDArray[np.float64], times: NDArray[np.float64]) -> Measurements:
    """Return a table of one sequence a device: reads (devices, times), the first after a SET."""
    devices, n = reads.shape
    frame = pd.DataFrame(
        {
            "device": np.repeat(np.arange(devices), n),
            "step": np.tile(np.arange(n), devices),
            "pulse": np.tile(["set", *["read"] * (n - 1)], devices),
            "time_s": np.tile(times, devices),
            "conductance_us": reads.ravel(),
        }
    )
    return table(frame, "made")


def equations(devices: int, seed: int, **changes: float) -> Measurements:
    """Return reads at 38.6 s to 1e5 s of devices made from the equations."""
    c, chance = TRUTH | changes, np.random.default_rng(seed)
    log_g = 1.5 + 0.6 * chance.standard_normal(devices)
    nu = (
        c["nu_mean"] + c["nu_slope"] * (log_g - 1.5) + c["nu_std"] * chance.standard_normal(devices)
    )
    times = np.concatenate([[T0], np.geomspace(50, 1e5, 10)])
    reads = np.exp(log_g)[:, None] * (times / T0) ** -nu[:, None]
    reads *= 1 + c["read_error"] * chance.standard_normal(reads.shape)
    return tabled(reads, times)


def shipped(devices: int, seed: int) -> Measurements:
    """Return reads of the shipped device: at age 0, after 20 SET pulses, and 50 s to 1e5 s."""
    physics = devicemodels.load("nandakumar2018").device
    assert isinstance(physics, PCMParameters)
    torch.set_default_dtype(torch.float32)
    array, everyone = PCMArray(devices, physics, Chance(seed, "drift")), torch.arange(devices)
    array.set(everyone, torch.full((devices,), 20), 0.0)
    times = np.concatenate([[0.0], np.geomspace(50, 1e5, 12)])
    reads = torch.stack([array.read(float(t)) for t in times], 1).double()
    torch.set_default_dtype(torch.float64)
    return tabled(reads.numpy(), times)


def uneven() -> Measurements:
    """Return three sequences of two devices, of 4, 3 and 1 reads."""
    return table(
        pd.DataFrame(
            {
                "device": ["a"] * 7 + ["b"],
                "sequence": [0, 0, 0, 0, 1, 1, 1, 0],
                "step": [0, 1, 2, 3, 0, 1, 2, 0],
                "pulse": ["set", "read", "read", "read", "reset", "read", "read", "set"],
                "time_s": [0.0, 20.0, 100.0, 1e4, 50.0, 60.0, 1e6, 10.0],
                "conductance_us": [5.0, 5.2, 4.9, 4.2, 0.11, 0.12, 0.07, 3.0],
            }
        ),
        "uneven",
    )


def misses(posterior: Posterior, names: tuple[str, ...], **truth: float) -> list[str]:
    """Return the constants outside their 95 % interval, doubled."""
    truth, found = TRUTH | truth, []
    for line in diagnostics.summary(posterior):
        middle, half = (line.low + line.high) / 2, (line.high - line.low) / 2
        if line.name in names and abs(truth[line.name] - middle) > 2 * half:
            found.append(line.name)
    return found


def test_likelihood_is_a_dense_normal() -> None:
    """Level and exponent integrated out by hand: scipy, over all reads of a device at once."""
    model, measured = Drift(), uneven()
    found = model.log_likelihood(values(), model.prepare(measured))
    reference = np.log([5.0, 0.11, 3.0]).mean()
    for device, rows in measured.frame.groupby("device", observed=True, sort=False):
        x = -np.log(np.maximum(rows["time_s"].to_numpy() / T0, 1))
        g = rows.groupby("sequence")["conductance_us"].transform("first")
        nu = TRUTH["nu_mean"] + TRUTH["nu_slope"] * (np.log(g.to_numpy()) - reference)
        same = rows["sequence"].to_numpy()[:, None] == rows["sequence"].to_numpy()
        covariance = (TRUTH["read_error"] ** 2 + 1e-8) * np.eye(len(rows)) + 9.0 * same
        covariance += TRUTH["nu_std"] ** 2 * np.outer(x, x)
        expected = multivariate_normal(reference + nu * x, covariance).logpdf(
            np.log(rows["conductance_us"])
        )
        at = measured.devices.index(str(device))
        assert found[at].item() == pytest.approx(float(expected), abs=1e-8)


def test_draws_padding_and_chosen_devices(likelihood_of_draws: Callable[..., Tensor]) -> None:
    model = Drift()
    data = model.prepare(uneven())
    assert data.seen.sum(1).tolist() == [4, 3, 1]
    three = {name: v * torch.tensor([0.5, 1.0, 2.0]) for name, v in values().items()}
    found = likelihood_of_draws(model, three, data)
    last = data.take(torch.tensor([1]))
    assert len(last) == 1
    bare = replace(last, reads=last.reads[:, :1], seen=last.seen[:, :1], time_s=last.time_s[:, :1])
    assert torch.allclose(model.log_likelihood(three, bare), found[:, 1:], rtol=1e-12)
    rubbish = replace(data, reads=torch.where(data.seen, data.reads, 7.0))
    rubbish = replace(rubbish, time_s=torch.where(data.seen, data.time_s, 1e9))
    assert torch.equal(model.log_likelihood(three, rubbish), found)


def test_reads_below_t0_see_no_drift() -> None:
    """As in the shipped device: at any age below t0, 0 included, the exponent says nothing."""
    model = Drift()
    early = model.prepare(uneven()).take(torch.tensor([1]))
    one, two = (model.log_likelihood(values(nu_mean=nu), early) for nu in (0.0, 0.1))
    assert torch.equal(one, two)
    assert not torch.equal(*(Drift(1.0).log_likelihood(values(nu_mean=n), early) for n in (0, 0.1)))


def test_constants_come_back_from_the_equations() -> None:
    """60 devices: four intervals of 95 %, doubled (four standard deviations): 1 in 2,500 fails.

    Without a spread of the exponent the same fit finds next to none: 60 exponents, known within
    0.0066, leave a spread of 0.005 by chance once in 700 tables.
    """
    model = Drift()
    data = model.prepare(equations(60, 1))
    posterior = fit(model, data, steps=60, draws=300)
    assert not diagnostics.complaints(posterior)
    assert misses(posterior, tuple(TRUTH)) == []
    alike = fit(model, model.prepare(equations(60, 1, nu_std=0.0)), steps=60, draws=300)
    spread, none = (p.flat()["nu_std"] for p in (posterior, alike))
    assert spread.quantile(0.025) > 0.005
    assert none.quantile(0.5) < 0.005
    assert misses(alike, ("nu_mean", "nu_slope")) == []


def test_constants_come_back_from_the_shipped_device() -> None:
    """60 devices x 13 reads: three intervals of 95 %, doubled: 1 in 3,000 fails by chance."""
    model = Drift()
    posterior = fit(model, model.prepare(shipped(60, 0)), steps=60, draws=300)
    assert not diagnostics.complaints(posterior)
    names = ("nu_mean", "nu_std", "nu_slope")
    assert misses(posterior, names, nu_slope=0.0) == []
    assert misses(posterior, ("nu_mean",), nu_mean=0.0) == ["nu_mean"], "the test can fail"


def test_replicates_are_the_equations() -> None:
    """5,000 devices: ln(last / first read), mean and spread within five standard errors (1e-6)."""
    n, x = 5_000, -math.log(1e5 / T0)
    level = torch.randn(n, generator=torch.Generator().manual_seed(0))
    data = DriftData(
        reads=torch.exp(1 + 0.5 * level)[:, None].expand(n, 3),
        seen=torch.tensor([True, True, False]).expand(n, 3),
        time_s=torch.tensor([10.0, 1e5, 0.0]).expand(n, 3),
        device=torch.arange(n),
        number=n,
        reference=1.0,
    )
    for changes in ({}, {"nu_std": 0.0}):
        v = values(nu_slope=0.0, **changes)
        again = Drift().replicate(v, data, torch.Generator().manual_seed(1))
        assert again.shape == (n, 3)
        assert (again[:, :2] > 0).all()
        assert (again[:, 2] == 0).all()
        change = again[:, 1].log() - again[:, 0].log()
        spread = math.hypot(float(v["nu_std"]) * x, math.sqrt(2) * TRUTH["read_error"])
        assert abs(change.mean() - TRUTH["nu_mean"] * x) < 5 * spread / math.sqrt(n)
        assert abs(change.std() / spread - 1) < 5 / math.sqrt(2 * n)
    level, kept = (reads[:, :2].log().mean(1) for reads in (data.reads, again))
    assert torch.allclose(level, kept), "equal exponents: the mean tells the level"


def test_groups_are_ages() -> None:
    label, groups = Drift().groups(Drift().prepare(shipped(5, 0)))
    places = [place for place, _ in groups]
    assert label == "time since programming [s]"
    assert places[0] == 0.0
    assert places == sorted(places)
    assert len(places) <= 13
    assert places[-1] == pytest.approx(1e5)
    assert torch.stack([where for _, where in groups]).sum(0).eq(1).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_s": None}, "column time_s is missing"),
        ({"pulse": ["read", "read", "read"]}, "begin the sequence with the read after its last"),
        ({"pulse": ["up", "read", "read"]}, "begin the sequence with the read after its last"),
        ({"pulse": ["set", "set", "read"]}, "device a, sequence 0: a pulse 'set' comes between"),
        ({"conductance_us": [1.0, 0.0, 1.0]}, "device a, sequence 0: a read of 0 has no logarithm"),
        ({"time_s": [0.0, 0.0, 50.0]}, "step 1: time_s = 0 is no age of a read"),
        ({"time_s": [-1.0, 1.0, 50.0]}, "step 0: time_s = -1 is no age of a read"),
        ({"time_s": [0.0, 1.0, 38.0]}, "nothing drifts before: read later"),
    ],
)
def test_tables_without_what_is_needed(changes: dict[str, list[object] | None], said: str) -> None:
    columns = {
        "step": [0, 1, 2],
        "pulse": ["set", "read", "read"],
        "time_s": [0.0, 50.0, 1e3],
        "conductance_us": [1.0, 1.0, 0.9],
    } | changes
    frame = pd.DataFrame({"device": "a", **{k: v for k, v in columns.items() if v is not None}})
    with pytest.raises(InputError, match=said) as caught:
        Drift().prepare(table(frame, "bad.csv"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("bad.csv: ")


@pytest.mark.parametrize("t0_s", [0.0, -1.0, math.nan, math.inf])
def test_t0_is_a_time(t0_s: float) -> None:
    with pytest.raises(InputError, match="give a time above 0 in seconds"):
        Drift(t0_s)
