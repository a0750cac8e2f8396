"""Inference: known constants come back, the same for the same seed, and failure is said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import devicemodels
from calibration import diagnostics
from calibration.fit import Posterior, fit
from calibration.measurements import table
from calibration.models import Drift, SetResponse
from calibration.synthetic import measure

pytestmark = pytest.mark.usefixtures("double")

TRUTH = {
    "m1": -0.084, "c1": 0.88, "A1": 1.4, "a": 2.6, "m2": 0.091, "c2": 0.26, "A2": 2.15, "m3": 0.03,
    "c3": 0.13, "g_min": 0.1, "g_max": 12.0, "reset_mean": 0.1, "reset_std": 0.01,
}  # fmt: skip


def data(devices: int, pulses: int, seed: int = 0) -> Any:
    model = devicemodels.load("nandakumar2018")
    return SetResponse().prepare(measure(model, devices, pulses, seed=seed))


def outside(posterior: Posterior, factor: float = 1.0) -> list[str]:
    """Return the constants whose true value lies outside the interval, widened by ``factor``."""
    found = []
    for line in diagnostics.summary(posterior):
        if line.name in TRUTH:
            middle, half = (line.low + line.high) / 2, (line.high - line.low) / 2
            if abs(TRUTH[line.name] - middle) > factor * half:
                found.append(line.name)
    return found


def test_fit_of_a_small_table() -> None:
    """40 devices x 20 pulses: the constants, twice the same.

    13 intervals of 95 %, doubled: a false alarm about once in 1,000. Of fewer pulses, that leave
    g_max in doubt, m3 may be most likely 0, and no normal distribution describes a constant there.
    """
    small, model = data(40, 20), SetResponse()
    one, two = (fit(model, small, steps=60, draws=300, seed=s) for s in (0, 0))
    assert not diagnostics.complaints(one)
    assert outside(one, 2.0) == []
    assert all(torch.equal(one.draws[name], two.draws[name]) for name in one.draws)
    assert one.draws["m1"].shape == (1, 300)
    assert one.draws["m1"].dtype == torch.float64
    replicates = diagnostics.replicates(model, one, small, 5, seed=0)
    assert replicates.shape == (5, *small.reads.shape)
    assert torch.isfinite(replicates).all()


def test_curvature_of_a_part_leads_to_the_mode_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken of 40 of 200 devices on the way, it changes neither the mode nor its curvature.

    The same normal deviates, so draws agree where both do; the search ends within 0.02 standard
    deviations of the mode, and the curvature of a spread that may be 0 changes over these.
    """
    many, model = data(200, 6), SetResponse()
    whole = fit(model, many, steps=50, draws=300)
    monkeypatch.setattr("calibration.fit._FEW", 40)
    part = fit(model, many, steps=50, draws=300)
    for name, draws in whole.draws.items():
        assert abs(draws.mean() - part.draws[name].mean()) < 0.1 * draws.std(), name
        assert 0.9 < draws.std() / part.draws[name].std() < 1.1, name


def test_what_has_not_converged_is_said() -> None:
    chance = torch.Generator().manual_seed(0)
    apart = torch.randn(2, 100, generator=chance) + torch.tensor([[0.0], [5.0]])
    good = torch.randn(2, 400, generator=chance)
    said = diagnostics.complaints(Posterior("nuts", {"m1": apart, "c1": good}, (), divergences=0))
    assert any("m1: R-hat" in line for line in said)
    assert not any("c1" in line for line in said)
    assert diagnostics.complaints(Posterior("nuts", {"c1": good}, (), divergences=100)) == [
        "100 of 800 draws diverged"
    ]
    stuck = Posterior("svi", {"m1": torch.ones(1, 50)}, ("the mode was not found",))
    assert len(diagnostics.complaints(stuck)) == 2


def test_unit_of_the_table_does_not_matter() -> None:
    """Siemens, converted, differ in the last bit at most; so do the posteriors."""
    measured = measure(devicemodels.load("nandakumar2018"), 10, 5)
    frame = measured.frame.copy()
    frame["conductance_s"] = frame.pop("conductance_us") / 1e6
    model = SetResponse()
    found = [
        fit(model, model.prepare(m), steps=20, draws=50)
        for m in (measured, table(frame, "siemens"))
    ]
    for name in found[0].draws:
        assert torch.allclose(found[0].draws[name], found[1].draws[name], rtol=1e-4), name


@pytest.mark.slow
def test_recovery_of_the_shipped_device() -> None:
    """500 devices x 20 pulses: 13 intervals of 95 %; more than 3 miss by chance once in 330.

    Widths shrink as one over the root of the data: 125 devices have intervals twice as wide, on
    the geometric mean over the constants of the step (single ones scatter with their values).
    """
    found = {n: fit(SetResponse(), data(n, 20, seed=1), steps=300) for n in (125, 500)}
    assert len(outside(found[500])) <= 3, outside(found[500])
    assert outside(found[500], 2.0) == []
    widths = {n: {x.name: x.high - x.low for x in diagnostics.summary(p)} for n, p in found.items()}
    names = ("m1", "c1", "A1", "a", "m2", "A2")
    ratios = [math.log(widths[125][name] / widths[500][name]) for name in names]
    assert 1.7 < math.exp(sum(ratios) / len(ratios)) < 2.4


@pytest.mark.slow
def test_nuts_agrees_with_the_normal_approximation() -> None:
    """60 drifting devices, 2 chains of 400: means within half a standard deviation."""
    chance, times = np.random.default_rng(0), np.array([40.0, 1e2, 1e3, 1e4, 1e5])
    nu = 0.05 + 0.01 * chance.normal(size=(60, 1))
    level = chance.uniform(5, 20, (60, 1)) * (times / 38.6) ** -nu
    frame = pd.DataFrame(
        {
            "device": np.repeat(np.arange(60), 5),
            "step": np.tile(np.arange(5), 60),
            "pulse": np.tile(["set", *["read"] * 4], 60),
            "time_s": np.tile(times, 60),
            "conductance_us": (level * (1 + 0.01 * chance.normal(size=level.shape))).ravel(),
        }
    )
    model = Drift()
    reads = model.prepare(table(frame, "drift"))
    quick = {x.name: x for x in diagnostics.summary(fit(model, reads, steps=100))}
    exact = fit(model, reads, "nuts", steps=100, warmup=200, draws=800)
    assert not diagnostics.complaints(exact)
    for line in diagnostics.summary(exact):
        middle = quick[line.name].mean
        assert math.isclose(line.mean, middle, abs_tol=0.5 * line.deviation), line.name
        assert 0.7 < line.deviation / quick[line.name].deviation < 1.4, line.name
