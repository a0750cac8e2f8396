"""read-noise: its likelihood is a dense normal's; white and 1/f noise come back, each alone."""

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
from calibration.models import read_noise
from calibration.models.flicker import time_constants
from calibration.models.read_noise import NoiseData, ReadNoise
from devicemodels.devices.pcm import PCMArray, PCMParameters
from devicemodels.errors import InputError
from devicemodels.state import Chance

pytestmark = pytest.mark.usefixtures("double")

TRUTH = {"m3": 0.03, "c3": 0.13, "flicker": 0.03, "slope": 1.1}


def values(**changes: float) -> dict[str, Tensor]:
    return {name: torch.tensor(v) for name, v in (TRUTH | changes).items()}


def kernel(
    times: NDArray[np.float64], shortest: float, longest: float, slope: float
) -> NDArray[np.float64]:
    """Return the covariance of z of the docstring, written a second time."""
    number = 1 + math.ceil(2 * math.log10(longest / shortest))
    tau = np.geomspace(shortest, longest, number)
    weight = math.log(tau[1] / tau[0]) * (tau / math.sqrt(shortest * longest)) ** (slope - 1)
    lag = np.abs(times[:, None] - times)[:, :, None]
    return np.asarray((weight * np.exp(-lag / tau)).sum(-1))


def tabled(reads: NDArray[np.float64], times: NDArray[np.float64] | None) -> Measurements:
    """Return a table of one sequence of reads a device, (devices, reads)."""
    devices, n = reads.shape
    frame = pd.DataFrame(
        {
            "device": np.repeat(np.arange(devices), n),
            "step": np.tile(np.arange(n), devices),
            "pulse": "read",
            "conductance_us": reads.ravel(),
        }
    )
    if times is not None:
        frame["time_s"] = np.tile(times, devices)
    return table(frame, "made")


def equations(devices: int, reads: int, seed: int, **changes: float) -> Measurements:
    """Return reads, one a second, of devices of 2 to 20 µS made from the equations."""
    c, chance = TRUTH | changes, np.random.default_rng(seed)
    times = np.arange(float(reads))
    root = np.linalg.cholesky(kernel(times, 1.0, reads - 1.0, c["slope"]))
    g = chance.uniform(2, 20, (devices, 1))
    white, coloured = chance.standard_normal((2, devices, reads))
    noise = (c["m3"] * g + c["c3"]) * white + c["flicker"] * g * (coloured @ root.T)
    return tabled(g + noise, times)


def uneven(timed: bool = True) -> Measurements:
    """Return three sequences of two devices, of 4, 3 and 2 reads."""
    frame = pd.DataFrame(
        {
            "device": ["a"] * 7 + ["b"] * 2,
            "sequence": [0, 0, 0, 0, 1, 1, 1, 0, 0],
            "step": [0, 1, 2, 3, 0, 1, 2, 0, 1],
            "pulse": ["set", "read", "read", "read", "reset", *["read"] * 4],
            "conductance_us": [9.0, 9.4, 8.7, 9.1, 0.4, 0.7, 0.5, 3.0, 2.7],
            "time_s": [0.0, 0.5, 2.0, 100.0, 7.0, 8.0, 8.0, 50.0, 60.0],
        }
    )
    return table(frame if timed else frame.drop(columns="time_s"), "uneven")


def misses(posterior: Posterior, **truth: float) -> list[str]:
    """Return the constants outside their 95 % interval, doubled."""
    truth, found = TRUTH | truth, []
    for line in diagnostics.summary(posterior):
        middle, half = (line.low + line.high) / 2, (line.high - line.low) / 2
        if abs(truth[line.name] - middle) > 2 * half:
            found.append(line.name)
    return found


@pytest.mark.parametrize("timed", [False, True])
def test_likelihood_is_a_dense_normal(timed: bool) -> None:
    """The level integrated out by hand: scipy, noise at the mean read of each sequence."""
    model, measured = ReadNoise(), uneven(timed)
    found = model.log_likelihood(values(), model.prepare(measured))
    assert [c.name for c in model.constants] == list(TRUTH)[: 4 if timed else 2]
    expected = dict.fromkeys(measured.devices, 0.0)
    for (device, _), rows in measured.frame.groupby(["device", "sequence"], observed=True):
        reads = rows["conductance_us"].to_numpy()
        mean, n = reads.mean(), len(reads)
        white = (TRUTH["m3"] * mean + TRUTH["c3"]) ** 2 + 1e-8
        covariance = white * np.eye(n) + 1000.0**2 * np.ones((n, n))
        if timed:
            z = kernel(rows["time_s"].to_numpy(), 0.5, 100.0, TRUTH["slope"])
            covariance += (TRUTH["flicker"] * mean) ** 2 * z
        # The levels' wide prior costs scipy's eigenvalues digits: differences and a mean have it
        # in one entry alone. The change of variables has determinant 1.
        turn = np.eye(n) - np.eye(n, k=-1)
        turn[0] = 1 / n
        turned = turn @ (covariance - 1000.0**2) @ turn.T
        turned[0, 0] += 1000.0**2
        scale = np.diag([1e-3, *[1.0] * (n - 1)])
        p = multivariate_normal(np.zeros(n), scale @ turned @ scale).logpdf(scale @ turn @ reads)
        expected[str(device)] += float(p) + math.log(1e-3)
    assert found.tolist() == pytest.approx(list(expected.values()), abs=1e-8)


@pytest.mark.parametrize("timed", [False, True])
def test_draws_padding_and_chosen_devices(
    timed: bool, likelihood_of_draws: Callable[..., Tensor]
) -> None:
    model = ReadNoise()
    data = model.prepare(uneven(timed))
    assert data.seen.sum(1).tolist() == [4, 3, 2]
    three = {name: v * torch.tensor([0.5, 1.0, 1.5]) for name, v in values().items()}
    found = likelihood_of_draws(model, three, data)
    last = data.take(torch.tensor([1]))
    time_s = None if last.time_s is None else last.time_s[:, :2]
    bare = replace(last, reads=last.reads[:, :2], seen=last.seen[:, :2], time_s=time_s)
    assert torch.allclose(model.log_likelihood(three, bare), found[:, 1:], rtol=1e-12)


def test_parts_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken a few at a time, for memory, the likelihood and its slope are the same."""
    model = ReadNoise()
    data = model.prepare(equations(7, 6, 0))
    found = []
    for held in (10**6, 6 * 6 * 2 * 3):
        monkeypatch.setattr(read_noise, "_HELD", held)
        v = {name: x.repeat(2).requires_grad_() for name, x in values().items()}
        p = model.log_likelihood(v, data)
        found.append((p, *torch.autograd.grad(p.sum(), list(v.values()))))
        assert len(list(read_noise._parts(data, 2))) == (1 if held == 10**6 else 3)
        assert model.replicate(values(), data, torch.Generator()).shape == (7, 6)
    for whole, parts in zip(*found, strict=True):
        assert torch.allclose(whole, parts, rtol=1e-12)


def test_spectrum_is_one_over_f() -> None:
    """Between the ends of 8 decades of time constants, f^slope S(f) is level within 1 %."""
    tau = time_constants(torch.tensor([[0.0, 1e-4, 1e4]]), torch.ones(1, 3).bool())
    f = torch.logspace(-1, 1, 50)[:, None]
    for slope in (0.8, 1.0, 1.2):
        weight = tau ** (slope - 1)
        spectrum = (weight * tau / (1 + (2 * math.pi * f * tau) ** 2)).sum(1)
        level = spectrum * f[:, 0] ** slope
        assert level.max() / level.min() < 1.01


def test_white_noise_comes_back_from_the_shipped_device() -> None:
    """60 devices x 30 reads without times: two intervals of 95 %, doubled: 1 in 5,000 fails."""
    physics = devicemodels.load("nandakumar2018").device
    assert isinstance(physics, PCMParameters)
    torch.set_default_dtype(torch.float32)
    array = PCMArray(60, physics, Chance(0, "read-noise"))
    array.set(torch.arange(60), torch.arange(60) % 20 + 3, 0.0)
    reads = torch.stack([array.read(0.0) for _ in range(30)], 1).double().numpy()
    torch.set_default_dtype(torch.float64)
    model = ReadNoise()
    posterior = fit(model, model.prepare(tabled(reads, None)), steps=60, draws=300)
    assert not diagnostics.complaints(posterior)
    assert set(posterior.draws) == {"m3", "c3"}
    assert misses(posterior) == []
    assert misses(posterior, m3=0.0, c3=0.0) == ["m3", "c3"], "the test can fail"


def test_all_noise_comes_back_from_the_equations() -> None:
    """60 devices x 24 reads: four intervals of 95 %, doubled: 1 in 2,500 fails by chance."""
    model = ReadNoise()
    posterior = fit(model, model.prepare(equations(60, 24, 1)), steps=60, draws=300)
    assert not diagnostics.complaints(posterior)
    assert misses(posterior) == []
    assert misses(posterior, flicker=0.0) == ["flicker"], "the test can fail"


def test_flicker_is_seen_where_it_is() -> None:
    """60 devices x 24 reads: without it, ln p is higher at none by far, and the reverse."""
    model = ReadNoise()
    for true, sign in ((0.03, 1), (0.0, -1)):
        data = model.prepare(equations(60, 24, 2, flicker=true))
        two = {name: v.repeat(2) for name, v in values().items()}
        two["flicker"] = torch.tensor([0.03, 0.0])
        there, none = model.log_likelihood(two, data).sum(-1)
        assert sign * (there - none) > 20


@pytest.mark.parametrize("timed", [False, True])
def test_replicates_are_the_equations(timed: bool) -> None:
    """5,000 devices: spread of differences over 1 s and 9 s, five standard errors (1e-6)."""
    n, g = 5_000, 10.0
    tau = torch.logspace(0, math.log10(9), 3)
    data = NoiseData(
        reads=torch.cat([torch.full((n, 10), g), torch.zeros(n, 1)], 1),
        seen=torch.tensor([True] * 10 + [False]).expand(n, 11),
        time_s=torch.arange(11.0).expand(n, 11) if timed else None,
        device=torch.arange(n),
        number=n,
        tau_s=tau if timed else tau[:0],
    )
    again = ReadNoise().replicate(values(), data, torch.Generator().manual_seed(0))
    assert (again[:, 10] == 0).all()
    assert (again >= 0).all()
    for lag in (1, 9):
        variance = 2 * (TRUTH["m3"] * g + TRUTH["c3"]) ** 2
        if timed:
            z = kernel(np.array([0.0, lag]), 1.0, 9.0, TRUTH["slope"])
            variance += 2 * (TRUTH["flicker"] * g) ** 2 * (z[0, 0] - z[0, 1])
        change = again[:, lag] - again[:, 0]
        assert abs(change.std() / math.sqrt(variance) - 1) < 5 / math.sqrt(2 * n)
    if not timed:
        assert torch.allclose(again[:, :10].mean(1), data.reads[:, :10].mean(1))
    low = replace(data, reads=data.reads / 100)
    assert (ReadNoise().replicate(values(), low, torch.Generator()) >= 0).all()


def test_groups_are_places_in_the_sequence() -> None:
    label, groups = ReadNoise().groups(ReadNoise().prepare(equations(3, 50, 0)))
    assert label == "read"
    assert len(groups) == 20
    assert [groups[0][0], groups[-1][0]] == [2.0, 49.5]
    assert torch.stack([where for _, where in groups]).sum(0).eq(1).all()
    few = ReadNoise().groups(ReadNoise().prepare(uneven()))[1]
    assert [place for place, _ in few] == [1, 2, 3, 4]
    assert [int(where.sum()) for _, where in few] == [3, 3, 2, 1]


def test_times_all_the_same_are_no_times() -> None:
    model = ReadNoise()
    data = model.prepare(tabled(np.array([[1.0, 1.1, 0.9]]), np.full(3, 5.0)))
    assert [c.name for c in model.constants] == ["m3", "c3"]
    assert torch.isfinite(model.log_likelihood(values(), data)).all()
    model.prepare(uneven())
    assert len(model.constants) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pulse": ["up", "read", "read"]}, "after one set or reset at most"),
        ({"pulse": ["read", "set", "read"]}, "device a, sequence 0: a pulse 'set' comes between"),
        ({"conductance_us": [1.0, 0.0, 1.0]}, "device a, sequence 0: a read of 0 hides its noise"),
        ({"sequence": [0, 1, 2], "step": 0}, "no sequence holds two reads"),
    ],
)
def test_tables_without_what_is_needed(changes: dict[str, object], said: str) -> None:
    columns = {"step": [0, 1, 2], "pulse": "read", "conductance_us": [1.0, 1.0, 0.9]} | changes
    with pytest.raises(InputError, match=said) as caught:
        ReadNoise().prepare(table(pd.DataFrame({"device": "a", **columns}), "bad.csv"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("bad.csv: ")


def test_long_sequences_are_thinned_by_the_user() -> None:
    reads = 1 + 0.01 * np.random.default_rng(0).standard_normal((1, 501))
    with pytest.raises(InputError, match="thin it to 500") as caught:
        ReadNoise().prepare(tabled(reads, np.arange(501.0)))
    assert "\n" not in str(caught.value)
    ReadNoise().prepare(tabled(reads[:, :500], np.arange(500.0)))
    ReadNoise().prepare(tabled(reads, None))
