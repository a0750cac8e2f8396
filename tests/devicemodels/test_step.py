"""Bipolar step devices and the ideal device against physics.md section 5."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import foldnorm
from torch import Tensor

from devicemodels import Chance
from devicemodels.devices.ideal import IdealArray, IdealParameters
from devicemodels.devices.step import (
    ExpStepParameters,
    LinearStepParameters,
    SoftBoundsParameters,
    StepArray,
    StepParameters,
)

#: A device without any spread, bounds far apart and unequal.
PLAIN: dict[str, float] = {
    "dw_min": 0.01,
    "dw_min_dtod": 0.0,
    "dw_min_std": 0.0,
    "up_down": 1.0,
    "up_down_dtod": 0.0,
    "w_max": 0.8,
    "w_min": -0.5,
    "w_max_dtod": 0.0,
    "w_min_dtod": 0.0,
}
SLOPES = {"slope_up": 0.9, "slope_down": 1.4}
#: aihwkit's ExpStep defaults, but for the offset, which is made plainly visible here.
CURVE = {"A_up": 0.00081, "A_down": 0.36833, "gamma_up": 12.44625, "gamma_down": 12.78785}
CURVE |= {"a": 0.244, "b": 0.2425}


def build(kind: type[StepParameters], size: int, seed: int = 1, **changed: Any) -> StepArray:
    return StepArray(size, kind(**PLAIN | changed), Chance(seed, "step"))


def pulse(devices: StepArray | IdealArray, count: int | Tensor) -> None:
    size = len(devices.weight)
    count = torch.full((size,), count) if isinstance(count, int) else count
    devices.pulse(torch.arange(size), count)


def constant(w: float, up: bool) -> float:
    return 1.0


def linear(w: float, up: bool) -> float:
    return max(0.0, 1 - 0.9 * w if up else 1 + 1.4 * w)


def soft_bounds(w: float, up: bool) -> float:
    return 1 - w / 0.8 if up else 1 + w / 0.5


def exponential(w: float, up: bool) -> float:
    z = 2 * 0.244 * w / (0.8 + 0.5) + 0.2425
    grown = 0.00081 * math.exp(12.44625 * z) if up else 0.36833 * math.exp(-12.78785 * z)
    return max(0.0, 1 - grown)


RESPONSES = {
    "constant": (StepParameters, {}, constant),
    "linear": (LinearStepParameters, SLOPES, linear),
    "soft-bounds": (SoftBoundsParameters, {}, soft_bounds),
    "exponential": (ExpStepParameters, CURVE, exponential),
}


@pytest.mark.parametrize("sign", [1, -1], ids=["up", "down"])
@pytest.mark.parametrize("name", RESPONSES)
def test_response_formula(name: str, sign: int) -> None:
    """One pulse, and seven on end, from states over the whole range; all exact."""
    kind, constants, factor = RESPONSES[name]
    start = torch.linspace(-0.5, 0.8, 14)
    for number in (1, 7):
        devices = build(kind, len(start), **constants)
        devices.write(start)
        pulse(devices, sign * number)
        for before, after in zip(start.tolist(), devices.weight.tolist(), strict=True):
            w = before
            for _ in range(number):
                w += sign * 0.01 * factor(w, sign > 0)
                w = min(max(w, -0.5), 0.8)
            assert after == pytest.approx(w, abs=1e-6)


def test_responses_differ_from_each_other() -> None:
    """At w = 0.4 no two responses give the same up step: a mix-up of kinds cannot pass."""
    steps = {round(factor(0.4, True), 3) for _, _, factor in RESPONSES.values()}
    assert len(steps) == len(RESPONSES)


#: Each response with its state dependence switched off, bounds out of reach.
FLAT: dict[str, tuple[type[StepParameters], dict[str, float]]] = {
    "constant": (StepParameters, {}),
    "linear": (LinearStepParameters, {"slope_up": 0.0, "slope_down": 0.0}),
    "soft-bounds": (SoftBoundsParameters, {"w_max": 1e6, "w_min": -1e6}),
    "exponential": (ExpStepParameters, CURVE | {"A_up": 0.0, "A_down": 0.0}),
}


@pytest.mark.parametrize("number", [1, 6, -6])
@pytest.mark.parametrize("name", FLAT)
def test_cycle_to_cycle_noise(name: str, number: int) -> None:
    """n equal pulses move by n dw with variance n std^2 dw^2.

    50,000 devices, seed 2; 4.5 standard errors, false-alarm rate 7e-6 a number.
    """
    kind, constants = FLAT[name]
    size, n = 50_000, abs(number)
    devices = build(
        kind, size, seed=2, dw_min_std=0.3, **{"w_max": 10.0, "w_min": -10.0, **constants}
    )
    pulse(devices, number)
    w = devices.weight.double()
    std = math.sqrt(n) * 0.3 * 0.01
    assert abs(w.mean().item() - number * 0.01) < 4.5 * std / math.sqrt(size)
    assert abs(w.std().item() / std - 1) < 4.5 / math.sqrt(2 * size)


def test_cycle_to_cycle_noise_follows_the_step() -> None:
    """Where soft bounds halve the step they halve its noise. 50,000 devices, seed 3; 4.5
    standard errors, false-alarm rate 7e-6."""
    devices = build(SoftBoundsParameters, 50_000, seed=3, dw_min_std=0.3)
    devices.write(torch.full((50_000,), 0.4))
    pulse(devices, 1)
    assert abs(devices.weight.double().std().item() / 0.0015 - 1) < 4.5 / math.sqrt(100_000)


@pytest.mark.parametrize(
    ("spread", "buffer", "mean"),
    [
        ("dw_min_dtod", "step_up", 0.01),
        ("dw_min_dtod", "step_down", 0.01),
        ("w_max_dtod", "upper", 0.8),
        ("w_min_dtod", "lower", -0.5),
    ],
)
def test_device_to_device_spread(spread: str, buffer: str, mean: float) -> None:
    """A device's value is mean |1 + spread N(0, 1)|; the other values have no spread.

    50,000 devices, spread 0.3, seed 4; 4.5 standard errors, false-alarm rate 7e-6 a number.
    """
    size = 50_000
    devices = build(StepParameters, size, seed=4, **{spread: 0.3})
    values = getattr(devices, buffer).double() / mean
    expected = foldnorm(1 / 0.3, scale=0.3)
    assert (values >= 0).all()
    assert abs(values.mean().item() - expected.mean()) < 4.5 * expected.std() / math.sqrt(size)
    assert abs(values.std().item() / expected.std() - 1) < 4.5 / math.sqrt(2 * size)
    ours = {"step_up", "step_down"} if spread == "dw_min_dtod" else {buffer}
    for other in {"step_up", "step_down", "upper", "lower"} - ours:
        assert getattr(devices, other).std() < 1e-6


def test_steps_of_a_balanced_device_are_equal_whatever_its_size() -> None:
    devices = build(StepParameters, 1_000, dw_min_dtod=0.3)
    torch.testing.assert_close(devices.step_up, devices.step_down, rtol=1e-6, atol=0)


def test_up_down_imbalance() -> None:
    """up_down is the ratio of the steps, their mean stays dw_min, and pulses obey it."""
    devices = build(StepParameters, 5, up_down=1.5)
    pulse(devices, 10)
    up = devices.weight.clone()
    pulse(devices, -10)
    down = up - devices.weight
    assert (up / down).tolist() == pytest.approx([1.5] * 5, rel=1e-5)
    assert ((up + down) / 20).tolist() == pytest.approx([0.01] * 5, rel=1e-5)


def test_up_down_imbalance_spread() -> None:
    """The ratio's device-to-device spread is 2 %. 50,000 devices, seed 5; 4.5 standard errors,
    false-alarm rate 7e-6 a number."""
    size = 50_000
    devices = build(StepParameters, size, seed=5, up_down_dtod=0.02, dw_min_dtod=0.3)
    ratio = (devices.step_up / devices.step_down).double()
    assert abs(ratio.mean().item() - 1) < 4.5 * 0.02 / math.sqrt(size)
    assert abs(ratio.std().item() / 0.02 - 1) < 4.5 / math.sqrt(2 * size)


@pytest.mark.parametrize("name", RESPONSES)
def test_bounds_hold(name: str) -> None:
    """However long one pulses, a device stays within its own bounds; without noise the constant
    step arrives at them exactly."""
    kind, constants, _ = RESPONSES[name]
    devices = build(
        kind, 300, seed=6, dw_min_std=1.0, w_max_dtod=0.3, w_min_dtod=0.3, dw_min=0.05, **constants
    )
    for number in (3, 200, -3, -400):
        pulse(devices, number)
        assert (devices.weight <= devices.upper).all()
        assert (devices.weight >= devices.lower).all()
        assert devices.weight.isfinite().all()
    if name == "constant":
        quiet = build(kind, 300, seed=6, w_max_dtod=0.3)
        pulse(quiet, 1_000)
        assert torch.equal(quiet.weight, quiet.upper)


def test_write_clips_to_each_device() -> None:
    devices = build(StepParameters, 300, seed=7, w_max_dtod=0.3, w_min_dtod=0.3)
    devices.write(torch.full((300,), 9.0))
    assert torch.equal(devices.weight, devices.upper)
    devices.write(torch.full((300,), -9.0))
    assert torch.equal(devices.weight, devices.lower)
    devices.write(torch.full((300,), 0.01))
    assert devices.weight.eq(0.01).all()


def test_only_the_named_devices_move() -> None:
    devices = build(StepParameters, 6)
    devices.pulse(torch.tensor([4, 1]), torch.tensor([2, -3]))
    assert devices.weight.tolist() == pytest.approx([0, -0.03, 0, 0, 0.02, 0])


def test_ideal_device_is_exact_and_unbounded() -> None:
    devices = IdealArray(4, IdealParameters(step=0.001), Chance(1, "ideal"))
    pulse(devices, torch.tensor([1, -1, 1_000_000, -7]))
    expected = torch.tensor([0.001, -0.001, 1000.0, -0.007])
    assert torch.equal(devices.weight, expected)
    devices.write(torch.tensor([5.0, -5.0, 0.0, 0.0]))
    assert devices.weight.tolist() == [5.0, -5.0, 0.0, 0.0]
