"""relaxation: diffusion in log time, on equations and on measured RRAM cells."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.distributions import Normal

from calibration import diagnostics
from calibration.fit import fit
from calibration.measurements import Measurements, table
from calibration.models.relaxation import Relaxation, RelaxationData
from calibration.readers import stanford
from devicemodels.errors import InputError

pytestmark = pytest.mark.usefixtures("double")

TRUTH = {
    "rate": -0.06, "rate_slope": -0.05, "sigma": 1.0, "sigma_slope": 0.1, "sigma_bend": -0.7,
    "spread": 0.7, "tau": 0.02, "read": 0.1,
}  # fmt: skip
SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "device_rram_stanford"


def values(**changes: float) -> dict[str, Tensor]:
    return {name: torch.tensor(v) for name, v in (TRUTH | changes).items()}


def cells(number: int, seed: int = 0) -> Measurements:
    """Return cells drawn from the equations at TRUTH, read at six times."""
    chance = np.random.default_rng(seed)
    times = np.array([0, 0.01, 0.1, 1, 10, 1e4])
    g0 = chance.uniform(2, 40, number)
    x = g0 / np.median(g0) - 1
    s = np.log1p(times / 0.02)
    wander = np.cumsum(np.sqrt(np.diff(s, prepend=0)) * chance.normal(size=(number, 6)), 1)
    sigma = np.exp(0.1 * x - 0.7 * x**2 + 0.7 * chance.normal(size=number))
    g = g0[:, None] + (-0.06 - 0.05 * x)[:, None] * s + sigma[:, None] * wander
    reads = np.clip(g + 0.1 * chance.normal(size=g.shape), 0, None)
    frame = pd.DataFrame(
        {
            "device": np.repeat(np.arange(number), 6),
            "step": np.tile(np.arange(6), number),
            "pulse": np.tile(["set", *["read"] * 5], number),
            "time_s": np.tile(times, number),
            "conductance_us": reads.ravel(),
        }
    )
    return table(frame, "cells")


def test_likelihood_is_the_normal_distribution_of_a_brownian_path() -> None:
    data = Relaxation().prepare(cells(3))
    found = Relaxation().log_likelihood(values(spread=0.0), data)
    for k in range(3):
        x = float(data.reads[k, 0]) / data.reference - 1
        s = np.log1p(data.time_s[k, 1:].numpy() / 0.02)
        sigma = math.exp(0.1 * x - 0.7 * x**2)
        covariance = sigma**2 * np.minimum.outer(s, s) + 0.1**2 * (np.eye(5) + 1)
        change = (data.reads[k, 1:] - data.reads[k, 0]).numpy()
        known = multivariate_normal((-0.06 - 0.05 * x) * s, covariance).logpdf(change)
        assert found[k].item() == pytest.approx(known, abs=0.01)  # an instrument's resolution


def test_padding_draws_and_parts() -> None:
    model, data = Relaxation(), Relaxation().prepare(cells(4))
    alone = model.log_likelihood(values(), data)
    two = {name: v.expand(2) for name, v in values().items()}
    assert torch.allclose(model.log_likelihood(two, data), alone.expand(2, 4))
    assert torch.allclose(
        model.log_likelihood(values(), data.take(torch.tensor([2, 0]))), alone[[2, 0]]
    )
    one = torch.zeros(4, 1)
    wide = dataclasses.replace(
        data,
        reads=torch.cat([data.reads, one], 1),
        time_s=torch.cat([data.time_s, one], 1),
        seen=torch.cat([data.seen, one.bool()], 1),
    )
    assert torch.allclose(model.log_likelihood(values(), wide), alone)


def test_recovery() -> None:
    """300 cells: eight 95 % intervals, doubled: a false alarm once in 1,000; replicates alike."""
    model = Relaxation()
    data = model.prepare(cells(300))
    posterior = fit(model, data, steps=100, draws=400)
    assert not diagnostics.complaints(posterior)
    for line in diagnostics.summary(posterior):
        middle, half = (line.low + line.high) / 2, (line.high - line.low) / 2
        assert abs(TRUTH[line.name] - middle) < 2 * half, line.name
    spread = {line.name: line for line in diagnostics.summary(posterior)}["spread"]
    assert spread.low > 0.4, "cells of one diffusion would not do"
    again = diagnostics.replicates(model, posterior, data, 20, seed=0)
    ratio = again[:, :, -1].std() / data.reads[:, -1].std()
    assert ratio.item() == pytest.approx(1, abs=0.1)


def test_measured_cells_left_out() -> None:
    """1,000 cells fitted, 1,000 others: more than 0.3 nats a read above a least-squares mean.

    The comparison is the least-squares mean curve in ln t and G0 with Gaussian residuals.
    """
    if not SHARED.exists():
        pytest.skip("needs the shared data set device_rram_stanford")
    measured, model = stanford.relaxation(SHARED), Relaxation()
    chance = np.random.default_rng(0)
    names = chance.permutation(measured.devices)[:2000]
    data, others = (model.prepare(measured.only(part)) for part in (names[:1000], names[1000:]))
    posterior = fit(model, data, steps=100, draws=100)
    assert not diagnostics.complaints(posterior)
    some = {name: draws[0, ::10] for name, draws in posterior.draws.items()}
    each = model.log_likelihood(some, others)
    reads = int(others.seen[:, 1:].sum())
    ours = (each.logsumexp(0) - math.log(len(each))).sum().item() / reads
    (x, y), (x2, y2) = _table(data), _table(others)
    curve = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    theirs = Normal(0.0, (y - x @ curve).std()).log_prob(y2 - x2 @ curve).mean().item()
    assert ours > theirs + 0.3


def _table(data: RelaxationData) -> tuple[Tensor, Tensor]:
    later = data.seen[:, 1:]
    s = torch.log1p(data.time_s[:, 1:] / 0.01)
    x = (data.reads[:, :1] / data.reference - 1).expand_as(s)
    change = data.reads[:, 1:] - data.reads[:, :1]
    return torch.stack([torch.ones_like(s), s, x, x * s], -1)[later], change[later]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_s": None}, "add time_s"),
        ({"pulse": ["set", "read", "set"]}, "begin a new sequence at every pulse"),
        ({"sequence": [0, 1, 2], "step": [0, 0, 0]}, "no sequence of two reads"),
    ],
)
def test_tables_without_what_is_needed(changes: dict[str, list[object] | None], said: str) -> None:
    columns = {
        "device": ["a"] * 3, "step": [0, 1, 2], "pulse": ["set", "read", "read"],
        "time_s": [0.0, 1.0, 2.0], "conductance_us": [5.0] * 3,
    } | changes  # fmt: skip
    frame = pd.DataFrame({name: column for name, column in columns.items() if column is not None})
    with pytest.raises(InputError, match=said) as caught:
        Relaxation().prepare(table(frame, "bad.csv"))
    assert "\n" not in str(caught.value)
