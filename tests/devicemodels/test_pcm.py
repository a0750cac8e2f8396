"""PCM devices against physics.md section 2 (J. Appl. Phys. 124, 152135, 2018)."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from devicemodels import NONIDEALITIES, Chance, InputError, kernels, load
from devicemodels.devices.pcm import PCMArray, PCMParameters

#: Monte Carlo of the SET response, clip [0.1, 20] µS: pulse -> (mean, std) [µS], 2 decimals.
SET_TABLE = {
    1: (2.06, 1.52),
    2: (3.44, 1.97),
    3: (4.47, 2.19),
    4: (5.28, 2.32),
    5: (5.92, 2.38),
    8: (7.24, 2.44),
    10: (7.83, 2.46),
    15: (8.80, 2.55),
    20: (9.40, 2.67),
}
ROUNDING = 0.005
MANY = 200_000
DAY_S = 86_400.0


def parameters(**changed: float) -> PCMParameters:
    device = load("nandakumar2018").device
    assert isinstance(device, PCMParameters)
    return replace(device, **changed)


def array(size: int, p: PCMParameters, seed: int = 1) -> PCMArray:
    return PCMArray(size, p, Chance(seed, "pcm"))


def pulse(devices: PCMArray, pulses: int = 1, now_s: float = 0.0) -> None:
    """Send SET pulses to every device."""
    size = len(devices.pulses)
    devices.set(torch.arange(size), torch.full((size,), pulses), now_s)


def standard_errors(sample: Tensor) -> tuple[float, float]:
    """Return the standard errors of the mean and of the standard deviation, any distribution."""
    x = sample.double() - sample.double().mean()
    variance = x.square().mean().item()
    fourth = x.pow(4).mean().item()
    n = len(x)
    return math.sqrt(variance / n), math.sqrt((fourth - variance**2) / (4 * variance * n))


def one_pulse(p: PCMParameters, g: float, number: int, normal: float) -> float:
    """Return the step [µS] of pulse ``number`` since RESET at conductance g, for one normal."""
    state = torch.tensor([g])
    done = torch.tensor([number - 1], dtype=torch.int32)
    only, once = torch.tensor([0]), torch.tensor([1])
    kernels.set_pulses(state, done, only, once, torch.tensor([normal]), p)
    assert done.item() == number
    return state.item() - g


# --- SET ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("g_max", "table"), [(20.0, SET_TABLE), (12.0, {20: (8.91, 1.97)})], ids=["clip20", "clip12"]
)
def test_set_table(g_max: float, table: dict[int, tuple[float, float]]) -> None:
    """Mean and std after n pulses from RESET are the table's, within 3 standard errors.

    200,000 devices, seed 1; half a unit of the table's rounding is added. False-alarm rate below
    0.3 % a number (rounding widens most bounds to 4 standard errors).
    """
    devices = array(MANY, parameters(g_max=g_max), seed=1)
    for n in range(1, 21):
        pulse(devices)
        if n in table:
            g = devices.conductance_us.double()
            mean, std = table[n]
            of_mean, of_std = standard_errors(g)
            assert abs(g.mean().item() - mean) < 3 * of_mean + ROUNDING, n
            assert abs(g.std().item() - std) < 3 * of_std + ROUNDING, n


@pytest.mark.parametrize("number", [1, 2, 4, 8, 50])
@pytest.mark.parametrize("g", [0.2, 3.0, 6.0, 9.0])
def test_step_is_the_published_function_of_g_and_pulse_number(g: float, number: int) -> None:
    """The normals 0, 1, -1 expose the mean and the spread of a step exactly."""
    wide = parameters(g_min=0.0, g_max=100.0)
    history = math.exp(-number / 2.6)
    mean = -0.084 * g + 0.880 + 1.40 * history
    std = 0.091 * g + 0.260 + 2.15 * history
    assert one_pulse(wide, g, number, 0.0) == pytest.approx(mean, abs=1e-5)
    assert one_pulse(wide, g, number, 1.0) == pytest.approx(mean + std, abs=1e-5)
    if g + mean > std:
        assert one_pulse(wide, g, number, -1.0) == pytest.approx(mean - std, abs=1e-5)


@pytest.mark.parametrize(("g", "number"), [(8.0, 1), (8.0, 4), (12.0, 2), (2.0, 30)])
def test_devices_draw_the_step_independently(g: float, number: int) -> None:
    """100,000 devices, seed 2; 4.5 standard errors, false-alarm rate 7e-6 a number.

    At these G the lower clip is at least 3.3 standard deviations away.
    """
    devices = array(100_000, parameters(g_max=100.0), seed=2)
    devices.conductance_us.fill_(g)
    devices.pulses.fill_(number - 1)
    pulse(devices)
    step = devices.conductance_us - g
    history = math.exp(-number / 2.6)
    of_mean, of_std = standard_errors(step)
    mean, std = -0.084 * g + 0.88 + 1.4 * history, 0.091 * g + 0.26 + 2.15 * history
    assert abs(step.mean().item() - mean) < 4.5 * of_mean
    assert abs(step.std().item() - std) < 4.5 * of_std
    # Neighbours are uncorrelated: the correlation of n pairs has standard error 1/sqrt(n).
    pairs = step.view(-1, 2).T
    assert abs(torch.corrcoef(pairs)[0, 1].item()) < 4.5 / math.sqrt(50_000)


def test_conductance_stays_within_its_bounds_and_reaches_the_upper() -> None:
    devices = array(2_000, parameters(), seed=3)
    for _ in range(60):
        pulse(devices)
        g = devices.conductance_us
        assert g.min() >= torch.tensor(0.1)
        assert g.max() <= 12.0
    assert (g == 12.0).any()


def test_several_pulses_at_once_are_the_same_pulses_one_by_one() -> None:
    """Without noise exactly; the count is kept per device and only for the pulsed devices."""
    p = parameters().without("write-noise")
    together, apart = array(4, p), array(4, p)
    count = torch.tensor([5, 1, 3])
    together.set(torch.tensor([0, 1, 3]), count, 0.0)
    for k in range(5):
        live = torch.tensor([0, 1, 3])[count > k]
        apart.set(live, torch.ones_like(live), 0.0)
    assert together.pulses.tolist() == apart.pulses.tolist() == [5, 1, 0, 3]
    torch.testing.assert_close(together.conductance_us, apart.conductance_us, rtol=1e-6, atol=0)
    expected = p.mean_set_response(5)
    for device, n in enumerate((5, 1, 0, 3)):
        assert together.conductance_us[device].item() == pytest.approx(expected[n], rel=1e-5)


# --- RESET ----------------------------------------------------------------------------------


def test_reset_leaves_low_conductance_and_no_history() -> None:
    """RESET gives N(0.1, 0.01) µS and p = 0, for the named devices only.

    100,000 devices, seed 4; 4.5 standard errors, false-alarm rate 7e-6 a number.
    """
    devices = array(100_002, parameters(), seed=4)
    pulse(devices, 7)
    untouched = devices.conductance_us[-2:].clone()
    devices.reset(torch.arange(100_000), 50.0)
    g = devices.conductance_us[:-2]
    of_mean, of_std = standard_errors(g)
    assert abs(g.double().mean().item() - 0.1) < 4.5 * of_mean
    assert abs(g.double().std().item() - 0.01) < 4.5 * of_std
    assert devices.pulses[:-2].eq(0).all()
    assert devices.programmed_at_s[:-2].eq(50.0).all()
    assert torch.equal(devices.conductance_us[-2:], untouched)
    assert devices.pulses[-2:].tolist() == [7, 7]
    assert devices.programmed_at_s[-2:].tolist() == [0.0, 0.0]


def test_reset_restarts_the_history() -> None:
    """After RESET a first pulse is again the large first pulse of the table."""
    p = parameters().without("write-noise")
    devices = array(1, p)
    pulse(devices, 20)
    devices.reset(torch.tensor([0]), 0.0)
    pulse(devices)
    assert devices.conductance_us.item() == pytest.approx(p.mean_set_response(1)[1], rel=1e-5)


# --- drift ----------------------------------------------------------------------------------


@pytest.mark.parametrize("age_s", [38.6, 39.0, 77.2, 3600.0, DAY_S, 365 * DAY_S])
def test_drift_factor(age_s: float) -> None:
    """G(t) = G ((t - t_p)/T0)^-nu with each device's own nu, T0 = 38.6 s."""
    devices = array(500, parameters(), seed=5)
    pulse(devices, 3, now_s=1000.0)
    exponent = devices.exponent.double()
    expected = devices.conductance_us.double() * (age_s / 38.6) ** -exponent
    drifted = devices.conductance(1000.0 + age_s).double()
    torch.testing.assert_close(drifted, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("age_s", [0.0, 1e-6, 1.0, 38.6])
def test_no_drift_up_to_t0(age_s: float) -> None:
    devices = array(500, parameters(), seed=5)
    pulse(devices, 3, now_s=1000.0)
    assert torch.equal(devices.conductance(1000.0 + age_s), devices.conductance_us)


def test_every_pulse_restarts_drift_and_acts_on_the_undrifted_conductance() -> None:
    p = parameters().without("write-noise")
    devices = array(3, p)
    pulse(devices, 2, now_s=0.0)
    assert (devices.conductance(DAY_S) < 0.9 * devices.conductance_us).all()
    devices.set(torch.tensor([1]), torch.tensor([1]), DAY_S)
    g = devices.conductance_us
    assert devices.programmed_at_s.tolist() == [0.0, DAY_S, 0.0]
    assert g[1].item() == pytest.approx(p.mean_set_response(3)[3], rel=1e-5)
    now = devices.conductance(DAY_S)
    assert now[1] == g[1]
    assert now[0] < 0.9 * g[0]


def test_drift_exponents_differ_between_devices() -> None:
    """nu ~ N(0.04, 0.01), one a device, for good. 100,000 devices, seed 6; 4.5 standard errors,
    false-alarm rate 7e-6 a number. The cut at 0 is 4 standard deviations away."""
    devices = array(100_000, parameters(), seed=6)
    nu = devices.exponent.clone()
    of_mean, of_std = standard_errors(nu)
    assert abs(nu.double().mean().item() - 0.04) < 4.5 * of_mean
    assert abs(nu.double().std().item() - 0.01) < 4.5 * of_std
    pulse(devices, 2, now_s=10.0)
    devices.reset(torch.arange(50_000), 20.0)
    assert torch.equal(devices.exponent, nu)
    wide = array(10_000, parameters(nu_std=0.1), seed=6)
    assert wide.exponent.min() == 0.0


# --- reading --------------------------------------------------------------------------------


def test_read_noise() -> None:
    """std = 0.03 G + 0.13 µS about the drifted G. 60,000 devices per level, seed 7; 4.5 standard
    errors, false-alarm rate 7e-6 a number."""
    levels = torch.tensor([0.1, 4.0, 12.0])
    devices = array(180_000, parameters(nu_mean=0.05, nu_std=0.0), seed=7)
    devices.conductance_us.copy_(levels.repeat_interleave(60_000))
    for now_s, factor in ((0.0, 1.0), (DAY_S, (DAY_S / 38.6) ** -0.05)):
        read = devices.read(now_s).view(3, -1).double()
        for g, sample in zip((levels * factor).tolist(), read, strict=True):
            of_mean, of_std = standard_errors(sample)
            assert abs(sample.mean().item() - g) < 4.5 * of_mean
            assert abs(sample.std().item() - (0.03 * g + 0.13)) < 4.5 * of_std


def test_read_noise_is_fresh_and_reading_leaves_the_state_alone() -> None:
    """Two reads of one device share no noise: correlation of 20,000 noises below 4.5 standard
    errors (seed 8, false-alarm rate 7e-6)."""
    devices = array(20_000, parameters(), seed=8)
    pulse(devices, 3)
    state = {name: value.clone() for name, value in devices.state_dict().items()}
    g = devices.conductance(DAY_S)
    first, second = devices.read(DAY_S) - g, devices.read(DAY_S) - g
    assert not (first == second).any()
    noises = torch.stack([first, second])
    assert abs(torch.corrcoef(noises)[0, 1].item()) < 4.5 / math.sqrt(20_000)
    for name, value in devices.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_reading_some_devices() -> None:
    devices = array(10, parameters().without("read-noise"), seed=9)
    pulse(devices)
    some = torch.tensor([7, 2])
    assert torch.equal(devices.read(DAY_S, some), devices.conductance(DAY_S)[some])


# --- ablations ------------------------------------------------------------------------------


def fingerprint(p: PCMParameters) -> dict[str, float]:
    """Return one number an effect; 0 when the effect is absent."""
    p = replace(p, g_max=100.0)
    devices = array(1_000, p, seed=10)
    low, late = devices.conductance_us.clone(), 200

    def spread(number: int) -> float:
        return one_pulse(p, 6.0, number, 1.0) - one_pulse(p, 6.0, number, 0.0)

    pulse(devices, 3)
    return {
        "nonlinearity": one_pulse(p, 3.0, late, 0.0) - one_pulse(p, 9.0, late, 0.0),
        "history of the mean": one_pulse(p, 6.0, 1, 0.0) - one_pulse(p, 6.0, late, 0.0),
        "history of the spread": spread(1) - spread(late),
        "write noise": spread(late),
        "RESET noise": low.std().item(),
        "read noise": (devices.read(0.0) - devices.conductance_us).std().item(),
        "drift": (1 - devices.conductance(DAY_S) / devices.conductance_us).mean().item(),
        "drift spread": devices.exponent.std().item(),
    }


#: What each ablation takes away. Write noise that is off has no history either.
REMOVES = {
    "nonlinearity": {"nonlinearity"},
    "history": {"history of the mean", "history of the spread"},
    "write-noise": {"write noise", "RESET noise", "history of the spread"},
    "read-noise": {"read noise"},
    "drift": {"drift", "drift spread"},
}


def test_every_ablation_is_covered() -> None:
    assert set(REMOVES) == set(NONIDEALITIES)
    assert all(abs(value) > 1e-3 for value in fingerprint(parameters()).values())


@pytest.mark.parametrize("name", NONIDEALITIES)
def test_ablation_removes_its_effect_and_no_other(name: str) -> None:
    full, ablated = fingerprint(parameters()), fingerprint(parameters().without(name))
    for effect, value in ablated.items():
        if effect in REMOVES[name]:
            assert value == pytest.approx(0.0, abs=2e-6), effect
        elif effect in ("read noise", "drift"):  # these depend on the conductances drawn
            assert value == pytest.approx(full[effect], rel=0.3), effect
        else:
            assert value == pytest.approx(full[effect], rel=1e-4), effect


def test_linear_device_steps_by_the_mean_step_everywhere() -> None:
    p = replace(parameters().without("nonlinearity", "history"), g_max=100.0)
    for g in (0.1, 3.0, 11.0):
        for number in (1, 2, 50):
            assert one_pulse(p, g, number, 0.0) == pytest.approx(0.77, abs=1e-5)


def test_ablations_combine_and_leave_bounds_and_pair_alone() -> None:
    p = parameters()
    nothing = p.without(*NONIDEALITIES)
    assert all(abs(v) < 2e-6 for v in fingerprint(nothing).values())
    kept = ("mean_step", "g_min", "g_max", "t0_s", "reset_mean", "a")
    assert all(asdict(nothing)[key] == asdict(p)[key] for key in kept)
    assert p.without() == p


def test_unknown_ablation_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'write-noise'"):
        parameters().without("writenoise")
