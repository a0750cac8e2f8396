"""What every synapse must do, whatever its devices: one suite over all device types, alone and
several a weight.

Each model is a shipped file, or made here where none ships.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from devicemodels import Chance, DeviceModel, PulseEvents, Synapse, kernels, load
from devicemodels.devices.step import (
    ExpStepParameters,
    LinearStepParameters,
    SoftBoundsParameters,
    StepParameters,
)
from devicemodels.devices.table import TableParameters
from devicemodels.library import DEVICE_TYPES

SHAPE = (20, 30)
SIZE = 600


def variant(device_type: str, kind: type[StepParameters], **constants: float) -> DeviceModel:
    """Return the 2016 RPU baseline with another response."""
    base = load("gokmen2016")
    device = kind(**vars(base.device), **constants)
    return replace(base, name=device_type, device_type=device_type, device=device, text="")


def tabled() -> DeviceModel:
    """Return two tables of noisy steps of about 0.01, which fall by half from end to end."""
    up = [[[0.5 * k, 0.0], [1.5 * k, 0.5 * k], [2.5 * k, 1.0 * k]] for k in (0.01, 0.012)]
    down = [[[-x for x in reversed(row)] for row in reversed(table)] for table in up]
    device = TableParameters(
        granularity=0.011, states=[-1.0, 1.0], fractions=[0.0, 0.5, 1.0], change_up=up,
        change_down=down,
    )  # fmt: skip
    base = load("gokmen2016")
    return replace(base, name="table", device_type="table", device=device, text="")


MODELS = {
    "pcm": load("nandakumar2018"),
    "constant-step": load("gokmen2016"),
    "linear-step": variant("linear-step", LinearStepParameters, slope_up=0.5, slope_down=0.5),
    "soft-bounds": variant("soft-bounds", SoftBoundsParameters),
    "exponential-step": variant(
        "exponential-step", ExpStepParameters, A_up=0.00081, A_down=0.36833,
        gamma_up=12.44625, gamma_down=12.78785, a=0.244, b=0.2425,
    ),
    "table": tabled(),
    "ideal": load("ideal"),
}  # fmt: skip
#: Other synapses of these devices: the model, and what `DeviceModel.build` is asked for.
ARRANGED: dict[str, tuple[str, dict[str, Any]]] = {
    "pcm, 3 in turn": ("pcm", {"devices_per_weight": 3}),
    "pcm, 2 alike": ("pcm", {"devices_per_weight": 2, "selection": "all"}),
    "constant-step, 3 alike": ("constant-step", {"devices_per_weight": 3}),
    "ideal, 2 in turn": ("ideal", {"devices_per_weight": 2, "selection": "counter"}),
    "soft-bounds, shifted": ("soft-bounds", {"zero_shift": 100}),
    "soft-bounds, shifted, 2 in turn": (
        "soft-bounds",
        {"zero_shift": 100, "devices_per_weight": 2, "selection": "counter"},
    ),
}
every_device = pytest.mark.parametrize("device", [*MODELS, *ARRANGED])


def make(device: str, shape: tuple[int, int], chance: Chance) -> Synapse:
    kind, options = ARRANGED.get(device, (device, {}))
    return MODELS[kind].build(shape, chance, **options)


def pulses_of(synapse: Synapse) -> int:
    return synapse.set_pulses + synapse.reset_pulses


def takers(device: str) -> int:
    """Return how many devices or pairs take each pulse."""
    return {"pcm, 2 alike": 2, "constant-step, 3 alike": 3}.get(device, 1)


def test_suite_covers_every_device_type() -> None:
    """Add a model of a new device type to MODELS: then it is held to this suite."""
    assert set(MODELS) == set(DEVICE_TYPES)
    for device_type, model in MODELS.items():
        assert model.device_type == device_type
        assert type(model.device) is DEVICE_TYPES[device_type]


def build(device: str, seed: int = 1, shape: tuple[int, int] = SHAPE) -> Synapse:
    """Return a synapse as training would find it: fabricated, or at weights around zero."""
    synapse = make(device, shape, Chance(seed, "layer"))
    if not synapse.fabricate():
        synapse.program(torch.linspace(-0.05, 0.05, shape[0] * shape[1]).view(shape), 0.0)
    return synapse


def state(synapse: Synapse) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in synapse.state_dict().items()}


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def train(synapse: Synapse, seed: int = 0, start_s: float = 0.0) -> list[Tensor]:
    """Send pulses at irregular times for some minutes; return the weights read after each."""
    chance = torch.Generator().manual_seed(seed)
    reads, now_s = [], start_s
    for _ in range(40):
        now_s += 20 * float(torch.rand(1, generator=chance)) ** 4
        counts = torch.randint(-4, 5, (SIZE,), generator=chance)
        counts *= torch.rand(SIZE, generator=chance) < 0.2
        synapse.pulse(PulseEvents.from_counts(counts), now_s)
        synapse.refresh(now_s)
        reads.append(synapse.weights(now_s).clone())
    return reads


@every_device
def test_shapes_dtypes_and_finite_weights(device: str) -> None:
    synapse = build(device)
    for weights in (synapse.weights(0.0), *train(synapse)):
        assert weights.shape == SHAPE
        assert weights.dtype == torch.float32
        assert weights.isfinite().all()
    late = synapse.weights(1e8)
    assert late.isfinite().all()
    variance = synapse.read_variance(1e8)
    if variance is not None:
        assert variance.shape == SHAPE
        assert variance.isfinite().all()
        assert (variance > 0).all()
    for values in synapse.conductances(1e8).values():
        options = ARRANGED.get(device, (device, {}))[1]
        assert values.numel() == SIZE * options.get("devices_per_weight", 1)
        assert values.isfinite().all()


@every_device
def test_empty_events_do_nothing(device: str) -> None:
    synapse = build(device)
    train(synapse)
    before = state(synapse)
    synapse.pulse(PulseEvents.from_counts(torch.zeros(SHAPE, dtype=torch.int64)), 5_000.0)
    assert_same_state(state(synapse), before)


@every_device
def test_reading_does_not_change_the_devices(device: str) -> None:
    """Nor the random stream; only the cache of a synapse may change."""
    synapse = build(device)
    train(synapse)
    before = state(synapse)
    for now_s in (5_000.0, 1e6):
        synapse.weights(now_s)
        synapse.read_variance(now_s)
        synapse.conductances(now_s)
    for name, value in state(synapse).items():
        if "devices." in name or "chance." in name:
            assert torch.equal(value, before[name]), name


@every_device
def test_events_move_the_weights_in_the_mean_as_their_sign_says(device: str) -> None:
    """Half of 5,000 weights up, half down, 3 pulses each, seed 2.

    Each half's mean change is beyond 4.5 of its standard errors on its side of 0: a synapse that
    does nothing or confuses the signs fails, a right one never.
    """
    synapse = build(device, seed=2, shape=(50, 100))
    before, sent = synapse.weights(1.0).clone().view(-1), pulses_of(synapse)
    counts = torch.tensor([3, -3]).repeat(2_500)
    synapse.pulse(PulseEvents.from_counts(counts), 1.0)
    change = (synapse.weights(1.0).view(-1) - before).double()
    for sign in (1, -1):
        half = sign * change[counts * sign > 0]
        assert half.mean() > 4.5 * half.std() / 50
        assert half.mean() > 0
    assert pulses_of(synapse) - sent == 3 * 5_000 * takers(device)


@every_device
def test_events_of_one_weight_act_in_their_order(device: str) -> None:
    """A list with repeats does what its parts do one after the other, in distribution.

    From some way up, far down and half way back: a bipolar device that meets its lower bound, or
    whose steps shrink, ends elsewhere if the order is lost. 5,000 weights each way, seeds 2 and 3:
    means and variances within 5 standard errors (false alarm 1.2e-6). The counters are exact.
    """
    parts = [(12, 1), (900, -1), (300, 1)]
    size = 5_000
    everyone = torch.arange(size)
    ends, sent = [], []
    for together, seed in ((True, 2), (False, 3)):
        synapse = build(device, seed=seed, shape=(50, 100))
        before = pulses_of(synapse)
        events = [PulseEvents(everyone, torch.full((size,), n * sign)) for n, sign in parts]
        if together:
            index, count = (torch.cat([getattr(e, v) for e in events]) for v in ("index", "count"))
            # Any order among the weights, that of each weight's own kept.
            mixed = torch.arange(3 * size).view(3, size).T.reshape(-1)
            synapse.pulse(PulseEvents(index[mixed], count[mixed], repeats=True), 1.0)
        else:
            for event in events:
                synapse.pulse(event, 1.0)
        ends.append(synapse.weights(1.0).double().view(-1))
        sent.append(pulses_of(synapse) - before)
    assert sent[0] == sent[1] == sum(n for n, _ in parts) * size * takers(device)
    moments = [(w.mean(), w.var(), ((w - w.mean()) ** 2).var()) for w in ends]
    (mean, var, fourth), (mean_apart, var_apart, fourth_apart) = moments
    assert abs(mean - mean_apart) <= 5 * ((var + var_apart) / size).sqrt() + 1e-6
    assert abs(var - var_apart) <= 5 * ((fourth + fourth_apart) / size).sqrt() + 1e-6


@every_device
def test_only_pulsed_weights_change(device: str) -> None:
    synapse = build(device)
    before = synapse.weights(1.0).clone().view(-1)
    index = torch.tensor([599, 3, 30, 401])
    synapse.pulse(PulseEvents(index, torch.tensor([5, -5, 4, 2])), 1.0)
    changed = (synapse.weights(1.0).view(-1) != before).nonzero().view(-1)
    assert changed.tolist() == [3, 30, 401, 599]


@every_device
def test_program_sets_the_weights(device: str) -> None:
    synapse = build(device)
    train(synapse)
    target = torch.linspace(0.04, -0.04, SIZE).view(SHAPE)
    counters = (synapse.set_pulses, synapse.reset_pulses, synapse.refreshes)
    synapse.program(target, 1e4)
    # A device whose own bound happens to lie within 0.04 may fall short (2 % of step devices).
    near = (synapse.weights(1e4) - target).abs() < 1e-6
    assert near.float().mean() > 0.95
    assert (synapse.set_pulses, synapse.reset_pulses, synapse.refreshes) == counters


@every_device
def test_a_synapse_is_a_module_like_any_other(device: str) -> None:
    """No name of torch's Module is hidden: apply() and parameters() work, and nothing in a
    synapse is for gradients to train."""
    model, seen = torch.nn.Sequential(build(device)), []
    model.apply(lambda module: seen.append(type(module).__name__))
    assert len(seen) == len(list(model.modules()))
    assert not list(model.parameters())
    assert all(not list(module.parameters()) for module in model.modules())


@every_device
def test_state_dict_restores_bit_for_bit(device: str) -> None:
    """Into a synapse of another seed and history: state, counters and chance, so that all that
    follows is equal too."""
    unbroken, resumed = build(device, seed=1), build(device, seed=2)
    train(unbroken)
    train(resumed, seed=9)
    saved = state(unbroken)
    assert unbroken.set_pulses > 0
    assert unbroken.refreshes > 0 or not device.startswith("pcm")
    resumed.load_state_dict(saved)
    assert_same_state(state(resumed), saved)
    for name in ("set_pulses", "reset_pulses", "refreshes"):
        assert getattr(resumed, name) == getattr(unbroken, name)
        assert type(getattr(resumed, name)) is int
    expected = train(unbroken, seed=3, start_s=1_000.0)
    found = train(resumed, seed=3, start_s=1_000.0)
    assert all(map(torch.equal, found, expected))
    assert_same_state(state(resumed), state(unbroken))


@every_device
def test_state_dict_lacking_a_part_is_refused(device: str) -> None:
    """A checkpoint without counters or random state must not load in silence."""
    synapse = build(device)
    for name in synapse.state_dict():
        saved = state(synapse)
        del saved[name]
        with pytest.raises(RuntimeError, match=name):
            synapse.load_state_dict(saved)


@every_device
def test_counters_hold_large_numbers(device: str) -> None:
    """A pulse count above 2^24 is exact after a checkpoint (float32 would round it)."""
    synapse, other = build(device), build(device)
    synapse.set_pulses = 2**40 + 1
    other.load_state_dict(synapse.state_dict())
    assert other.set_pulses == 2**40 + 1


@every_device
def test_deepcopy_is_equal_and_independent(device: str) -> None:
    synapse = build(device)
    train(synapse)
    before = state(synapse)
    twin = copy.deepcopy(synapse)
    assert_same_state(state(twin), before)
    moved = train(twin, seed=3, start_s=1_000.0)
    assert_same_state(state(synapse), before)
    assert all(map(torch.equal, moved, train(synapse, seed=3, start_s=1_000.0)))


@every_device
@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casting_a_model_leaves_device_state_alone(device: str, cast: str) -> None:
    """model.half() would round conductances and times; within a larger model too."""
    synapse = build(device)
    train(synapse)
    before = state(synapse)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), synapse)
    model.half() if cast == "half" else model.to(getattr(torch, cast))
    assert model[0].weight.dtype != torch.float32
    assert_same_state(state(synapse), before)
    train(synapse, start_s=1_000.0)


@every_device
def test_seed_decides(device: str) -> None:
    """The same seed gives the same devices and pulses; another seed, or another layer's name,
    gives others (but an ideal device has no chance in it)."""
    first, again = train(build(device)), train(build(device))
    assert all(map(torch.equal, first, again))
    other_seed = train(build(device, seed=2))
    elsewhere = make(device, SHAPE, Chance(1, "another layer"))
    elsewhere.fabricate()
    for other in (other_seed, train(elsewhere)):
        if not device.startswith("ideal"):
            assert not torch.equal(first[0], other[0])
            assert not torch.equal(first[-1], other[-1])


#: How far the mean step from the usual state may be from the granularity, beyond chance. A PCM
#: pair's differs with its history; exponential-step's is (1 - A exp(g z)) at w = 0; after zero
#: shifting, w = 0 is wherever the noise of the pulses left the device, some steps off its own 0.
SLACK = {"pcm": 1.0, "exponential-step": 0.02, "soft-bounds, shifted": 0.01}


@every_device
def test_granularity_is_the_mean_step(device: str) -> None:
    """One pulse up on half of 20,000 weights, down on the others, from weight 0, seed 4.

    Exact for the ideal device, within 5 standard errors and the SLACK else (false-alarm rate
    6e-7); for pcm within a factor of 2.
    """
    synapse = make(device, (100, 200), Chance(4, "layer"))
    if not synapse.fabricate():
        synapse.program(torch.zeros(100, 200), 0.0)
    before = synapse.weights(0.0).clone()
    counts = torch.tensor([1, -1]).repeat(10_000).view(100, 200)
    synapse.pulse(PulseEvents.from_counts(counts), 0.0)
    step = ((synapse.weights(0.0) - before) * counts).double()
    ratio, error = step.mean() / synapse.granularity, step.std() / synapse.granularity / 20_000**0.5
    slack = next((s for name, s in SLACK.items() if device.startswith(name)), 0.0)
    if device.startswith("ideal"):
        assert (step / synapse.granularity - 1).abs().max() < 1e-6
    else:
        assert 1 / (1 + slack) - 5 * error < ratio
        assert ratio < 1 + slack + 5 * error


@every_device
def test_pulses_and_reads_agree_in_every_kernel_form(device: str) -> None:
    """What the weights do does not depend on which form of the kernels runs."""
    reads: dict[str, Any] = {}
    for form in ("reference", "cpu"):
        with kernels.use(form):
            reads[form] = train(build(device))
    for expected, found in zip(reads["reference"], reads["cpu"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
