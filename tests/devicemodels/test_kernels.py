"""Every form of a kernel does what the reference form does, given the same random numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from devicemodels import PulseEvents, kernels, load
from devicemodels.devices.pcm import PCMParameters
from devicemodels.devices.step import (
    ExpStepParameters,
    LinearStepParameters,
    SoftBoundsParameters,
    StepParameters,
)
from devicemodels.kernels import cpu, reference
from devicemodels.kernels.cpu.normals import mixed
from devicemodels.kernels.reference import DUE_BLOCK
from devicemodels.pulses import rounds

Both = Callable[..., list[list[Tensor]]]
SIZE = 3_000
STEP = {
    "dw_min": 0.01, "dw_min_dtod": 0.3, "dw_min_std": 0.3, "up_down": 1.1, "up_down_dtod": 0.02,
    "w_max": 0.6, "w_min": -0.5, "w_max_dtod": 0.3, "w_min_dtod": 0.3,
}  # fmt: skip
CURVE = {"A_up": 0.05, "A_down": 0.2, "gamma_up": 3.0, "gamma_down": 4.0, "a": 0.9, "b": 0.1}
RESPONSES = {
    "constant": StepParameters(**STEP),
    "linear": LinearStepParameters(**STEP, slope_up=0.9, slope_down=-0.4),
    "soft-bounds": SoftBoundsParameters(**STEP),
    "exponential": ExpStepParameters(**STEP, **CURVE),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_events(size: int, most: int, g: torch.Generator) -> PulseEvents:
    """Return events on about a third of the devices, up to ``most`` pulses each, both signs, in
    random order."""
    counts = torch.randint(-most, most + 1, (size,), generator=g)
    counts *= torch.rand(size, generator=g) < 1 / 3
    events = PulseEvents.from_counts(counts)
    order = torch.randperm(len(events), generator=g)
    return PulseEvents(events.index[order], events.count[order])


@pytest.fixture
def both(fast: str, place: torch.device) -> Callable[..., list[list[Tensor]]]:
    """Runs the reference and another form on clones of the arguments; returns the tensors that
    each leaves behind."""

    def run(kernel: Any, *arguments: Any) -> list[list[Tensor]]:
        left = []
        for form, device in (("reference", "cpu"), (fast, place)):
            own = [a.to(device, copy=True) if isinstance(a, Tensor) else a for a in arguments]
            with kernels.use(form):
                kernel(*own)
            left.append([a.cpu() for a in own if isinstance(a, Tensor)])
        return left

    return run


def assert_same(left: list[list[Tensor]], scale: float = 0.0) -> None:
    """Equal within 1e-6 of each value, or of ``scale`` where a difference may cancel.

    A bfloat16 may be rounded to the neighbour.
    """
    for expected, found in zip(*left, strict=True):
        assert expected.dtype == found.dtype
        near = 2.0**-7 if found.dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(found, expected, rtol=near, atol=1e-6 * scale)


@pytest.mark.parametrize("without", [(), ("write-noise",), ("history", "nonlinearity")])
def test_set_pulses(without: tuple[str, ...], both: Both) -> None:
    device = load("nandakumar2018").without(*without).device
    g = generator(1)
    events = random_events(SIZE, 12, g)
    count = events.count.abs()
    conductance = 0.1 + 11.9 * torch.rand(SIZE, generator=g)
    pulses = torch.randint(0, 40, (SIZE,), dtype=torch.int32, generator=g)
    normals = torch.randn(int(count.sum()), generator=g)
    left = both(kernels.set_pulses, conductance, pulses, events.index, count, normals, device)
    assert_same(left)
    assert not torch.equal(left[0][0], conductance)
    assert torch.equal(left[0][1].sum() - pulses.sum(), count.sum())


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("part", [True, False], ids=["some", "due"])
@pytest.mark.parametrize("now_s", [500.0, 1e7])
def test_read_pairs(now_s: float, part: bool, noisy: bool, both: Both) -> None:
    """Ages from before programming, over below T0, to months; some blocks are due, or soon."""
    device = load("nandakumar2018").device
    assert isinstance(device, PCMParameters)
    g = generator(2)
    conductance = 0.1 + 11.9 * torch.rand(2 * SIZE, generator=g)
    at = 505 * torch.rand(2 * SIZE, dtype=torch.float64, generator=g)
    exponent = 0.04 + 0.01 * torch.randn(2 * SIZE, generator=g)
    index = torch.randperm(SIZE, generator=g)[: SIZE // 3] if part else None
    weight = torch.full((SIZE,), 9.0)
    variance = torch.full((SIZE,), 9.0, dtype=torch.bfloat16) if noisy else None
    due = torch.full((-(-SIZE // DUE_BLOCK),), float("inf"), dtype=torch.float64)
    due[::3], due[1::3] = now_s - 1, now_s + 1e9
    ahead_s = 0.5
    due[2::6] = now_s + ahead_s / 2
    arguments = (
        conductance, at, exponent, index, now_s, 8.02, device, 1e-3, ahead_s, weight, variance, due
    )  # fmt: skip
    stays_s = []

    def kernel(*given: Any) -> None:
        stays_s.append(kernels.read_pairs(*given))

    left = both(kernel, *arguments)
    assert_same(left, scale=12 / 8.02)
    assert 0 < stays_s[0] < 1e9
    assert stays_s[1] == pytest.approx(stays_s[0], rel=1e-5)
    later, written = left[0][-1], left[0][3 + part] != 9.0
    if part:
        assert torch.equal(written.nonzero().squeeze(1), index.sort().values)
        assert (later <= due).all()
        assert (later[1::3] < due[1::3]).any()
    else:
        soon = due < now_s + ahead_s
        read = soon.repeat_interleave(DUE_BLOCK)[:SIZE]
        assert torch.equal(written, read)
        assert (later > now_s).all()
        assert torch.equal(later[~soon], due[~soon])
    assert torch.equal(left[0][4 + part] != 9.0, written) or not noisy


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("repeats", [True, False])
def test_pulse_pairs(repeats: bool, noisy: bool, both: Both) -> None:
    """Ups and downs of pairs of all ages, 1 to 12 pulses; no other pair is touched."""
    device, g = load("nandakumar2018").device, generator(7)
    events = random_events(SIZE, 12, g)
    index, count = events.index, events.count
    if repeats:  # half of them once more, the other way
        half = len(index) // 2
        index, count = torch.cat([index, index[:half]]), torch.cat([count, -count[:half]])
    state = (
        0.1 + 11.9 * torch.rand(2 * SIZE, generator=g),
        torch.randint(0, 40, (2 * SIZE,), dtype=torch.int32, generator=g),
        400 * torch.rand(2 * SIZE, dtype=torch.float64, generator=g),
        0.04 + 0.01 * torch.randn(2 * SIZE, generator=g),
    )
    normals = torch.randn(int(count.abs().sum()), generator=g)
    weight = torch.full((SIZE,), 9.0)
    variance = torch.full((SIZE,), 9.0, dtype=torch.bfloat16) if noisy else None
    due = torch.full((-(-SIZE // DUE_BLOCK),), float("inf"), dtype=torch.float64)
    due[::3] = float("-inf")

    def kernel(*given: Any) -> None:
        *before, index, count, normals = given[:7]
        events = PulseEvents(index, count, repeats)
        kernels.pulse_pairs(*before, events, normals, 500.0, 8.02, device, 1e-3, 0.5, *given[7:])

    left = both(kernel, *state, index, count, normals, weight, variance, due)
    assert_same(left, scale=12 / 8.02)
    expected = left[0]
    assert torch.equal((expected[7] != 9.0).nonzero().squeeze(1), index.unique())
    assert torch.equal(expected[1].sum() - state[1].sum(), count.abs().sum())
    assert torch.equal(expected[2] == 500.0, expected[1] > state[1])
    assert (expected[-1][::3] == float("-inf")).all()
    assert (expected[-1][1::3] < 1e5).all()


def test_mixer_is_the_published_one() -> None:
    """First outputs of splitmix64 for the seed 1234567 (Rosetta Code's, from Vigna's C code)."""
    high, low = np.empty(3, np.int32), np.empty(3, np.int32)
    mixed(np.uint64(1234567), np.uint64(0), high, low)
    words = (high.view(np.uint32).astype(np.uint64) << np.uint64(32)) | low.view(np.uint32)
    assert words.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("form", ["reference", "cpu"])
def test_normals(form: str) -> None:
    """2^18 draws of two seeds: Kolmogorov-Smirnov, squares, angles of the pairs that are made
    together, neighbours; false alarm 1e-6 each."""
    draws = torch.empty(2, 2**18)
    with kernels.use(form):
        for seed in (0, 1):
            kernels.normals(draws[seed], 2**62 + seed)
        again, short = torch.empty(2**18), torch.empty(7, 3)
        kernels.normals(again, 2**62)
        kernels.normals(short, 2**62)
    assert torch.equal(again, draws[0])
    if form == "cpu":  # a longer array begins like a shorter one of the same seed
        assert torch.equal(short.view(-1), again[:21])
    for z in draws.double().numpy():
        assert stats.kstest(z, "norm").pvalue > 1e-6
        assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / z.size)  # var of z^4 is 96
        first, second = z.reshape(-1, 2, 512).transpose(1, 0, 2)
        turns = np.arctan2(second, first) / (2 * np.pi) + 0.5
        assert stats.kstest(turns.ravel(), "uniform").pvalue > 1e-6
    one, two = draws.double()
    # Pairs of one angle lie 512 apart.
    for lag in (0, 1, 2, 511, 512, 513):
        product = one[lag:] * two[: len(two) - lag] if lag == 0 else one[lag:] * one[:-lag]
        assert abs(float(product.mean())) < 5 / math.sqrt(len(product))
    assert 4 < float(draws.abs().max()) < 6.8


def test_high_pairs(fast: str, place: torch.device) -> None:
    """Either device counts for the upper limit, the other for the lower; one at a limit does not,
    in both forms."""
    g = torch.tensor([1.0, 5, 4, 2, 9, 3, 3, 4, 9, 9]).to(place)
    many = torch.rand(2 * 5000, generator=generator(5)).to(place)
    for form in ("reference", fast):
        with kernels.use(form):
            assert kernels.high_pairs(g, 4.0, -1.0).tolist() == [1, 3, 4]
            assert kernels.high_pairs(g, 4.0, 2.0).tolist() == [1, 4]
            assert kernels.high_pairs(g, 4.0, 3.0).tolist() == [4]
            assert kernels.high_pairs(many[:0], 4.0, 1.0).tolist() == []
            pairs = many.view(2, -1)
            expected = (pairs > 0.999).any(0) & (pairs > 0.2).all(0)
            assert torch.equal(kernels.high_pairs(many, 0.999, 0.2), expected.nonzero().squeeze(1))


@pytest.mark.parametrize("noisy", [True, False])
def test_saturated_pairs(noisy: bool, fast: str, place: torch.device) -> None:
    """Reads of drifted pairs around the threshold, in both forms; a few are due and most not."""
    device = load("nandakumar2018").device
    assert isinstance(device, PCMParameters)
    g = generator(6)
    conductance = 4 + 6 * torch.rand(2 * SIZE, generator=g)
    at = 505 * torch.rand(2 * SIZE, dtype=torch.float64, generator=g)
    exponent = 0.04 + 0.01 * torch.randn(2 * SIZE, generator=g)
    index = torch.arange(0, SIZE, 2)
    normals = torch.randn(2, len(index), generator=g) if noisy else None
    arguments = (conductance, at, exponent, index, 500.0, device, 8.0, 2.0, normals)
    found = []
    for form, device in (("reference", torch.device("cpu")), (fast, place)):
        own = [a.to(device) if isinstance(a, Tensor) else a for a in arguments]
        with kernels.use(form):
            found.append([t.cpu() for t in kernels.saturated_pairs(*own)])
            nothing = *own[:3], own[3][:0], *own[4:8], None
            assert [len(t) for t in kernels.saturated_pairs(*nothing)] == [0, 0]
    for expected, got in zip(*found, strict=True):
        assert expected.dtype == got.dtype
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert 0.1 * len(index) < len(found[0][0]) < 0.4 * len(index)
    assert (found[0][1].abs() < 2).all()


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("name", RESPONSES)
def test_step_pulses(name: str, spread: float, both: Both) -> None:
    response, g = replace(RESPONSES[name], dw_min_std=spread), generator(4)
    events = random_events(SIZE, 12, g)
    lower, upper = -0.2 - torch.rand(SIZE, generator=g), 0.2 + torch.rand(SIZE, generator=g)
    state = lower + (upper - lower) * torch.rand(SIZE, generator=g)
    up, down = 0.02 * torch.rand(2, SIZE, generator=g)
    normals = torch.randn(events.total, generator=g)
    devices = torch.stack([-down, up, lower, upper], dim=1)
    pulses = (events.index, events.count, normals)
    left = both(kernels.step_pulses, state, devices, *pulses, spread, response)
    assert_same(left, scale=1.0)
    moved = left[0][0] != state
    untouched = torch.ones(SIZE, dtype=torch.bool)
    untouched[events.index] = False
    assert not moved[untouched].any()
    assert moved[events.index].float().mean() > 0.8


def test_tally(fast: str, place: torch.device) -> None:
    count = torch.tensor([3, -1, 2**40, -2, 0, 1]).to(place)
    for form in ("reference", fast):
        with kernels.use(form):
            assert kernels.tally(count) == (2**40 + 4, 3)
            assert kernels.tally(count[:0]) == (0, 0)


@pytest.mark.parametrize("name", ["set", *RESPONSES])
def test_events_of_one_device_are_applied_in_their_order(
    name: str, fast: str, place: torch.device
) -> None:
    """A list with repeats does what its events do one by one in the reference, with the same
    normals."""
    g = generator(6)
    size = 40
    index = torch.randint(0, size, (300,), generator=g)
    count = torch.randint(1, 7, (300,), generator=g)
    devices = torch.tensor([-0.05, 0.05, -0.2, 0.3]).repeat(size, 1)
    devices[:, :2] *= torch.rand(size, 2, generator=g)
    pcm = load("nandakumar2018").device
    if name == "set":
        begin = (torch.rand(size, generator=g), torch.zeros(size, dtype=torch.int32))
        kernel, rest = kernels.set_pulses, (pcm,)
    else:
        begin = (torch.zeros(size), devices)
        kernel, rest = kernels.step_pulses, (0.3, RESPONSES[name])
        count *= torch.randint(0, 2, (300,), generator=g) * 2 - 1
    one_each = name == "constant"  # normals: one an event, else one a pulse
    draws = torch.ones_like(count) if one_each else count.abs()
    normals = torch.randn(int(draws.sum()), generator=g)
    apart = [v.clone() for v in begin]
    with kernels.use("reference"):
        for i, c, z in zip(
            index.split(1), count.split(1), normals.split(draws.tolist()), strict=True
        ):
            kernel(*apart, i, c, z, *rest)
    for form, device in (("reference", torch.device("cpu")), (fast, place)):
        together, backward = ([v.to(device, copy=True) for v in begin] for _ in range(2))
        i, c, z = (v.to(device) for v in (index, count, normals))
        with kernels.use(form):
            kernel(*together, i, c, z, *rest, True)
            kernel(*backward, i.flip(0), c.flip(0), z, *rest, True)
        together, backward = ([v.cpu() for v in state] for state in (together, backward))
        torch.testing.assert_close(together[0], apart[0], rtol=1e-5, atol=1e-6)
        if name == "set":
            done = torch.zeros(size).index_add(0, index, count.float()).int()
            assert torch.equal(together[1], apart[1])
            assert torch.equal(together[1], done)
        assert not torch.allclose(together[0], backward[0], rtol=1e-3), "order would not be seen"


def test_rounds() -> None:
    """The k-th part has the k-th occurrence of each value, none where there are no values."""
    index = torch.tensor([7, 3, 7, 7, 0, 3])
    assert [part.tolist() for part in rounds(index)] == [[4, 1, 0], [5, 2], [3]]
    assert list(rounds(index[:0])) == []


def test_nothing_to_read(both: Both) -> None:
    """Neither an empty list nor blocks of which none is due: it all may stay for ever."""
    device, g = load("nandakumar2018").device, torch.ones(2 * DUE_BLOCK)
    way = 500.0, 8.02, device, 1e-3, 0.5, torch.full((DUE_BLOCK,), 9.0), None
    due = torch.tensor([500.5], dtype=torch.float64)

    def kernel(*given: Any) -> None:
        assert kernels.read_pairs(*given) == math.inf

    for index in (None, torch.zeros(0, dtype=torch.int64)):
        for left in both(kernel, g, g.double(), g, index, *way, due):
            assert (left[-2] == 9.0).all()
            assert left[-1].item() == 500.5


def test_empty_events(both: Both) -> None:
    none, nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    device = load("nandakumar2018").device
    g, pulses = torch.ones(4), torch.zeros(4, dtype=torch.int32)
    assert_same(both(kernels.set_pulses, g, pulses, none, none, nothing, device))
    for response in RESPONSES.values():
        w = torch.zeros(4)
        devices = torch.ones(4, 4)
        assert_same(both(kernels.step_pulses, w, devices, none, none, nothing, 0.3, response))


@pytest.mark.parametrize("size", [1, 255, 256, 257])
def test_lists_that_end_at_a_block(size: int, both: Both) -> None:
    """One event, and one less and more than a program of the cuda form takes."""
    g, index = generator(6), torch.arange(size)
    count = torch.randint(1, 4, (size,), generator=g)
    normals = torch.randn(int(count.sum()), generator=g)
    pcm = torch.full((size,), 0.1), torch.zeros(size, dtype=torch.int32)
    device = load("nandakumar2018").device
    assert_same(both(kernels.set_pulses, *pcm, index, count, normals, device))
    w, one = torch.zeros(size), torch.ones(size)
    devices = torch.stack([-0.02 * one, 0.01 * one, -one, one], dim=1)
    for response in RESPONSES.values():
        left = both(kernels.step_pulses, w, devices, index, -count, normals, 0.3, response)
        assert_same(left, scale=1.0)


def test_the_form_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards take the cuda form where a triton that serves can be imported, else silently the
    reference."""
    form_of = kernels._form_of.__wrapped__
    for version, form in (("3.3.1", "reference"), ("3.4.0", "cuda"), ("3.10.0+git1", "cuda")):
        monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=version))
        assert form_of("cuda") == form
        assert form_of("mps") == "reference"
    monkeypatch.setitem(sys.modules, "triton", None)
    assert form_of("cuda") == "reference"


def test_use_chooses_the_form_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for module in (cpu, reference):
        name = module.__name__.rsplit(".", 1)[1]
        monkeypatch.setattr(module, "set_pulses", lambda *_, name=name: ran.append(name))
    with kernels.use("reference"):
        kernels.set_pulses(torch.zeros(1))
        with kernels.use("cpu"):
            kernels.set_pulses(torch.zeros(1))
        kernels.set_pulses(torch.zeros(1))
    kernels.set_pulses(torch.zeros(1))
    assert ran == ["reference", "cpu", "reference", "cpu"]
