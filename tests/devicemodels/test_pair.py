"""The differential PCM pair: routing, reading, cached drift, refresh, programming."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from devicemodels import Chance, PulseEvents, kernels, load
from devicemodels.devices.pcm import PCMParameters
from devicemodels.synapses.pair import DifferentialPair

BETA = 8.02
DAY_S = 86_400.0


def build(
    shape: tuple[int, int] = (4, 5), *without: str, seed: int = 1, **options: Any
) -> DifferentialPair:
    synapse = load("nandakumar2018").without(*without).build(shape, Chance(seed, "pair"), **options)
    assert isinstance(synapse, DifferentialPair)
    return synapse


def put(synapse: DifferentialPair, plus: Tensor, minus: Tensor, pulses: int = 10) -> None:
    """Put the devices at given undrifted conductances [µS], programmed at time 0."""
    synapse.program(torch.zeros(synapse.shape), 0.0)
    synapse.devices.conductance_us.copy_(torch.cat([plus, minus]))
    synapse.devices.pulses.fill_(pulses)


def random_events(size: int, generator: torch.Generator, part: float = 0.1) -> PulseEvents:
    counts = torch.randint(-2, 3, (size,), generator=generator)
    return PulseEvents.from_counts(counts * (torch.rand(size, generator=generator) < part))


# --- pulses ---------------------------------------------------------------------------------


def test_positive_events_pulse_g_plus_and_negative_ones_g_minus() -> None:
    synapse = build((2, 3))
    before = synapse.devices.conductance_us.clone()
    synapse.pulse(PulseEvents(torch.tensor([5, 0, 2]), torch.tensor([3, -2, 1])), 7.0)
    expected = [0, 0, 1, 0, 0, 3, 2, 0, 0, 0, 0, 0]
    assert synapse.devices.pulses.tolist() == expected
    pulsed = torch.tensor(expected) > 0
    assert torch.equal(synapse.devices.conductance_us != before, pulsed)
    assert synapse.devices.programmed_at_s.tolist() == [7.0 if n else 0.0 for n in expected]
    assert (synapse.set_pulses, synapse.reset_pulses, synapse.refreshes) == (6, 0, 0)


def test_counters_add_up() -> None:
    synapse, generator = build((10, 10)), torch.Generator().manual_seed(1)
    total = 0
    for _ in range(5):
        events = random_events(100, generator)
        total += events.total
        synapse.pulse(events, 0.0)
    assert synapse.set_pulses == total == int(synapse.devices.pulses.sum())


# --- reading --------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [BETA, 2.5])
@pytest.mark.parametrize("age_s", [0.0, DAY_S])
def test_weight_is_the_scaled_difference(beta: float, age_s: float) -> None:
    synapse = build((20, 10), beta=beta)
    synapse.fabricate()
    factor = max(age_s / 38.6, 1.0) ** -synapse.devices.exponent.double()
    plus, minus = (synapse.devices.conductance_us.double() * factor).view(2, 200)
    expected = ((plus - minus) / beta).view(20, 10).float()
    torch.testing.assert_close(synapse.weights(age_s), expected, rtol=0, atol=1e-5 / beta)
    assert synapse.granularity == pytest.approx(0.77 / beta)


def test_conductances_are_what_the_weight_is_made_of() -> None:
    synapse = build((3, 4))
    synapse.fabricate()
    parts = synapse.conductances(DAY_S)
    expected = (parts["G+"] - parts["G-"]) / BETA
    torch.testing.assert_close(synapse.weights(DAY_S).reshape(-1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("age_s", [0.0, DAY_S])
def test_read_variance_is_the_variance_of_reads(age_s: float) -> None:
    """50 pairs of different conductances, 4,000 reads each, seed 2.

    A sample variance of n Gaussians has relative standard error sqrt(2/(n-1)); each pair within
    5 of them and their mean within 4.5: false-alarm rate below 1e-4.
    """
    synapse, reads = build((1, 50), seed=2), 4_000
    put(synapse, torch.linspace(0.1, 12, 50), torch.linspace(6, 0.1, 50))
    plus, minus = torch.arange(50), torch.arange(50, 100)
    d = synapse.devices
    samples = torch.stack([d.read(age_s, plus) - d.read(age_s, minus) for _ in range(reads)])
    expected = synapse.read_variance(age_s)
    assert expected is not None
    ratio = (samples / BETA).double().var(0) / expected.view(-1).double()
    error = math.sqrt(2 / (reads - 1))
    assert (ratio - 1).abs().max().item() < 5 * error
    assert abs(ratio.mean().item() - 1) < 4.5 * error / math.sqrt(50)


def test_read_variance_formula() -> None:
    synapse = build((1, 2))
    put(synapse, torch.tensor([5.0, 0.1]), torch.tensor([1.0, 0.1]))
    expected = [((0.03 * g + 0.13) ** 2 + (0.03 * h + 0.13) ** 2) / BETA**2 for g, h in
                ((5.0, 1.0), (0.1, 0.1))]  # fmt: skip
    variance = synapse.read_variance(0.0)
    assert variance is not None
    # Rounded once to the eight bits of a bfloat16.
    assert variance.view(-1).tolist() == torch.tensor(expected).bfloat16().tolist()


def test_no_read_noise_no_variance() -> None:
    assert build((2, 2), "read-noise").read_variance(0.0) is None


# --- cached drift ---------------------------------------------------------------------------


def drift_times() -> list[float]:
    """Fine steps through the first ages, where drift is fastest, then ever coarser ones."""
    fine = [0.11 * k for k in range(1, 1_500)]
    coarse = np.geomspace(170, 1e6, 400).tolist()
    return [*fine, *coarse]


@pytest.mark.parametrize("tolerance", [1e-3, 1e-2])
def test_cached_weights_stay_within_the_drift_tolerance(tolerance: float) -> None:
    """Against the exact mode of the same seed, while pulses keep arriving.

    The error of each conductance is at most tolerance times itself; reads of the weight and of
    its variance carry both devices' errors.
    """
    cached = build((10, 20), drift_tolerance=tolerance)
    exact = build((10, 20), drift_tolerance=0.0)
    generator = torch.Generator().manual_seed(3)
    for synapse in (cached, exact):
        synapse.fabricate()
    for k, now_s in enumerate(drift_times()):
        if k % 3 == 0:
            events = random_events(200, generator, part=0.01)
            cached.pulse(events, now_s)
            exact.pulse(events, now_s)
        parts = exact.conductances(now_s)
        bound = tolerance * (parts["G+"] + parts["G-"]) / BETA + 1e-6
        truth = exact.weights(now_s)
        assert ((cached.weights(now_s) - truth).abs() <= bound.view(10, 20)).all(), now_s
        variance, true = cached.read_variance(now_s), exact.read_variance(now_s)
        assert variance is not None
        assert true is not None
        rounding = 1.01 * 2.0**-7  # each to the nearest bfloat16: neighbours at most
        assert (variance.float() / true.float() - 1).abs().max() <= 2 * tolerance + rounding, now_s
    assert torch.equal(cached.devices.conductance_us, exact.devices.conductance_us)


def test_weights_just_pulsed_are_read_at_once() -> None:
    synapse = build((1, 4), drift_tolerance=0.5)
    synapse.weights(0.0)
    synapse.pulse(PulseEvents(torch.tensor([2]), torch.tensor([4])), 1.0)
    parts = synapse.conductances(1.0)
    assert synapse.weights(1.0)[0, 2].item() == pytest.approx(
        (parts["G+"][2] - parts["G-"][2]).item() / BETA, rel=1e-5
    )


def test_a_loaded_state_reads_on_the_schedule_of_its_own_exponents() -> None:
    """A run resumed into a synapse built from another seed reads bit for bit what the unbroken
    one reads, although the steepest drift exponent differs."""
    unbroken, resumed = build(seed=1), build(seed=2)
    unbroken.fabricate()
    unbroken.weights(30.0)
    resumed.load_state_dict(unbroken.state_dict())
    for k in range(500):
        now_s = 40 + 0.01 * k
        assert torch.equal(unbroken.weights(now_s), resumed.weights(now_s)), now_s


# --- refresh --------------------------------------------------------------------------------


def test_refresh_selects_saturated_pairs_of_small_difference() -> None:
    """Above 8 µS on either side and less than 6 µS apart; exact without read noise."""
    pairs = {
        (8.01, 3.0): True,
        (3.0, 8.01): True,
        (8.5, 8.5): True,
        (12.0, 6.01): True,
        (7.99, 7.0): False,
        (7.0, 7.99): False,
        (9.0, 2.9): False,
        (2.9, 9.0): False,
        (12.0, 0.1): False,
        (0.1, 0.1): False,
    }
    synapse = build((1, len(pairs)), "read-noise")
    plus, minus = torch.tensor(list(pairs)).T
    put(synapse, plus, minus)
    chosen = list(pairs.values())
    assert synapse.refresh(1.0) == sum(chosen)
    rewritten = synapse.devices.programmed_at_s.view(2, -1)
    assert (rewritten == 1.0).tolist() == [chosen, chosen]
    kept = ~torch.tensor(chosen)
    after = synapse.devices.conductance_us.view(2, -1)
    assert torch.equal(after[:, kept], torch.stack([plus, minus])[:, kept])
    assert synapse.devices.pulses.view(2, -1)[:, kept].eq(10).all()


def test_refresh_counters() -> None:
    """Each refresh is two RESET pulses and at most three SET pulses, all of them counted."""
    synapse = build((1, 100), "read-noise")
    put(synapse, torch.full((100,), 9.0), torch.linspace(3.5, 9.0, 100))
    assert synapse.refresh(1.0) == 100
    assert synapse.refreshes == 100
    assert synapse.reset_pulses == 200
    pulses = synapse.devices.pulses.view(2, -1)
    assert synapse.set_pulses == int(pulses.sum()) > 0
    assert pulses[0].max() == 3
    assert pulses[0].min() == 0  # a pair without difference is only RESET
    assert pulses[1].max() == 0


def test_refresh_sends_the_number_of_pulses_whose_mean_comes_nearest() -> None:
    """The mean response rises by 1.825, 3.192 and 4.237 µS above RESET (physics.md section 2);
    just below and above the middle between two of them the number changes."""
    g, rises = 0.1, [0.0]
    for p in (1, 2, 3):
        g += -0.084 * g + 0.88 + 1.4 * math.exp(-p / 2.6)
        rises.append(g - 0.1)
    assert rises == pytest.approx([0.0, 1.825, 3.192, 4.237], abs=1e-3)
    middle = torch.tensor([(a + b) / 2 for a, b in pairwise(rises)])
    difference = torch.stack([middle - 0.02, middle + 0.02], dim=1).view(-1)
    synapse = build((1, 6), "read-noise")
    put(synapse, 9.0 - difference, torch.full((6,), 9.0))
    assert synapse.refresh(0.0) == 6
    assert synapse.devices.pulses.tolist() == [0] * 6 + [0, 1, 1, 2, 2, 3]


def test_refresh_decides_by_a_noisy_read() -> None:
    """At exactly 8 µS read noise decides: half of 10,000 pairs are refreshed.

    Binomial, standard deviation 50, seed 4, 4.5 standard deviations, false-alarm rate 7e-6.
    """
    synapse = build((100, 100), seed=4)
    put(synapse, torch.full((10_000,), 8.0), torch.full((10_000,), 5.0))
    assert abs(synapse.refresh(0.0) - 5_000) < 4.5 * 50


def test_refresh_decides_by_the_drifted_conductance() -> None:
    """A year lowers 9 µS to about 5.2 µS, which is no longer saturated."""
    synapse = build((10, 10), "read-noise")
    put(synapse, torch.full((100,), 9.0), torch.full((100,), 8.9))
    assert synapse.refresh(365 * DAY_S) == 0
    assert synapse.refresh(38.6) == 100


def test_refresh_is_a_no_op_where_nothing_is_saturated() -> None:
    """Nothing changes but the random stream, which the reads near the threshold advance."""
    synapse = build((20, 20))
    synapse.fabricate()
    synapse.weights(5.0)
    before = {name: value.clone() for name, value in synapse.state_dict().items()}
    assert synapse.refresh(5.0) == 0
    for name, value in synapse.state_dict().items():
        assert name.startswith("chance.") or torch.equal(value, before[name]), name


def written(difference: float, count: int, size: int, seed: int) -> np.ndarray:
    """Monte Carlo of physics.md section 2: G of one device after RESET and ``count`` SET pulses,
    less that of a device only RESET, with the sign of the difference."""
    chance = np.random.default_rng(seed)
    g, other = chance.normal(0.1, 0.01, (2, size))
    for p in range(1, count + 1):
        history = math.exp(-p / 2.6)
        mean = -0.084 * g + 0.88 + 1.4 * history
        std = 0.091 * g + 0.26 + 2.15 * history
        g = np.clip(g + mean + std * chance.standard_normal(size), 0.1, 12)
    return math.copysign(1, difference) * (g - other)


@pytest.mark.parametrize(
    ("difference", "count"), [(0.4, 0), (1.7, 1), (-1.9, 1), (3.0, 2), (-4.2, 3), (5.9, 3)]
)
def test_refresh_writes_the_difference_back(difference: float, count: int) -> None:
    """The new difference is distributed as the SET response says, and keeps the old one within
    its write noise and half a pulse.

    20,000 pairs against a Monte Carlo of 200,000, seeds 5 and 6; mean and std within 4.5 of
    their joint standard errors, false-alarm rate 7e-6 a number (kurtosis below 4).
    """
    size = 20_000
    synapse = build((100, 200), "read-noise", seed=5)
    high = torch.full((size,), 9.0)
    low = high - abs(difference)
    put(synapse, *((high, low) if difference > 0 else (low, high)))
    synapse.weights(1.0)
    assert synapse.refresh(1.0) == size
    plus, minus = synapse.devices.conductance_us.double().view(2, -1)
    found, expected = (plus - minus).numpy(), written(difference, count, 200_000, seed=6)
    error = math.sqrt(1 / size + 1 / 200_000)
    spread = expected.std()
    assert abs(found.mean() - expected.mean()) < 4.5 * spread * error
    assert abs(found.std() / spread - 1) < 4.5 * error
    torch.testing.assert_close(
        synapse.weights(1.0).view(-1).double(), (plus - minus) / BETA, rtol=0, atol=1e-6
    )
    reachable = min(abs(difference), 4.5)
    assert abs(found.mean() - math.copysign(reachable, difference)) < 1.0
    assert np.sign(found.mean()) == np.sign(difference) or count == 0


def test_refresh_lets_the_pair_learn_on() -> None:
    """The mean step at 12 µS is below zero; after the refresh it is a full one again."""
    synapse = build((1, 1), "read-noise", "write-noise")
    put(synapse, torch.tensor([12.0]), torch.tensor([11.0]))
    up = PulseEvents(torch.tensor([0]), torch.tensor([1]))
    before = synapse.weights(0.0).item()
    synapse.pulse(up, 0.0)
    assert synapse.weights(0.0).item() < before
    synapse.refresh(0.0)
    before = synapse.weights(0.0).item()
    synapse.pulse(up, 0.0)
    assert synapse.weights(0.0).item() > before + 0.05


# --- programming and fabrication ------------------------------------------------------------


def test_program_writes_the_weights() -> None:
    synapse = build((5, 6))
    target = torch.linspace(-1.4, 1.4, 30).view(5, 6)
    synapse.program(target, 100.0)
    torch.testing.assert_close(synapse.weights(100.0), target, rtol=0, atol=1e-6)
    assert synapse.devices.programmed_at_s.eq(100.0).all()
    plus, minus = synapse.devices.conductance_us.view(2, 5, 6)
    assert plus[target < 0].eq(0.1).all()
    assert minus[target > 0].eq(0.1).all()
    assert (synapse.set_pulses, synapse.reset_pulses) == (0, 0)


def test_program_stays_within_the_devices_bounds() -> None:
    synapse = build((1, 2))
    synapse.program(torch.tensor([[9.0, -9.0]]), 0.0)
    limit = (12.0 - 0.1) / BETA
    assert synapse.weights(0.0).view(-1).tolist() == pytest.approx([limit, -limit], rel=1e-5)


def test_program_of_a_device_that_resets_below_its_clip() -> None:
    """A RESET state below g_min (allowed in a file) must not shift the programmed weight."""
    model = load("nandakumar2018")
    assert isinstance(model.device, PCMParameters)
    model = replace(model, device=replace(model.device, reset_mean=0.0, g_min=0.5))
    synapse = model.build((1, 3), Chance(1, "pair"))
    target = torch.tensor([[0.5, -0.5, 0.0]])
    synapse.program(target, 0.0)
    torch.testing.assert_close(synapse.weights(0.0), target, rtol=0, atol=1e-6)


def test_fabricated_devices() -> None:
    """N(1.6, 0.83) µS clipped at 0.1 µS, which has mean 1.605 and std 0.814; one pulse seen.

    100,000 devices, seed 7; 4.5 standard errors, false-alarm rate 7e-6 a number.
    """
    synapse = build((100, 500), seed=7)
    assert synapse.fabricate()
    g = synapse.devices.conductance_us.double()
    reference = np.clip(np.random.default_rng(8).normal(1.6, 0.83, 4_000_000), 0.1, 12.0)
    error = math.sqrt(1 / 100_000 + 1 / 4_000_000)
    assert abs(g.mean().item() - reference.mean()) < 4.5 * reference.std() * error
    assert abs(g.std().item() / reference.std() - 1) < 4.5 * error
    assert g.min().item() == pytest.approx(0.1)
    assert synapse.devices.pulses.eq(1).all()
    assert synapse.weights(0.0).std() > 0.1


def test_fabrication_restarts_the_read_weights() -> None:
    synapse = build((3, 4))
    synapse.weights(0.0)
    synapse.fabricate()
    parts = synapse.conductances(0.0)
    expected = ((parts["G+"] - parts["G-"]) / BETA).view(3, 4)
    torch.testing.assert_close(synapse.weights(0.0), expected, rtol=0, atol=1e-6)


def test_what_may_be_saturated_is_known_without_looking_at_all() -> None:
    """After pulses, refreshes, a load and a write, the pairs known are those of a full look."""
    synapse, g = build((20, 30), seed=4), torch.Generator().manual_seed(1)
    synapse.fabricate()
    limits = (8 - 8 * 0.13) / (1 + 8 * 0.03), (2 - 8 * 0.13) / (1 + 8 * 0.03)
    candidates = synapse._candidates
    known, found, refreshed = 0, 0, 0
    for k in range(60):
        synapse.pulse(random_events(600, g, part=0.3 if k % 7 == 0 else 0.02), float(k))
        if k == 30:
            synapse.load_state_dict(build((20, 30), seed=5).state_dict())
        if k == 50:
            synapse.program(torch.zeros(20, 30), float(k))
        known += candidates._found is not None
        expected = kernels.high_pairs(synapse.devices.conductance_us, *limits)
        assert torch.equal(candidates.look(synapse.devices.conductance_us), expected), k
        found += len(expected)
        if k % 5 == 0:
            refreshed += synapse.refresh(float(k))
    assert refreshed >= 5
    assert found > 500
    assert known > 50


def test_every_pair_that_can_read_as_saturated_is_a_candidate() -> None:
    """Reads 7.9 standard deviations off in any direction, of 20,000 pairs, fresh and drifted: all
    that read as saturated are looked at, and not all of the others."""
    synapse, g = build((100, 200), seed=4), torch.Generator().manual_seed(1)
    devices, size = synapse.devices, 20_000
    devices.conductance_us.copy_(12 * torch.rand(2 * size, generator=g))
    devices.programmed_at_s.copy_(torch.where(torch.rand(2 * size, generator=g) < 0.5, 0.0, 99.0))
    candidates = torch.zeros(size, dtype=torch.bool)
    candidates[synapse._candidates.look(devices.conductance_us)] = True
    assert 0.3 < candidates.double().mean() < 0.8
    at_all = torch.zeros(size, dtype=torch.bool)
    for plus in (-7.9, 0.0, 7.9):
        for minus in (-7.9, 0.0, 7.9):
            normals = torch.tensor([[plus], [minus]]).repeat(1, size)
            found, _ = kernels.saturated_pairs(
                devices.conductance_us, devices.programmed_at_s, devices.exponent,
                torch.arange(size), 100.0, devices.physics, synapse.pair.refresh_above,
                synapse.pair.refresh_below, normals,
            )  # fmt: skip
            at_all[found] = True
    assert not (at_all & ~candidates).any()
    # No bound is so far off that it could be much nearer.
    assert at_all.sum() > 0.75 * candidates.sum()


def test_pulses_between_refreshes_are_not_kept_without_end() -> None:
    """Without a refresh nobody asks for them; with one, no more are held than pay."""
    synapse, g = build((20, 30), seed=4), torch.Generator().manual_seed(1)
    synapse.fabricate()
    for k in range(50):
        synapse.pulse(random_events(600, g, part=0.05), float(k))
    candidates = synapse._candidates
    assert candidates._pulsed == []
    synapse.refresh(50.0)
    held = []
    for k in range(50, 100):
        synapse.pulse(random_events(600, g, part=0.05), float(k))
        held.append(sum(map(len, candidates._pulsed or [])))
    assert 0 < max(held) <= 600 // 8
    assert held[-1] == 0
