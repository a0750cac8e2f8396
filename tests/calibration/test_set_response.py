"""set-response: its likelihood is that of its own simulator, and of the shipped device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pandas as pd
import pytest
import torch
from torch import Tensor

import devicemodels
from calibration.measurements import Measurements, table
from calibration.models.set_response import READ, SET, SetData, SetResponse
from calibration.synthetic import measure
from devicemodels.errors import InputError

TRUTH = {
    "m1": -0.084, "c1": 0.88, "A1": 1.4, "a": 2.6, "m2": 0.091, "c2": 0.26, "A2": 2.15, "m3": 0.03,
    "c3": 0.13, "spread": 0.0, "g_min": 0.1, "g_max": 12.0, "reset_mean": 0.1, "reset_std": 0.01,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


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
    """Clipped at both ends, read with noise, a read below 0 counted at 0: all chance is there.

    Within 5 %: the noise of a read is taken at what was read, and this is a hard case.
    """
    v, model = values(g_max=3.0), SetResponse()
    first = model.log_likelihood(v, one([0.12], [READ])).item()
    step = 0.002
    grid = torch.arange(step, 6, step)
    data = SetData(
        torch.stack([torch.full_like(grid, 0.12), grid], 1),
        torch.tensor([[READ, SET]]).expand(len(grid), 2),
        torch.tensor([[0.0, 1.0]]).expand(len(grid), 2),
        torch.arange(len(grid)),
        len(grid),
    )
    above = model.log_likelihood(v, data).exp().sum().item() * step
    at_zero = model.log_likelihood(v, one([0.12, 0.0], [READ, SET])).exp().item()
    assert (above + at_zero) / math.exp(first) == pytest.approx(1, abs=0.05)


def test_score_at_the_truth_is_zero_on_the_shipped_device() -> None:
    """800 synthetic devices x 20 pulses: the mean slope of ln p by each constant of the step.

    A wrong likelihood has a slope; five standard errors over seven constants: a false alarm once
    in 250,000. Without its read noise, clipping or history the model fails this by far.
    """
    model = SetResponse()
    data = model.prepare(measure(devicemodels.load("nandakumar2018"), 800, 20, seed=1))
    for name in ("m1", "c1", "A1", "a", "m2", "c2", "A2"):
        width = 1e-4 * abs(TRUTH[name])
        up = model.log_likelihood(values(**{name: TRUTH[name] + width}), data)
        down = model.log_likelihood(values(**{name: TRUTH[name] - width}), data)
        slope = (up - down) / (2 * width)
        assert abs(slope.mean()) < 5 * slope.std() / math.sqrt(800), name
        wrong = values(c3=0.0, m3=0.0)
        up = model.log_likelihood(wrong | {name: torch.tensor(TRUTH[name] + width)}, data)
        down = model.log_likelihood(wrong | {name: torch.tensor(TRUTH[name] - width)}, data)
        if name in ("m2", "c2"):
            slope = (up - down) / (2 * width)
            assert abs(slope.mean()) > 5 * slope.std() / math.sqrt(800), "the test can fail"


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
