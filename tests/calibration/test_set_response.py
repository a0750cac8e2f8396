"""set-response: its likelihood is that of its own simulator, and of the shipped device."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import devicemodels
from calibration.measurements import Measurements, table
from calibration.models.quadrature import log_mean, nodes
from calibration.models.set_filter import log_density
from calibration.models.set_integral import devices
from calibration.models.set_response import READ, SET, SetData, SetResponse
from calibration.synthetic import measure
from devicemodels.errors import InputError

pytestmark = pytest.mark.usefixtures("double")

TRUTH = {
    "m1": -0.084, "c1": 0.88, "A1": 1.4, "a": 2.6, "m2": 0.091, "c2": 0.26, "A2": 2.15, "m3": 0.03,
    "c3": 0.13, "spread": 0.0, "g_min": 0.1, "g_max": 12.0, "reset_mean": 0.1, "reset_std": 0.01,
}  # fmt: skip


def values(**changes: float) -> dict[str, Tensor]:
    return {name: torch.tensor(v) for name, v in (TRUTH | changes).items()}


def one(reads: list[float], kinds: list[int], number: int = 1) -> SetData:
    kind = torch.tensor([kinds])
    return SetData(
        torch.tensor([reads]), kind, (kind == SET).double().cumsum(1), torch.tensor([0]), number
    )


def test_one_noiseless_step_is_the_equation() -> None:
    """Far from the bounds and exactly read, a step is N(mu, sigma) of the true conductance."""
    v = values(c3=0.0, m3=0.0, reset_mean=2.0, reset_std=1e-6)
    found = SetResponse().log_likelihood(v, one([2.0, 6.1], [READ, SET]))
    mu = -0.084 * 2 + 0.88 + 1.4 * math.exp(-1 / 2.6)
    sigma = math.hypot(0.091 * 2 + 0.26 + 2.15 * math.exp(-1 / 2.6), 0.005)
    first = -math.log(0.005 * math.sqrt(2 * math.pi))  # the resolution of an instrument
    second = -0.5 * ((4.1 - mu) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))
    assert found.item() == pytest.approx(first + second, abs=1e-3)


def test_density_of_a_read_integrates_to_one() -> None:
    """Clipped at both ends, read with noise, a read below 0 counted at 0: all chance is there."""
    v, model = values(g_max=3.0), SetResponse()
    first = model.log_likelihood(v, one([0.12], [READ])).item()
    step = 0.002
    grid = torch.arange(step / 2, 6, step)
    data = SetData(
        torch.stack([torch.full_like(grid, 0.12), grid], 1),
        torch.tensor([[READ, SET]]).expand(len(grid), 2),
        torch.tensor([[0.0, 1.0]]).expand(len(grid), 2),
        torch.arange(len(grid)),
        len(grid),
    )
    above = model.log_likelihood(v, data).exp().sum().item() * step
    at_zero = model.log_likelihood(v, one([0.12, 0.0], [READ, SET])).exp().item()
    assert (above + at_zero) / math.exp(first) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("heavy", "changes"), [(False, {}), (True, {}), (False, {"g_max": 4.0, "reset_std": 0.2})]
)
def test_kernel_is_the_reference(heavy: bool, changes: dict[str, float]) -> None:
    """Value and gradient of ten devices against plain torch, to 1e-9 relative."""
    model = SetResponse(heavy_tails=heavy)
    measured = measure(devicemodels.load("nandakumar2018"), 10, 12, seed=5, reads=2)
    everyone = model.prepare(measured)
    names = [c.name for c in model.constants]
    for k in range(10):
        data = everyone.take(torch.tensor([k]))
        theta = torch.stack([values(spread=0.2, **changes)[name] for name in names])
        v = dict(zip(names, theta.requires_grad_(), strict=True))
        found = model.log_likelihood(v, data).sum()
        slope = torch.autograd.grad(found, theta)[0]
        v = dict(zip(names, theta, strict=True))
        expected = log_mean(partial(_at, v, data, heavy), torch.zeros(1)).sum()
        slope_expected = torch.autograd.grad(expected, theta)[0]
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        assert (slope - slope_expected).abs().max() < 1e-9 * slope_expected.abs().max()


def _at(v: dict[str, Tensor], data: SetData, heavy: bool, u: Tensor) -> Tensor:
    return log_density(v, torch.exp(v["spread"] * u), data.blocks, heavy)


@pytest.mark.parametrize("pulses", [20, 400, 2_000])
def test_factor_of_a_device_pulsed_often(pulses: int) -> None:
    """Against 201 nodes close together: its reads leave it so well known that 7 would miss it."""
    model, v = SetResponse(), values(spread=0.3)
    data = model.prepare(measure(devicemodels.load("nandakumar2018"), 1, pulses, seed=6))
    reach = 4.0 if pulses == 20 else 1.0
    u = torch.linspace(-reach, reach, 201)[:, None]
    level = _at(v, data, False, u) - u**2 / 2 - 0.5 * math.log(2 * math.pi)
    expected = torch.logsumexp(level, 0) + math.log(2 * reach / 200)
    assert model.log_likelihood(v, data).item() == pytest.approx(expected.item(), abs=2e-3)
    points, weights = nodes(7)
    seven = torch.logsumexp(_at(v, data, False, points[:, None]) + weights[:, None], 0)
    assert pulses == 20 or abs(seven - expected).item() > 0.1, "the test can fail"


def test_score_at_the_truth_is_zero_on_the_shipped_device() -> None:
    """10,000 synthetic devices x 20 pulses: the Newton step from the truth, by each constant.

    A wrong likelihood has a slope. The step is within four standard errors over 13 constants (a
    false alarm once in 1,200); where the noise of a read is that at what was read, m3 is eight off.
    """
    model, number = SetResponse(), 10_000
    data = model.prepare(measure(devicemodels.load("nandakumar2018"), number, 20, seed=0))
    theta = np.array([[TRUTH[c.name] for c in model.constants]])
    value, slope = np.empty((1, number)), np.empty((1, number, theta.size))
    devices(0, number, theta, *data.arrays, False, True, value, slope)
    known = [k for k, c in enumerate(model.constants) if c.name != "spread"]  # it is 0, its score 0
    scores = slope[0][:, known]
    spread = np.linalg.inv(scores.T @ scores)
    step = spread @ scores.sum(0) / np.sqrt(np.diag(spread))
    assert np.abs(step).max() < 4, step


def test_replicates_are_the_shipped_device() -> None:
    """5,000 devices each: means and spreads agree within six standard errors (0.1 % over 20)."""
    model = SetResponse()
    data = model.prepare(measure(devicemodels.load("nandakumar2018"), 5_000, 10, seed=2))
    again = model.replicate(values(), data, torch.Generator().manual_seed(0))
    error = data.reads.std(0) / math.sqrt(5_000 / 2)
    assert ((data.reads.mean(0) - again.mean(0)).abs() < 6 * error).all()
    assert (data.reads.std(0) / again.std(0) - 1).abs().max() < 6 / math.sqrt(5_000)


def test_device_spread_is_integrated_over() -> None:
    """Against the mean over 20,000 factors drawn at random, within six standard errors."""
    model = SetResponse()
    data = one([0.1, 2.5, 4.6, 6.4], [READ, SET, SET, SET])
    found = model.log_likelihood(values(spread=0.3), data).item()
    factor = torch.exp(0.3 * torch.randn(20_000, generator=torch.Generator().manual_seed(0)))
    each = torch.stack(
        [
            model.log_likelihood(
                {k: torch.full_like(f, v) for k, v in TRUTH.items()}
                | {k: TRUTH[k] * f for k in ("A1", "c1", "A2", "c2", "m1", "m2")},
                data,
            )[:, 0]
            for f in factor.split(5_000)
        ]
    ).exp()
    assert found == pytest.approx(
        each.mean().log().item(), abs=6 * each.std().item() / 141 / each.mean().item()
    )


def test_draws_devices_and_repeated_reads() -> None:
    model = SetResponse()
    measured = measure(devicemodels.load("nandakumar2018"), 5, 4, seed=3, reads=3)
    data = model.prepare(measured)
    assert data.reads.shape == (5, 15)
    assert data.pulse[0].tolist() == [p for p in range(5) for _ in range(3)]
    alone = model.log_likelihood(values(), data)
    two = {name: v.expand(2) for name, v in values().items()}
    assert torch.allclose(model.log_likelihood(two, data), alone.expand(2, 5))
    part = data.take(torch.tensor([3, 1]))
    assert torch.equal(part.reads, data.reads[[3, 1]])
    assert torch.allclose(model.log_likelihood(values(), part), alone[[3, 1]])


def test_threads_do_not_change_a_result() -> None:
    model, threads = SetResponse(), torch.get_num_threads()
    data = model.prepare(measure(devicemodels.load("nandakumar2018"), 7, 4, seed=3))
    try:
        torch.set_num_threads(1)
        alone = model.log_likelihood(values(spread=0.2), data)
        torch.set_num_threads(3)
        assert torch.equal(model.log_likelihood(values(spread=0.2), data), alone)
    finally:
        torch.set_num_threads(threads)


def test_sequences_of_one_device_share_its_factor() -> None:
    frame = measure(devicemodels.load("nandakumar2018"), 2, 3, seed=4).frame.copy()
    frame["sequence"] = frame["device"].astype(int)
    frame["device"] = "same"
    model = SetResponse()
    data = model.prepare(table(frame, "two sequences"))
    assert len(data) == 1
    apart = dataclasses.replace(data, device=torch.tensor([0, 1]), number=2)
    without = values(spread=1e-9)
    assert model.log_likelihood(without, data).sum() == pytest.approx(
        model.log_likelihood(without, apart).sum().item()
    )
    wide = values(spread=0.5)
    assert model.log_likelihood(wide, data).sum() != pytest.approx(
        model.log_likelihood(wide, apart).sum().item(), abs=1e-3
    )


def test_heavy_tails_take_an_outlier_more_calmly() -> None:
    outlier = one([0.1, 11.5], [READ, SET])
    plain = SetResponse().log_likelihood(values(), outlier)
    assert SetResponse(heavy_tails=True).log_likelihood(values(), outlier) > plain + 1


@pytest.mark.parametrize(
    ("pulses", "said"),
    [
        (["set", "set"], "begin the sequence with the read after it"),
        (["reset", "set", "reset"], "give every RESET a sequence of its own"),
        (["reset", "up"], "--model step-response"),
        (["reset", "read"], "no SET pulses"),
    ],
)
def test_tables_without_what_is_needed(pulses: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        SetResponse().prepare(_table(pulses))
    assert "\n" not in str(caught.value)


def _table(pulses: list[str]) -> Measurements:
    steps = range(len(pulses))
    frame = pd.DataFrame({"device": "a", "step": steps, "pulse": pulses, "conductance_us": 1.0})
    return table(frame, "bad.csv")
