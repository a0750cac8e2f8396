"""step-response: its likelihood is that of its equations, of a filter, and of the simulator."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import devicemodels
from calibration import diagnostics
from calibration.fit import fit
from calibration.measurements import Measurements, table
from calibration.models.quadrature import log_mean
from calibration.models.step_data import DOWN, READ, UP, StepData
from calibration.models.step_filter import predicted
from calibration.models.step_response import StepResponse
from calibration.models.step_scale import RESPONSES, scale
from calibration.readers import gong
from calibration.synthetic import measure
from devicemodels.devices.step import StepArray, StepParameters
from devicemodels.errors import InputError
from devicemodels.model import DEVICE_TYPES
from devicemodels.state import Chance

pytestmark = pytest.mark.usefixtures("double")

GONG = Path(__file__).parents[3] / "shared" / "data" / "device_reram_aihwkit_gong"
TRUTH = {
    "step": 0.3, "up_down": 1.2, "g_high": 30.0, "g_low": 10.0, "cycle": 0.4, "read": 0.05,
    "step_spread": 0.2, "slope_up": 0.4, "slope_down": 0.7, "A_up": 0.3, "A_down": 0.2,
    "gamma_up": 1.1, "gamma_down": 0.8,
}  # fmt: skip


def values(**changes: float) -> dict[str, Tensor]:
    return {name: torch.tensor(v) for name, v in (TRUTH | changes).items()}


def softbounds(devices: int, pulses: int, seed: int = 0, reads: int = 1) -> Measurements:
    """The shipped device without what the model has not: bounds and ratio of a device's own."""
    device = devicemodels.load("softbounds").vary(w_max_dtod=0, w_min_dtod=0, up_down_dtod=0)
    torch.set_default_dtype(torch.float32)
    measured = measure(device, devices, pulses, seed=seed, reads=reads)
    torch.set_default_dtype(torch.float64)
    return measured


def rows(pulses: list[str], reads: list[float]) -> Measurements:
    steps = range(len(pulses))
    frame = {"device": "a", "step": steps, "pulse": pulses, "conductance_us": reads}
    return table(pd.DataFrame(frame), "small.csv")


@pytest.mark.parametrize("response", RESPONSES)
def test_one_noiseless_step_is_the_equation(response: str) -> None:
    """Exactly read, a step from 24 uS is N(dg, cycle |dg|), and dg what StepArray does."""
    model, v, w = StepResponse(response), values(read=0.0), torch.tensor([0.4])
    kind = DEVICE_TYPES[RESPONSES[response]]
    known = dict.fromkeys((item.name for item in dataclasses.fields(kind)), 0.0) | {
        "dw_min": 0.03, "w_max": 1.0, "w_min": -1.0, "a": 1.0,
    } | TRUTH  # fmt: skip
    physics = kind(**{item.name: known[item.name] for item in dataclasses.fields(kind)})
    assert isinstance(physics, StepParameters)
    for pulse, sign in ((UP, 1), (DOWN, -1)):
        array = StepArray(1, physics, Chance(0, "test"))
        array.write(w)
        array.pulse(torch.tensor([0]), torch.tensor([sign]))
        dg = 10 * (array.weight.item() - w.float().item())
        reads = torch.tensor([[24.0, 24.2]])
        data = StepData(
            reads, torch.tensor([[READ, pulse]]), reads, torch.tensor([0]), 1, (10.0, 30.0)
        )
        found = model.log_likelihood(v, data).item()
        deviation = 0.4 * abs(dg)
        wanted = -0.5 * ((0.2 - dg) / deviation) ** 2
        wanted -= math.log(deviation * math.sqrt(2 * math.pi))
        assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("response", RESPONSES)
def test_slope_of_the_scale(response: str) -> None:
    """By differences; beyond the end of a response both are 0."""
    w = torch.linspace(-1.5, 3.5, 40).requires_grad_()
    for up in (True, False):
        part, tilt = scale(response, values(A_up=0.9), w, torch.tensor(up))
        assert (part >= 0).all()
        if part.requires_grad:
            (slope,) = torch.autograd.grad(part.sum(), w)
            assert torch.allclose(slope, tilt)


@pytest.mark.parametrize("n", [1, 2, 5, 64, 101])
def test_filter_is_the_loop(n: int) -> None:
    chance = torch.Generator().manual_seed(n)
    slope = 1 + 0.1 * torch.randn(3, n, generator=chance)
    shift, noise = torch.randn(3, n, generator=chance), torch.rand(3, n, generator=chance)
    noise[:, ::3] = 0  # steps that nothing happens in
    reads, r = torch.randn(3, n + 1, generator=chance), torch.tensor([[0.3]])
    mean, variance = predicted(slope, shift, noise, reads, r)
    m, p = reads[:, :1], r
    for k in range(n):
        one = slice(k, k + 1)
        m, p = slope[:, one] * m + shift[:, one], slope[:, one] ** 2 * p + noise[:, one]
        assert torch.allclose(mean[:, one], m)
        assert torch.allclose(variance[:, one], p + r)
        gain = p / (p + r)
        m, p = m + gain * (reads[:, k + 1 : k + 2] - m), p * (1 - gain)


def test_device_spread_is_integrated_over() -> None:
    """Few reads, many, and none at all, against a fine sum over the device's factor."""
    model = StepResponse()
    grid = torch.linspace(-8, 8, 8_001)
    for pulses in (1, 4, 60):
        data = model.prepare(softbounds(3, pulses, seed=3))
        v = values(step=0.01, g_high=26.0, g_low=14.0, cycle=0.3, read=0.002, step_spread=0.35)
        found = model.log_likelihood(v, data)
        for k in range(3):
            alone = data.take(torch.tensor([k]))
            each = {name: x.expand(len(grid)) for name, x in v.items()}
            each["step"] = 0.01 * torch.exp(0.35 * grid)
            total = model.log_likelihood(each, alone)[:, 0] - grid**2 / 2
            wanted = total.logsumexp(0) + math.log(0.002 / math.sqrt(2 * math.pi))
            assert found[k].item() == pytest.approx(wanted.item(), abs=0.01), pulses
    nothing = log_mean(lambda u: 0 * u, torch.zeros(2))
    assert torch.allclose(nothing, torch.zeros(2), atol=1e-9)


def test_draws_sequences_and_repeated_reads() -> None:
    model, measured = StepResponse(), softbounds(5, 4, seed=3, reads=2)
    data, v = model.prepare(measured), values(step=0.01, g_high=26.0, g_low=14.0)
    assert data.reads.shape == (5, 17)  # the start is read once
    alone = [model.log_likelihood(v | {"step": torch.tensor(s)}, data) for s in (0.01, 0.02)]
    two = {name: x.expand(2) for name, x in v.items()} | {"step": torch.tensor([0.01, 0.02])}
    assert torch.allclose(model.log_likelihood(two, data), torch.stack(alone))
    part = data.take(torch.tensor([3, 1]))
    assert torch.equal(part.reads, data.reads[[3, 1]])
    assert torch.allclose(model.log_likelihood(v, part), alone[0][[3, 1]])
    shorter = measured.frame[(measured.frame["device"] != "1") | (measured.frame["step"] < 9)]
    padded = model.log_likelihood(v, model.prepare(table(shorter, "shorter")))
    assert torch.allclose(padded[[0, 2, 3, 4]], alone[0][[0, 2, 3, 4]], rtol=1e-3)
    assert not torch.isclose(padded[1], alone[0][1], rtol=0.1)


def test_replicates_and_groups() -> None:
    """2,000 devices: means and spreads of the shipped device's within six standard errors.

    30 pairs: a false alarm once in 10 million. The devices' factors are normal there and
    log-normal here, which 0.1 of spread does not show.
    """
    device = devicemodels.load("softbounds").vary(
        w_max_dtod=0, w_min_dtod=0, up_down_dtod=0, dw_min_dtod=0.1
    )
    model = StepResponse()
    data = model.prepare(measure(device, 2_000, 15, seed=2))
    v = values(step=0.01, up_down=1.0, g_high=26.0, g_low=14.0, cycle=0.3, read=0.0)
    v["step_spread"] = torch.tensor(0.1)
    again = model.replicate(v, data, torch.Generator().manual_seed(0))
    assert again.shape == data.reads.shape
    error = data.reads.std(0) / math.sqrt(2_000 / 2)
    assert ((data.reads.mean(0) - again.mean(0)).abs()[1:] < 6 * error[1:]).all()
    assert (data.reads.std(0) / again.std(0) - 1).abs()[1:].max() < 6 / math.sqrt(2_000)
    _, groups = model.groups(data)
    assert [x for x, _ in groups] == list(range(31))
    assert all(int(where.sum()) == 2_000 * (x > 0) for x, where in groups)


def test_recovery_of_soft_bounds() -> None:
    """40 devices x 100 pulses up and down: six intervals of 95 %, doubled.

    Of normal posteriors a false alarm once in 1,800. The bounds lie five microsiemens beyond
    the reads: it is the bend of the curves that tells them.
    """
    model = StepResponse()
    data = model.prepare(softbounds(40, 100, seed=1))
    posterior = fit(model, data, steps=30, draws=300)
    assert not diagnostics.complaints(posterior)
    # The median of |1 + 0.3 N| is 1; there f is 1.
    truth = {"step": 0.01, "up_down": 1.0, "g_high": 26.0, "g_low": 14.0, "cycle": 0.3}
    truth["step_spread"] = 0.3
    for line in diagnostics.summary(posterior):
        if line.name in truth:
            middle, half = (line.low + line.high) / 2, (line.high - line.low) / 2
            assert abs(truth[line.name] - middle) < 2 * half, line
            assert half < 0.3 * truth[line.name], "the interval tells something"


def test_gong_is_predicted_better_than_by_regression() -> None:
    """ln p of the last quarter of either direction, given the reads before each, in nats a read.

    Least squares takes the reads as exact, and so takes read noise for a pull to the middle.
    """
    if not GONG.is_dir():
        pytest.skip(f"the data set {GONG.name} is not in ../shared/data")
    frame = gong.pulses(GONG).frame.copy()
    frame["sequence"] = (frame["step"] >= 1000).astype(int)
    frame["step"] %= 1000
    full, first = table(frame, "gong"), table(frame[frame["step"] < 750], "three quarters")
    least = sum(
        _regression(x) for x in frame["conductance_us"].to_numpy().reshape(2, 1000)
    ) / 500  # fmt: skip
    found = {}
    for response in ("soft-bounds", "linear", "exponential"):
        model = StepResponse(response)
        part = model.prepare(first)
        whole = dataclasses.replace(model.prepare(full), window=part.window)
        draws = fit(model, part, steps=20, draws=100).flat()
        gained = model.log_likelihood(draws, whole) - model.log_likelihood(draws, part)
        found[response] = float(gained[:, 0].logsumexp(0) - math.log(100)) / 500
    print({"least squares": round(least, 3)} | {k: round(x, 3) for k, x in found.items()})
    assert least == pytest.approx(-1.253, abs=0.002)
    assert min(found.values()) > least + 0.1


def _regression(reads: np.ndarray) -> float:
    def terms(x: np.ndarray) -> np.ndarray:
        return np.stack([np.ones(len(x) - 1), x[:-1]], 1)

    train, test = reads[:750], reads[749:]
    line, rest, *_ = np.linalg.lstsq(terms(train), np.diff(train), rcond=None)
    variance = rest[0] / 749
    error = np.diff(test) - terms(test) @ line
    return float((-0.5 * (error**2 / variance + np.log(2 * np.pi * variance))).sum())


def test_one_device_leaves_its_spread_to_the_prior() -> None:
    model = StepResponse()
    data = model.prepare(softbounds(1, 20))
    one, two = (model.log_likelihood(values(step_spread=s), data) for s in (0.0, 0.9))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("pulses", "reads", "said"),
    [
        (["read", "read", "read"], [1.0, 1.1, 1.2], "0 up or down pulses"),
        (["read", "up"], [1.0, 1.1], "1 up or down pulses"),
        (["up", "set", "up"], [1.0, 1.1, 1.2], "--model set-response"),
        (["up", "up", "up"], [1.0, 1.0, 1.0], "no step to fit"),
    ],
)
def test_tables_without_what_is_needed(pulses: list[str], reads: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        StepResponse().prepare(rows(pulses, reads))
    assert "\n" not in str(caught.value)


def test_unknown_response() -> None:
    with pytest.raises(InputError, match="soft-bounds") as caught:
        StepResponse("softbounds")
    assert "\n" not in str(caught.value)
    assert StepResponse("linear").device_type == "linear-step"
    assert isinstance(StepResponse().prepare(softbounds(2, 3)), StepData)
