"""The symmetry point of step devices, and zero-shifting to it (Kim et al., arXiv:1907.10228)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from devicemodels import Chance, InputError, PulseEvents, load
from devicemodels.devices.step import (
    ExpStepParameters,
    LinearStepParameters,
    SoftBoundsParameters,
    StepArray,
    StepParameters,
)
from devicemodels.synapses.bipolar import SingleBipolar

#: Strongly imbalanced devices, on the mean (1.5) and each on its own (30 %); steps large enough
#: to settle soon.
IMBALANCED = {
    "dw_min": 0.005,
    "dw_min_dtod": 0.3,
    "dw_min_std": 0.0,
    "up_down": 1.5,
    "up_down_dtod": 0.3,
    "w_max": 0.6,
    "w_min": -0.6,
    "w_max_dtod": 0.2,
    "w_min_dtod": 0.2,
}
CURVE = {"A_up": 0.3, "A_down": 0.3, "gamma_up": 3.0, "gamma_down": 3.0, "a": 1.0, "b": 0.0}
KINDS: dict[str, tuple[type[StepParameters], dict[str, float]]] = {
    "soft-bounds": (SoftBoundsParameters, {}),
    "linear": (LinearStepParameters, {"slope_up": 1.2, "slope_down": 1.6}),
    "exponential": (ExpStepParameters, CURVE),
}


def synapse_of(
    kind: str, shape: tuple[int, int] = (40, 50), seed: int = 1, **changed: float
) -> SingleBipolar:
    parameters, constants = KINDS[kind]
    device = parameters(**IMBALANCED | constants | changed)
    chance = Chance(seed, "layer")
    devices = StepArray(shape[0] * shape[1], device, chance)
    return SingleBipolar(shape, devices, device.dw_min, chance)


def array_of(synapse: SingleBipolar) -> StepArray:
    assert isinstance(synapse.devices, StepArray)
    return synapse.devices


def steps_at(devices: StepArray, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the up and the down step of each device at ``w``, from pulses on a noiseless one."""
    index, moved = torch.arange(len(w)), []
    for sign in (1, -1):
        devices.weight.copy_(w)
        devices.pulse(index, torch.full_like(index, sign))
        moved.append(sign * (devices.weight - w).double())
    return moved[0], moved[1]


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_symmetry_point_up_and_down_step_are_equal(kind: str) -> None:
    """Every device with its point inside its bounds; measured with pulses, no noise, so exact
    but for float32 (states near 0.1 in steps of 0.005)."""
    devices = array_of(synapse_of(kind))
    point = devices.symmetry_point()
    inside = (point > devices.lower + 0.02) & (point < devices.upper - 0.02)
    assert inside.float().mean() > 0.8
    up, down = steps_at(devices, point)
    assert (up - down)[inside].abs().max() < 1e-7
    assert point.std() > 0.03


def test_soft_bounds_symmetry_point_in_closed_form() -> None:
    devices = array_of(synapse_of("soft-bounds"))
    up, down = devices.step_up.double(), devices.step_down.double()
    expected = (up - down) / (up / devices.upper - down / devices.lower)
    torch.testing.assert_close(devices.symmetry_point().double(), expected, rtol=0, atol=1e-6)


def test_a_device_larger_on_one_side_throughout_settles_at_that_bound() -> None:
    for ratio, bound in ((4.0, 0.2), (0.25, -0.2)):
        synapse = synapse_of(
            "linear", up_down=ratio, up_down_dtod=0.0, w_max=0.2, w_min=-0.2, w_max_dtod=0.0,
            w_min_dtod=0.0,
        )  # fmt: skip
        point = array_of(synapse).symmetry_point()
        torch.testing.assert_close(point, torch.full_like(point, bound))


@pytest.mark.parametrize("kind", KINDS)
def test_alternating_pulses_settle_at_the_symmetry_point(kind: str) -> None:
    """Without pulse noise, to half a step for every device: exact. The shift moves the devices
    far: the test fails if the reference stays where they began, at 0. Steps spread by 10 % only:
    a device with a step near 0 would need many more pulses."""
    synapse = synapse_of(kind, dw_min_dtod=0.1)
    devices = array_of(synapse)
    point = devices.symmetry_point()
    half = torch.maximum(devices.step_up, devices.step_down) / 2
    synapse.zero_shift(2_000)
    assert synapse.reference is not None
    assert ((synapse.reference - point).abs() <= half + 1e-6).all()
    assert (point.abs() > half).float().mean() > 0.9


def test_alternating_pulses_settle_with_the_spread_that_their_noise_has() -> None:
    """Soft bounds, 30 % cycle-to-cycle noise: the state is an autoregression around the point,
    relaxing by r = up/upper - down/lower a pair and kicked by 0.3 of each step (s at the point),
    so of variance 2 (0.3 s)^2 / (2 r). n = 10,000 devices, seed 3, steps 0.002.

    Divided by its own predicted deviation, a device's distance has mean 0 and deviation 1: 4.5
    standard errors (0.045, 0.032; false-alarm rate 7e-6 each) and 0.03 for higher orders (r is
    some 0.007). Devices that come closer by less than e^8 in these pulses, small steps, are left
    out."""
    n = 10_000
    synapse = synapse_of("soft-bounds", (100, 100), seed=3, dw_min=0.002, dw_min_std=0.3)
    devices = array_of(synapse)
    point = devices.symmetry_point().double()
    up, down = devices.step_up.double(), devices.step_down.double()
    rate = up / devices.upper - down / devices.lower
    size = up * (1 - point / devices.upper)
    synapse.zero_shift(3_000)
    assert synapse.reference is not None
    slow = rate * 3_000 < 8
    assert slow.float().mean() < 0.1
    off = ((synapse.reference - point) / (0.3 * size / rate.sqrt()))[~slow]
    assert abs(off.mean().item()) < 4.5 / math.sqrt(n) + 0.03
    assert abs(off.std().item() - 1) < 4.5 / math.sqrt(2 * n) + 0.03


def balanced_walk(synapse: SingleBipolar, rounds: int = 600) -> Tensor:
    """Return the mean weight of each device over the second half of ``rounds`` random pulses, up
    or down with equal chance, from weight 0; (size,) float64."""
    chance = torch.Generator().manual_seed(8)
    synapse.program(torch.zeros(synapse.shape), 0.0)
    total = torch.zeros(synapse.shape, dtype=torch.float64)
    for k in range(rounds):
        counts = torch.randint(0, 2, synapse.shape, generator=chance) * 2 - 1
        synapse.pulse(PulseEvents.from_counts(counts), 0.0)
        if k >= rounds // 2:
            total += synapse.weights(0.0)
    return (total / (rounds - rounds // 2)).view(-1)


def test_balanced_pulses_keep_a_shifted_weight_at_zero_and_drive_others_away() -> None:
    """2,000 soft-bounds devices, seed 5, 30 % noise a pulse. Shifted: the mean over the devices
    is within 4.5 standard errors of 0 (false-alarm rate 7e-6) and 0.002, the second order of a
    noisy reference. Not shifted: each device wanders to its symmetry point (mean and spread 0.1),
    so the mean is beyond fifty standard errors. Fails when the reference is not taken off
    the read, or devices are not programmed relative to it."""
    plain = synapse_of("soft-bounds", seed=5, dw_min_std=0.3)
    shifted = synapse_of("soft-bounds", seed=5, dw_min_std=0.3)
    point = array_of(plain).symmetry_point().double()
    shifted.zero_shift(400)
    kept, moved = balanced_walk(shifted), balanced_walk(plain)
    error = kept.std().item() / math.sqrt(len(kept))
    assert abs(kept.mean().item()) < 4.5 * error + 0.002
    assert moved.mean().item() > 0.8 * point.mean().item() > 0.06
    assert moved.mean().item() > 50 * error
    # Device by device too: what is left is the walk itself, far below the spread of the points.
    assert kept.std() < 0.5 * moved.std()
    assert torch.corrcoef(torch.stack([moved, point]))[0, 1] > 0.8
    assert torch.corrcoef(torch.stack([kept, point]))[0, 1].abs() < 0.15


def test_pulses_of_the_shift_are_counted_and_the_reference_is_saved() -> None:
    synapse, other = synapse_of("soft-bounds"), synapse_of("soft-bounds", seed=2)
    assert "reference" not in synapse.state_dict()
    synapse.zero_shift(7)
    assert (synapse.set_pulses, synapse.reset_pulses) == (7 * 2_000, 7 * 2_000)
    other.zero_shift(1)
    other.load_state_dict(synapse.state_dict())
    assert torch.equal(other.weights(0.0), synapse.weights(0.0))
    with pytest.raises(RuntimeError, match="reference"):
        synapse_of("soft-bounds").load_state_dict(synapse.state_dict())


def test_weights_are_read_and_programmed_from_the_reference() -> None:
    synapse = synapse_of("soft-bounds")
    synapse.zero_shift(500)
    assert synapse.reference is not None
    target = torch.full((40, 50), 0.05)
    synapse.program(target, 0.0)
    near = (synapse.weights(0.0) - target).abs() < 1e-6
    assert near.float().mean() > 0.95
    torch.testing.assert_close(
        synapse.conductances(0.0)["w"] - synapse.reference, synapse.weights(0.0).view(-1)
    )


def test_build_shifts_each_device_of_a_weight() -> None:
    model = load("softbounds").vary(up_down_dtod=0.4, dw_min=0.01)
    synapse = model.build((4, 5), Chance(1, "layer"), devices_per_weight=3, zero_shift=300)
    assert synapse.state_dict()["array.reference"].shape == (60,)
    assert synapse.set_pulses == synapse.reset_pulses == 60 * 300
    assert synapse.state_dict()["array.reference"].std() > 0.03


NONE: dict[str, str] = {
    "ideal": "ideal devices have no symmetry point",
    "gokmen2016": "constant steps .*no symmetry point.*soft-bounds",
    "nandakumar2018": "PCM pair has no symmetry point",
}


@pytest.mark.parametrize("name", NONE)
def test_devices_without_a_symmetry_point_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=NONE[name]) as caught:
        load(name).build((2, 3), Chance(1, "layer"), zero_shift=10)
    assert "\n" not in str(caught.value)


def test_a_flat_response_has_no_symmetry_point_either() -> None:
    with pytest.raises(InputError, match="no symmetry point"):
        array_of(synapse_of("linear", slope_up=0.0, slope_down=0.0)).symmetry_point()


@pytest.mark.parametrize("pairs", [-1, 2.5, "many", True])
def test_an_impossible_number_of_pulses_is_refused(pairs: object) -> None:
    with pytest.raises(InputError, match=r"^zero_shift = .*at least 0$"):
        load("softbounds").build((2, 3), Chance(1, "layer"), zero_shift=pairs)  # type: ignore[arg-type]


def test_no_pulses_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        synapse_of("soft-bounds").zero_shift(0)


def test_a_device_that_needs_no_shift_stays_at_zero() -> None:
    """A balanced device between equal bounds has its symmetry point at 0 already."""
    base = KINDS["soft-bounds"][0](**IMBALANCED)
    device = replace(base, up_down=1.0, up_down_dtod=0.0, w_max_dtod=0.0, w_min_dtod=0.0)
    devices = StepArray(100, device, Chance(1, "layer"))
    assert devices.symmetry_point().abs().max() < 1e-7
