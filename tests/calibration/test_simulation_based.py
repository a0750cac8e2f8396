"""Simulation-based calibration: the truth has any rank among posterior draws, equally often.

Talts et al., arXiv:1804.06788 (2018). Constants are drawn from priors narrower than the models'
own, so that few devices tell them; an experiment is simulated, fitted, and the truth ranked among
thinned draws. A fit whose intervals are too narrow, too wide or beside the truth fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2

from calibration.fit import fit
from calibration.measurements import Measurements, table
from calibration.models import MODELS
from calibration.models.base import CalibrationModel
from calibration.models.priors import log_normal, normal

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("double")]

BINS, DRAWS = 6, 59
#: Chance that one constant of a right fit fails.
FALSE_ALARM = 1e-4


def design(pulses: list[str], devices: int, times: list[float] | None = None) -> Measurements:
    """Return a table of these pulses on each device; reads stand for nothing yet."""
    n = len(pulses)
    columns: dict[str, Any] = {
        "device": np.repeat(np.arange(devices), n),
        "step": np.tile(np.arange(n), devices),
        "pulse": np.tile(pulses, devices),
        "conductance_us": np.tile(np.linspace(8.0, 10.0, n), devices)
        + np.repeat(np.linspace(0, 3, devices), n),
    }
    if times:
        columns["time_s"] = np.tile(times, devices)
    return table(pd.DataFrame(columns), "design")


ALONE = ["set"] + 7 * ["read"]
TIMES = [0.0, 30, 100, 300, 1e3, 3e3, 1e4, 1e5]
Case = tuple[CalibrationModel, Measurements, dict[str, Any]]


def set_response() -> Case:
    priors = {
        "m1": normal(-0.1, 0.02), "c1": log_normal(0.8, 0.15), "A1": normal(1.4, 0.2),
        "a": log_normal(2.6, 0.2), "m2": normal(0.08, 0.02), "c2": log_normal(0.4, 0.2),
        "A2": log_normal(0.7, 0.3), "m3": log_normal(0.03, 0.3), "c3": log_normal(0.13, 0.3),
        "spread": log_normal(0.2, 0.3), "g_min": log_normal(0.1, 0.5),
        "g_max": log_normal(12.0, 0.05), "reset_mean": log_normal(0.3, 0.5),
        "reset_std": log_normal(0.2, 0.3),
    }  # fmt: skip
    return MODELS["set-response"](), design(["reset"] + 12 * ["set"], 25), priors


def drift() -> Case:
    priors = {
        "nu_mean": normal(0.05, 0.01), "nu_std": log_normal(0.01, 0.3),
        "nu_slope": normal(0.0, 0.01), "read_error": log_normal(0.02, 0.3),
    }  # fmt: skip
    return MODELS["drift"](), design(ALONE, 25, TIMES), priors


def read_noise() -> Case:
    priors = {
        "m3": log_normal(0.03, 0.3), "c3": log_normal(0.13, 0.3),
        "flicker": log_normal(0.02, 0.4), "slope": log_normal(1.0, 0.2),
    }  # fmt: skip
    return MODELS["read-noise"](), design(ALONE, 30, TIMES), priors


def relaxation() -> Case:
    priors = {
        "rate": normal(-0.1, 0.05), "rate_slope": normal(0.0, 0.05), "sigma": log_normal(0.2, 0.3),
        "sigma_slope": normal(0, 0.3), "sigma_bend": normal(0, 0.3),
        "spread": log_normal(0.3, 0.3), "tau": log_normal(10.0, 1.0), "read": log_normal(0.1, 0.3),
    }  # fmt: skip
    return MODELS["relaxation"](), design(ALONE, 40, TIMES), priors


def step_response() -> Case:
    model: Any = MODELS["step-response"]
    priors = {
        "step": log_normal(0.1, 0.2), "up_down": log_normal(1.0, 0.1),
        "g_high": log_normal(14.0, 0.03), "g_low": log_normal(6.0, 0.05),
        "cycle": log_normal(0.5, 0.3), "read": log_normal(0.1, 0.3),
        "step_spread": log_normal(0.2, 0.3),
    }  # fmt: skip
    pulses = ["read", *(30 * ["up"] + 30 * ["down"])]
    # Soft bounds: the slopes of other responses count from the outermost reads, not known before.
    return model(response="soft-bounds"), design(pulses, 8), priors


def amplitude_response() -> Case:
    levels = np.linspace(3.0, 15.0, 14)
    priors: dict[str, Any] = {f"curve_{k}": log_normal(g, 0.2) for k, g in enumerate(levels)}
    for name, usual in (("spread", 0.2), ("cycle", 0.1), ("noise", 0.05)):
        priors |= {f"{name}_{k}": log_normal(usual, 0.3) for k in range(7)}
    priors |= {"length_spread": log_normal(0.3, 0.3), "length_cycle": log_normal(0.3, 0.3)}
    devices, sweeps, volts = 25, 4, np.linspace(0.7, 1.7, 20)
    columns = {
        "device": np.repeat(np.arange(devices), sweeps * len(volts)),
        "sequence": np.tile(np.repeat(np.arange(sweeps), len(volts)), devices),
        "step": np.tile(np.arange(len(volts)), devices * sweeps),
        "pulse": "set",
        "amplitude_v": np.tile(volts, devices * sweeps),
        "conductance_us": np.tile(np.linspace(3.0, 15.0, len(volts)), devices * sweeps),
    }
    bench = table(pd.DataFrame(columns), "design")
    return MODELS["amplitude-response"](), bench, priors | {"memory": log_normal(2.0, 0.4)}


CASES: dict[str, tuple[Callable[[], Case], int]] = {
    "set-response": (set_response, 36),
    "drift": (drift, 60),
    "read-noise": (read_noise, 60),
    "relaxation": (relaxation, 60),
    "step-response": (step_response, 36),
    "amplitude-response": (amplitude_response, 36),
}


def ranks(model: CalibrationModel, bench: Measurements, priors: dict[str, Any], k: int) -> Any:
    """Return the rank of each true constant among DRAWS posterior draws, of simulation ``k``."""
    model.prepare(bench)  # some models find their constants by the table
    assert {c.name for c in model.constants} == set(priors)
    model.constants = tuple(replace(c, prior=priors[c.name]) for c in model.constants)
    narrow = model.constants
    torch.manual_seed(k)
    truth = {name: prior.sample() for name, prior in priors.items()}
    chance = torch.Generator().manual_seed(k)
    reads = model.replicate(truth, model.prepare(bench), chance)
    frame = bench.frame.assign(conductance_us=reads.flatten().numpy())
    data = model.prepare(table(frame, f"simulation {k}"))
    model.constants = narrow
    posterior = fit(model, data, seed=k, steps=150, draws=DRAWS)
    assert not posterior.remarks
    draws = posterior.flat()
    return {name: int((draws[name] < value).sum()) for name, value in truth.items()}


@pytest.mark.parametrize("name", CASES)
def test_ranks_are_uniform(name: str) -> None:
    """Chi-square over BINS equal bins of the rank, each constant failing with FALSE_ALARM."""
    make, number = CASES[name]
    found = [ranks(*make(), k) for k in range(number)]
    limit = chi2.isf(FALSE_ALARM, BINS - 1)
    for constant in found[0]:
        bins = np.array([one[constant] * BINS // (DRAWS + 1) for one in found])
        counts = np.bincount(bins, minlength=BINS)
        statistic = ((counts - number / BINS) ** 2).sum() / (number / BINS)
        assert statistic < limit, f"{name}, {constant}: {counts}"
