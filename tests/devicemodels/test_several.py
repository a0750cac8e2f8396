"""Several devices a weight: the mean of the devices, and who takes which pulse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from devicemodels import Chance, InputError, PulseEvents, load
from devicemodels.synapses.pair import DifferentialPair
from devicemodels.synapses.several import SeveralDevices

SHAPE = (20, 30)
SIZE = 600


def several(name: str, number: int, selection: str | None = None, seed: int = 1) -> SeveralDevices:
    synapse = load(name).build(
        SHAPE, Chance(seed, "layer"), devices_per_weight=number, selection=selection
    )
    assert isinstance(synapse, SeveralDevices)
    return synapse


def steps(synapse: SeveralDevices) -> Tensor:
    """Return the pulses each ideal device has taken since weight 0, (number, SIZE), signed."""
    w = synapse.conductances(0.0)["w"].double() / synapse.array.granularity
    return w.round().long().view(synapse.number, SIZE)


def random_counts(seed: int) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    counts = torch.randint(-7, 8, (SIZE,), generator=chance)
    return counts * (torch.rand(SIZE, generator=chance) < 0.3)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_the_counter_deals_the_pulses_out_one_by_one(number: int) -> None:
    """Against a loop over single pulses, through ten updates: the counter goes on where it was."""
    synapse = several("ideal", number, "counter")
    expected, counter, sent = torch.zeros(number, SIZE, dtype=torch.int64), 0, 0
    for seed in range(10):
        events = PulseEvents.from_counts(random_counts(seed))
        for index, count in zip(events.index.tolist(), events.count.tolist(), strict=True):
            for _ in range(abs(count)):
                expected[counter, index] += 1 if count > 0 else -1
                counter = (counter + 1) % number
                sent += 1
        synapse.pulse(events, 0.0)
        assert torch.equal(steps(synapse), expected)
        assert synapse.counter == counter
    assert synapse.set_pulses + synapse.reset_pulses == sent


def test_all_devices_take_the_same_pulses() -> None:
    synapse, counts = several("ideal", 3, "all"), random_counts(0)
    synapse.pulse(PulseEvents.from_counts(counts), 0.0)
    assert torch.equal(steps(synapse), counts.expand(3, SIZE))
    assert synapse.set_pulses == 3 * int(counts.clamp(min=0).sum())
    assert synapse.reset_pulses == 3 * int((-counts).clamp(min=0).sum())


@pytest.mark.parametrize(("selection", "share"), [("all", 1), ("counter", 4)])
def test_granularity(selection: str, share: int) -> None:
    """One pulse on an ideal weight is one granularity, exactly."""
    synapse = several("ideal", 4, selection)
    assert synapse.granularity == pytest.approx(0.001 / share)
    synapse.pulse(PulseEvents(torch.tensor([5]), torch.tensor([1])), 0.0)
    assert synapse.weights(0.0).view(-1)[5].item() == pytest.approx(0.001 / share, rel=1e-6)


def test_pcm_devices_take_turns_and_bipolar_ones_act_together_unless_asked() -> None:
    assert several("nandakumar2018", 2).selection == "counter"
    assert several("gokmen2016", 2).selection == "all"
    assert several("ideal", 2).selection == "all"
    assert several("nandakumar2018", 2, "all").selection == "all"


def test_a_weight_is_the_mean_of_its_pairs_and_so_is_its_noise() -> None:
    """The same pairs as one tall array give the parts; PCM, drifted for an hour."""
    synapse = several("nandakumar2018", 3)
    synapse.fabricate()
    synapse.pulse(PulseEvents.from_counts(random_counts(3)), 10.0)
    tall = copy.deepcopy(synapse.array)
    assert isinstance(tall, DifferentialPair)
    assert tall.shape == (60, 30)
    parts = tall.weights(3_600.0).split(20)
    torch.testing.assert_close(synapse.weights(3_600.0), sum(parts) / 3)
    variances = tall.read_variance(3_600.0)
    assert variances is not None
    found = synapse.read_variance(3_600.0)
    assert found is not None
    expected = variances.float().view(3, 20, -1).sum(0) / 9
    assert torch.equal(found, expected.bfloat16())
    assert not torch.equal(parts[0], parts[1])


def test_devices_have_variations_of_their_own_that_the_mean_averages_out() -> None:
    """One pulse up on 600 weights of n = 1 and of n = 9 devices with 30 % spread of the step
    (device to device and cycle to cycle), seed 6. The spread of the step of a weight falls by 3;
    the ratio of two sample deviations is within 4.5 of its standard errors, 1/sqrt(600) = 0.041
    of itself: false-alarm rate 7e-6. Were the devices the same, the ratio would be 1."""
    spread = {}
    for n in (1, 9):
        synapse = load("gokmen2016").build(SHAPE, Chance(6, "layer"), devices_per_weight=n)
        synapse.pulse(PulseEvents.from_counts(torch.ones(SHAPE, dtype=torch.int64)), 0.0)
        spread[n] = synapse.weights(0.0).double().std().item()
    assert abs(spread[1] / spread[9] / 3 - 1) < 4.5 / 600**0.5


def test_program_and_fabricate_reach_every_device() -> None:
    synapse, target = several("nandakumar2018", 3), torch.linspace(-0.3, 0.3, SIZE).view(SHAPE)
    synapse.program(target, 5.0)
    for part in synapse.array.weights(5.0).split(20):
        torch.testing.assert_close(part, target)
    torch.testing.assert_close(synapse.weights(5.0), target)
    assert synapse.fabricate()
    assert (synapse.conductances(0.0)["G+"].view(3, -1).mean(1) > 1).all()
    assert not several("gokmen2016", 2).fabricate()


def test_refresh_rewrites_saturated_pairs_and_counts_them() -> None:
    """30 SET pulses on both sides of the first weight saturate its two pairs, no others."""
    synapse = several("nandakumar2018", 2, "all")
    for sign in (1, -1):
        synapse.pulse(PulseEvents(torch.tensor([0]), torch.tensor([sign * 30])), 1.0)
    assert synapse.refresh(1.0) == 2
    assert synapse.refreshes == synapse.array.refreshes == 2
    assert synapse.reset_pulses == 4
    assert synapse.refresh(1.0) == 0


def test_counters_are_those_of_the_array() -> None:
    """One number each: setting one through the synapse sets it where it is saved."""
    synapse = several("gokmen2016", 2)
    for number, name in enumerate(("set_pulses", "reset_pulses", "refreshes"), 5):
        setattr(synapse, name, number)
        assert getattr(synapse.array, name) == number
        assert [key for key in synapse.state_dict() if key.split(".")[-1] == name] == [
            f"array.{name}"
        ]


def test_one_random_stream_saved_once() -> None:
    synapse = several("gokmen2016", 2)
    assert synapse.chance is synapse.array.chance
    assert [key for key in synapse.state_dict() if "chance" in key] == [
        "array.chance.state", "array.chance.seeds"
    ]  # fmt: skip
    twin = copy.deepcopy(synapse)
    assert twin.chance is twin.array.chance
    assert twin.chance is not synapse.chance


def test_the_counter_is_saved() -> None:
    synapse, other = several("ideal", 5, "counter"), several("ideal", 5, "counter")
    synapse.pulse(PulseEvents(torch.tensor([0]), torch.tensor([-13])), 0.0)
    other.load_state_dict(synapse.state_dict())
    assert other.counter == 3


def test_one_device_a_weight_is_the_plain_synapse() -> None:
    synapse = load("ideal").build(SHAPE, Chance(1, "layer"), selection="counter")
    assert not isinstance(synapse, SeveralDevices)


@pytest.mark.parametrize("number", [0, -2, 1.5, True, "3"])
def test_an_impossible_number_of_devices_is_refused(number: object) -> None:
    with pytest.raises(InputError, match=r"^devices_per_weight = .*at least 1$"):
        load("ideal").build(SHAPE, Chance(1, "layer"), devices_per_weight=number)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [1, 2])
def test_an_unknown_selection_is_refused(number: int) -> None:
    with pytest.raises(InputError, match=r"^selection = 'conter': did you mean 'counter'"):
        load("ideal").build(
            SHAPE, Chance(1, "layer"), devices_per_weight=number, selection="conter"
        )
