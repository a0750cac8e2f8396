"""MCA's update of PCM pairs in one pass on a card: as by lists, with other normals."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import mcatrain
from devicemodels import InputError, PulseEvents, load
from devicemodels import kernels as device_kernels
from devicemodels.devices.pcm import PCMParameters
from devicemodels.state import Chance
from devicemodels.synapses.pair import DifferentialPair
from devicemodels.wear import Wear
from mcatrain import kernels

triton = pytest.importorskip("triton", reason="the kernels for CUDA need triton")
tl = pytest.importorskip("triton.language")
SHAPE, SCALE = (37, 70), -0.3


@pytest.fixture(autouse=True)
def form() -> Iterator[None]:
    with device_kernels.use("cuda"):
        yield


@triton.jit
def _normals(out, seed, weight, pulses, NORMAL: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    pair = tl.load(weight + lane)
    for k in range(pulses):
        tl.store(out + k * BLOCK + lane, NORMAL(seed, pair, k))


def _normals_of(seed: int, weights: Tensor, pulses: int) -> Tensor:
    """Return what the kernel draws, (pulses, weights): a power of two of these."""
    from mcatrain.kernels.cuda.program import normal_of

    out = torch.empty(pulses, len(weights), device=weights.device)
    _normals[(1,)](out, seed, weights, pulses, NORMAL=normal_of, BLOCK=len(weights))
    return out


def _pair(noisy: bool, place: torch.device) -> DifferentialPair:
    model = load("nandakumar2018")
    device = model.device
    assert isinstance(device, PCMParameters)
    if not noisy:
        device = device.without("write-noise")
    pair = DifferentialPair(SHAPE, device, model.synapse, Chance(0, "pair")).to(place)
    torch.manual_seed(0)
    d = pair.devices
    d.conductance_us.copy_(12 * torch.rand(d.conductance_us.shape))
    d.pulses.copy_(torch.randint(0, 20, d.pulses.shape))
    d.programmed_at_s.copy_(100 * torch.rand(d.pulses.shape))
    pair.read(150.0)
    return pair


def _update(factors: bool, place: torch.device) -> dict[str, Any]:
    torch.manual_seed(1)
    x, d = torch.randn(SHAPE[1]), torch.randn(SHAPE[0])
    if factors:
        return {"gradient": None, "factors": (x.to(place), d.to(place))}
    return {"gradient": torch.outer(d, x).to(place), "factors": None}


def _chi(epsilon: float, place: torch.device) -> Tensor:
    torch.manual_seed(2)
    return ((2 * torch.rand(SHAPE) - 1) * 0.99 * epsilon).to(place)


def _state(pair: DifferentialPair) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in pair.named_buffers()}


@pytest.mark.parametrize("fast", ["cuda"], indirect=True)
@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("block", [1024, 256])
def test_as_by_lists(
    factors: bool, block: int, place: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without write noise all is equal, whatever a program's block is."""
    update = importlib.import_module("mcatrain.kernels.cuda.update")
    given = _update(factors, place)
    found = []
    for at_once in (False, True):
        pair = _pair(False, place)
        epsilon = pair.granularity
        chi = _chi(epsilon, place)
        pair._saturated(150.0)  # the first look; from now on only what is pulsed is looked at
        if at_once:
            monkeypatch.setattr(update, "_BLOCK", block)
            to = pair.programmable(200.0)
            done = kernels.program_of(chi)(chi, *given.values(), SCALE, epsilon, to)
            entries, pulses, near = done
            pair.was_programmed(pulses, near, 200.0)
        else:
            if factors:
                events = kernels.accumulate(chi, *given["factors"], SCALE, epsilon)
            else:
                events = kernels.descend(chi, given["gradient"], SCALE, epsilon)
            pair.pulse(PulseEvents(*events), 200.0)
            entries, pulses = len(events[0]), PulseEvents(*events).total
        candidates = pair._candidates.look(pair.devices.conductance_us)
        found.append((entries, pulses, pair.set_pulses, chi.cpu(), candidates.cpu(), _state(pair)))
    (*one, state), (*other, state_too) = found
    assert 100 < one[0] < one[1]  # some are pulsed more than once
    assert len(one[4]) > 20
    assert one[:3] == other[:3]
    assert torch.equal(one[3], other[3])
    assert torch.equal(one[4], other[4])
    for name, value in state.items():
        assert torch.equal(state_too[name], value), name


@pytest.mark.parametrize("fast", ["cuda"], indirect=True)
def test_write_noise_is_of_the_kernels_own_normals(place: torch.device) -> None:
    """Given the normals that the kernel draws, the way of lists sets the same conductances."""
    pair, other = _pair(True, place), _pair(True, place)
    epsilon = pair.granularity
    given, chi, twin = _update(False, place), _chi(epsilon, place), _chi(epsilon, place)
    to = pair.programmable(200.0)
    kernels.program_of(chi)(chi, *given.values(), SCALE, epsilon, to)
    index, count = kernels.descend(twin, given["gradient"], SCALE, epsilon)
    number = count.abs()
    most, padded = int(number.max()), torch.zeros(2 ** math.ceil(math.log2(len(index))))
    padded = padded.to(index)
    padded[: len(index)] = index
    drawn = _normals_of(to.seed, padded, most)[:, : len(index)].T  # (events, pulses)
    normals = drawn[torch.arange(most, device=place) < number[:, None]]
    device_kernels.pulse_pairs(
        *other._state(), PulseEvents(index, count), normals, 200.0, *other._way()
    )
    for name, value in _state(other).items():
        torch.testing.assert_close(_state(pair)[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fast", ["cuda"], indirect=True)
def test_normals_are_independent_and_normal(place: torch.device) -> None:
    """Of two seeds, two far places and two pulses: 8 sets of 4096.

    Kolmogorov and Smirnov's distance of each, and correlations of all pairs of them and of each
    with itself one further, at a false alarm rate of 1e-3 in all.
    """
    weights = torch.arange(4096, device=place)
    sets = [
        row
        for seed in (1, 2**62 + 1)
        for start in (0, 2**33)
        for row in _normals_of(seed, weights + start, 2).cpu().double()
    ]
    for z in sets:
        assert stats.kstest(z.numpy(), "norm").pvalue > 5e-4 / len(sets)
    table = torch.stack([*sets, *(z.roll(1) for z in sets)])
    r = torch.corrcoef(table)[torch.triu_indices(16, 16, 1).unbind()]
    limit = stats.norm.isf(5e-4 / 2 / len(r)) / math.sqrt(4096)
    assert r.abs().max() < limit


@pytest.mark.parametrize("fast", ["cuda"], indirect=True)
def test_too_large_an_update_touches_nothing(place: torch.device) -> None:
    pair = _pair(True, place)
    epsilon = pair.granularity
    chi = _chi(epsilon, place)
    before = chi.clone(), _state(pair)
    gradient = torch.zeros(SHAPE, device=place)
    gradient[3, 5] = 64 * epsilon
    to = pair.programmable(200.0)
    assert kernels.program_of(chi)(chi, gradient, None, 1.0, epsilon, to) is None
    assert torch.equal(chi, before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in _state(pair).items())
    gradient[3, 5] = 62 * epsilon
    assert kernels.program_of(chi)(chi, gradient, None, 1.0, epsilon, to) is not None


def _optimizer(place: torch.device, **options: Any) -> mcatrain.MCA:
    torch.manual_seed(0)
    net = mcatrain.convert(nn.Linear(12, 9), "nandakumar2018", periphery="ideal").to(place)
    return mcatrain.MCA(net, lr=0.5, **options)


def _step(optimizer: mcatrain.MCA, gradient: float) -> None:
    chi = next(iter(optimizer.tiles))
    chi.grad = torch.full_like(chi, gradient)
    optimizer.step()


@pytest.mark.parametrize("fast", ["cuda"], indirect=True)
def test_mca_takes_it_where_it_serves(place: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger counts as by lists; momentum changes chi itself, and a list is made of that; an
    update that diverges is refused before a device is touched."""
    spent: list[str] = []

    def told(name: str) -> Callable[..., Any]:
        real = getattr(mcatrain.MCA, name)

        def call(*given: Any) -> Any:
            spent.append(name)
            return real(*given)

        return call

    for name in ("_spend", "_spend_at_once"):
        monkeypatch.setattr(mcatrain.MCA, name, staticmethod(told(name)))
    optimizer = _optimizer(place)
    tile = next(iter(optimizer.tiles.values()))
    epsilon = tile.synapse.granularity
    _step(optimizer, 4.2 * epsilon)
    assert spent == ["_spend_at_once"]
    entries = tile.chi.numel()
    assert (tile.ledger.chi_steps, tile.ledger.chi_entries) == (1, entries)
    assert tile.synapse.set_pulses == 2 * entries
    _step(optimizer, 1e3 * epsilon)  # a list is made of it
    assert spent[1:] == ["_spend_at_once", "_spend"]
    before = _state(tile.synapse)
    with pytest.raises(InputError, match="lower the learning rate"):
        _step(optimizer, 1e30)
    assert all(torch.equal(value, before[name]) for name, value in _state(tile.synapse).items())
    spent.clear()
    _step(_optimizer(place, momentum=0.9), 4.2 * epsilon)
    assert spent == ["_spend_at_once", "_spend"]


@pytest.mark.parametrize("fast", ["cuda"], indirect=True)
def test_of_many_pairs_near_saturation_none_is_named(
    place: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("mcatrain.kernels.cuda.program"), "_ROOM", 8)
    pair = _pair(False, place)
    epsilon, given = pair.granularity, _update(False, place)
    chi = _chi(epsilon, place)
    pair._saturated(150.0)
    done = kernels.program_of(chi)(
        chi, *given.values(), SCALE, epsilon, pair.programmable(200.0)
    )  # fmt: skip
    assert done[2] is None
    pair.was_programmed(done[1], None, 200.0)
    g = pair.devices.conductance_us
    everything = device_kernels.high_pairs(g, pair._candidates.high_us, pair._candidates.both_us)
    assert torch.equal(pair._candidates.look(g), everything)


def test_wear_statistics_need_lists() -> None:
    pair = _pair(False, torch.device("cpu"))
    pair.devices.wear = Wear(2 * pair.size, torch.device("cpu"))
    assert pair.programmable(0.0) is None
