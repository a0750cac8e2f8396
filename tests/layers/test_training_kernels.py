"""Every fast kernel against the reference, given the same random numbers where it takes any."""

import functools
import importlib
import math
from typing import Any

import pytest
import torch
from torch import nn

import mcatrain
from devicemodels import kernels as device_kernels
from mcatrain import kernels
from mcatrain.kernels.reference import MOST_PULSES
from mcatrain.periphery import PRESETS, Converters

FORMS = ("reference", "cpu")
STREAMS = ("coincidences", "coincidences_sum")
CONVERTERS = {
    "ideal": Converters(),
    "NM": Converters(noise_management=True),
    "8 bits, NM": Converters(input_bits=8, output_bits=8, output_bound=4.0, noise_management=True),
    "2016": Converters(input_bits=5, output_bits=9, output_bound=12.0, output_noise=0.06),
    "stochastic": Converters(
        input_bits=4,
        input_rounding="stochastic",
        output_noise=0.1,
        output_bits=6,
        output_bound=8.0,
        output_rounding="stochastic",
    ),
}


def _to(place: torch.device, *tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    return [None if t is None else t.to(place, copy=True) for t in tensors]


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("divisor", [1.0, 4.0])
@pytest.mark.parametrize("batch", [1, 7, 40])
def test_convert(
    name: str,
    transposed: bool,
    noisy: bool,
    divisor: float,
    batch: int,
    fast: str,
    place: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A vector, a batch, and one that is cut in parts of 3 rows, the last of 1."""
    if batch == 40:
        cpu = importlib.import_module("mcatrain.kernels.cpu.convert")
        monkeypatch.setattr(cpu, "CHUNK", 100)
    torch.manual_seed(0)
    c = CONVERTERS[name]
    levels = c.output_bound / c.output_levels if c.output_levels else 0.0
    hits, repeats = 0, 20 if batch == 1 and fast == "cpu" else 5
    there = functools.partial(_to, place)
    for repeat in range(repeats):
        x = torch.randn(batch, 30) * (torch.rand(batch, 30) < 0.6)
        x[-1] *= repeat % 2  # noise management meets a vector of zeros
        w = 3 * torch.randn(17, 30)
        s = (torch.rand(17, 30) * 0.01).bfloat16() if noisy else None
        if transposed:
            w, s = w.T.contiguous().T, None if s is None else s.T.contiguous().T
        dither = torch.rand(batch, 30) if c.input_rounding == "stochastic" else None
        later = torch.rand(batch, 17) if c.output_rounding == "stochastic" else None
        normals = torch.randn(batch, 17) if noisy or c.output_noise else None
        with device_kernels.use("reference"):
            expected, hit = kernels.convert(x, w, s, c, divisor, dither, normals, later)
        with device_kernels.use(fast):
            got, hit_fast = kernels.convert(
                *there(x, w, s), c, divisor, *there(dither, normals, later)
            )
        got = got.cpu()
        assert (hit is None) == (hit_fast is None)
        if hit is not None and hit_fast is not None:
            assert torch.equal(hit, hit_fast.cpu())
            hits += len(hit)
        # Sums in another order may fall on the other side of a rounding edge: one level, rarely.
        scale = x.abs().amax(dim=1, keepdim=True) if c.noise_management else torch.ones(batch, 1)
        off = (got - expected).abs()
        assert (off > 1e-4).sum() <= 1
        assert (off <= 1.001 * levels * divisor * scale + 1e-4).all()
    # Rows at the bound are some and not all, or their list would not be tested.
    if c.output_bound < 1e6 and batch > 1 and divisor == 1:
        assert 0 < hits < repeats * batch


@pytest.mark.parametrize("epsilon", [0.096, 1e-3, 3.0])
@pytest.mark.parametrize("shape", [(70, 91), (1, 1), (3, 1024), (2, 2, 5)])
def test_spend(shape: tuple[int, ...], epsilon: float, fast: str, place: torch.device) -> None:
    torch.manual_seed(0)
    chi = torch.randn(shape) * 0.2
    chi.view(-1)[0], chi.view(-1)[-1] = epsilon, -epsilon  # exactly one pulse each
    other = chi.to(place, copy=True)
    with device_kernels.use("reference"):
        index, count = kernels.spend(chi, epsilon)
    with device_kernels.use(fast):
        index_fast, count_fast = kernels.spend(other, epsilon)
    assert torch.equal(index, index_fast.cpu())
    assert torch.equal(count, count_fast.cpu())
    assert torch.equal(chi, other.cpu())
    assert (chi.abs() < epsilon).all()
    with device_kernels.use(fast):
        assert len(kernels.spend(other, epsilon)[0]) == 0


def test_spend_of_what_diverged(fast: str, place: torch.device) -> None:
    """No more than MOST_PULSES are asked for; what is no number asks for none and stays."""
    chi = torch.tensor([1e30, -1e30, math.inf, -math.inf, math.nan, 0.25])
    for name, there in (("reference", torch.device("cpu")), (fast, place)):
        own = chi.to(there, copy=True)
        with device_kernels.use(name):
            index, count = kernels.spend(own, 0.5)
        assert index.tolist() == [0, 1, 2, 3]
        assert count.tolist() == [MOST_PULSES, -MOST_PULSES, MOST_PULSES, -MOST_PULSES]
        assert own.tolist()[2:4] == [math.inf, -math.inf]
        assert own[4].isnan()
        assert own[5] == 0.25


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_accumulate(density: float, fast: str, place: torch.device) -> None:
    torch.manual_seed(0)
    chi = torch.rand(20, 40) * 0.18 - 0.09
    other = chi.to(place, copy=True)
    for _ in range(30):
        x, d = torch.randn(40) * (torch.rand(40) < density), torch.randn(20)
        d[3] = 0.0
        with device_kernels.use("reference"):
            index, count = kernels.accumulate(chi, x, d, -0.05, 0.096)
        with device_kernels.use(fast):
            index_fast, count_fast = kernels.accumulate(
                other, x.to(place), d.to(place), -0.05, 0.096
            )
        assert torch.equal(index, index_fast.cpu())
        assert torch.equal(count, count_fast.cpu())
        torch.testing.assert_close(chi, other.cpu(), atol=2e-7, rtol=0)


@pytest.mark.parametrize("rows", [1, 5])
def test_vectors_too_small_to_scale_are_nothing(rows: int, fast: str, place: torch.device) -> None:
    """1 / max|x| would overflow, and 0 times that is no number."""
    x = torch.zeros(rows, 12)
    x[:, 3] = 1.4e-39
    w = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    for name, there in (("reference", torch.device("cpu")), (fast, place)):
        with device_kernels.use(name):
            y, _ = kernels.convert(
                x.to(there), w.to(there), None, PRESETS["mca"].forward, 1.0, None, None, None
            )
        assert y.abs().max() < 1e-38


@pytest.mark.parametrize("shape", [(20, 40), (1, 1), (3, 2100), (2048,), (1,)])
def test_descend(shape: tuple[int, ...], fast: str, place: torch.device) -> None:
    torch.manual_seed(0)
    chi = torch.rand(shape) * 0.18 - 0.09
    other, whole = chi.to(place, copy=True), chi.double()
    pulses = torch.zeros(chi.numel(), dtype=torch.int64)
    for _ in range(30):
        gradient = torch.randn(shape)
        with device_kernels.use("reference"):
            index, count = kernels.descend(chi, gradient, -0.05, 0.096)
        with device_kernels.use(fast):
            index_fast, count_fast = kernels.descend(other, gradient.to(place), -0.05, 0.096)
        assert torch.equal(index, index_fast.cpu())
        assert torch.equal(count, count_fast.cpu())
        torch.testing.assert_close(chi, other.cpu(), atol=2e-7, rtol=0)
        whole -= 0.05 * gradient.double()
        pulses[index] += count
    # What was added is in chi or was sent as pulses; nothing is lost or counted twice.
    sent = chi.double() + 0.096 * pulses.view(shape)
    torch.testing.assert_close(sent, whole, atol=3e-6, rtol=0)


@pytest.mark.parametrize("um", [False, True])
@pytest.mark.parametrize("blm", [False, True])
def test_gains(um: bool, blm: bool) -> None:
    torch.manual_seed(0)
    x, d = torch.randn(9, 30), torch.randn(9, 20) * 10.0 ** -torch.arange(9.0).view(9, 1)
    x[2], d[3] = 0.0, 0.0
    for lr in (0.05, 0.0):
        found = []
        for name in FORMS:
            with device_kernels.use(name):
                found.append(kernels.gains(x, d, lr, 0.001, 31, um, blm))
        for expected, got in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
        assert found[0][2].tolist().count(0) == (2 if lr else 9)


def _rows_of_all_kinds() -> tuple[torch.Tensor, ...]:
    """Return x (8, 7), d (8, 5), gains and slots: silent rows, clipped lines, 0 to 70 slots."""
    torch.manual_seed(1)
    x, d = torch.randn(8, 7), torch.randn(8, 5) * 0.2
    x[0], d[1] = 0.0, 0.0
    x[2, 3:] = 0.0
    slots = torch.tensor([10, 10, 3, 0, 1, 40, 70, 10])
    gains_x = torch.tensor([0.3, 0.3, 0.8, 0.5, 1.0, 0.1, 0.05, 0.9], dtype=torch.float64)
    return x, d, gains_x, 5 * gains_x.flip(0), slots


def _ups_and_downs(kernel: str, x: torch.Tensor, d: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Return the ups and the downs of every weight, (2, out in), by either kernel of streams."""
    counts = torch.zeros(2, x.shape[1] * d.shape[1])
    if kernel == "coincidences_sum":
        both = kernels.coincidences_sum(x, d, *rest)
        for side, (index, count) in zip(counts, both, strict=True):
            assert index.dtype == count.dtype == torch.int64
            assert (index.diff() > 0).all()
            side[index] = count.float()
    else:
        index, count, rows = kernels.coincidences(x, d, *rest)
        assert index.dtype == count.dtype == torch.int64
        assert rows == len(x)
        assert (count != 0).all()
        counts.view(-1).index_add_(0, index + counts.shape[1] * (count < 0), count.float())
    return counts


@pytest.mark.parametrize("kernel", STREAMS)
@pytest.mark.parametrize("name", FORMS)
def test_coincidences_have_the_distribution_of_the_streams(name: str, kernel: str) -> None:
    """Mean and variance of every weight's ups and downs, and of the total, from 4,000 seeds.

    In a slot a weight has a pulse with q = p_x p_d, so n slots give n q and n q (1 - q); the
    total of a slot is (lines of x firing)(lines of d firing), independent of each other. 35
    weights, two signs, two moments at 5 standard errors: false alarm 8e-5.
    """
    x, d, gains_x, gains_d, slots = _rows_of_all_kinds()
    n, found = 4_000, []
    with device_kernels.use(name):
        for seed in range(n):
            found.append(_ups_and_downs(kernel, x, d, gains_x, gains_d, slots, seed))
    counts = torch.stack(found).double()
    assert (counts[:, 0] >= 0).all()
    assert (counts[:, 1] <= 0).all()
    p_x = (gains_x.unsqueeze(1) * x.abs()).clamp(max=1)
    p_d = (gains_d.unsqueeze(1) * d.abs()).clamp(max=1)
    assert (p_x == 1).any()
    assert (p_d == 1).any()
    q = (p_d.unsqueeze(2) * p_x.unsqueeze(1)).view(8, 35)
    up = (d.sign().unsqueeze(2) * x.sign().unsqueeze(1)).view(8, 35) < 0
    q = torch.stack([q * up, q * ~up])
    mean = torch.tensor([1.0, -1.0]).view(2, 1) * (slots.view(8, 1) * q).sum(1)
    variance = (slots.view(8, 1) * q * (1 - q)).sum(1)
    _assert_moments(counts, mean, variance)
    fires = [(p.sum(1), (p * (1 - p)).sum(1)) for p in (p_x, p_d)]
    (a, var_a), (b, var_b) = fires
    spread = (var_a + a**2) * (var_b + b**2) - (a * b) ** 2
    total = counts.abs().sum((1, 2))
    _assert_moments(total, (slots * a * b).sum(), (slots * spread).sum())


def _assert_moments(values: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Mean and variance of values (n, ...) within 5 standard errors."""
    n = len(values)
    assert ((values.mean(0) - mean).abs() <= 5 * (variance / n).sqrt() + 1e-9).all()
    squares = (values - mean) ** 2
    assert ((squares.mean(0) - variance).abs() <= 5 * squares.std(0) / n**0.5 + 1e-9).all()


@pytest.mark.parametrize("kernel", STREAMS)
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("bits", [2**22, 50], ids=["at once", "in parts"])
def test_coincidences_of_lines_that_always_fire(
    name: str, kernel: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probability 1 leaves nothing to chance: every slot of every row counts, by its sign."""
    monkeypatch.setattr("mcatrain.kernels.reference._BITS", bits)
    torch.manual_seed(0)
    x, d = torch.randn(6, 9), torch.randn(6, 4)
    x[1], d[2], x[3, 5], d[3, 2] = 0.0, 0.0, 0.0, 0.0
    slots = torch.tensor([10, 7, 7, 31, 0, 200])
    gains = torch.full((6,), 1e4, dtype=torch.float64)
    signs = -d.sign().unsqueeze(2) * x.sign().unsqueeze(1) * slots.view(6, 1, 1)
    expected = torch.stack([signs.clamp(min=0).sum(0), signs.clamp(max=0).sum(0)])
    with device_kernels.use(name):
        found = _ups_and_downs(kernel, x, d, gains, gains, slots, 5)
    assert torch.equal(found, expected.view(2, -1))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("most", [2**20, 60])
def test_coincidences_come_row_after_row(
    name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that fire half the time, one of x in each row: the events tell their row."""
    monkeypatch.setattr("mcatrain.kernels.reference.MOST_EVENTS", most)
    half = torch.full((20,), 0.5, dtype=torch.float64)
    x, d, slots = torch.eye(20).flip(1), torch.ones(20, 10), torch.full((20,), 12)
    with device_kernels.use(name):
        index, count, rows = kernels.coincidences(x, d, half, half, slots, 3)
    row = 19 - index % 20
    assert (row.diff() >= 0).all()
    assert torch.equal(row.unique(), torch.arange(rows))
    assert (count < 0).all()
    if most == 60:
        assert rows < 20
        assert (row < rows - 1).sum() < most <= len(index)
    else:
        assert rows == 20


@pytest.mark.parametrize("kernel", STREAMS)
@pytest.mark.parametrize("name", FORMS)
def test_coincidences_are_drawn_from_their_seed(name: str, kernel: str) -> None:
    rows = _rows_of_all_kinds()
    with device_kernels.use(name):
        one, same, other = (_ups_and_downs(kernel, *rows, seed) for seed in (3, 3, 4))
        assert not _ups_and_downs(kernel, *(v[:0] for v in rows), 3).any()
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("rule", ["mca", "mca, factored", "rpu"])
def test_training_goes_alike_in_every_form(rule: str, fast: str, place: torch.device) -> None:
    """Steps of a small network, read noise, drift and refresh among them.

    Where the forms draw the same numbers, they may differ by rounding only. A card draws others,
    and so do the streams of the CPU's form and pulses in one pass with chi: there the run must
    only go through.
    """
    x, y = torch.rand(10, 4, 12), torch.randint(0, 5, (10, 4))
    left = []
    for name, there in (("reference", torch.device("cpu")), (fast, place)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))
        with device_kernels.use(name):
            if rule == "rpu":
                net = mcatrain.convert(net, "softbounds").to(there)
                optimizer: mcatrain.MCA | mcatrain.RPU = mcatrain.RPU(net, lr=0.2)
            else:
                net = mcatrain.convert(net, "nandakumar2018", periphery="ideal").to(there)
                factored = rule.endswith("factored")
                optimizer = mcatrain.MCA(net, lr=0.5, factored=factored, refresh_every=8)
            for k in range(3 if rule == "rpu" else 10):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[k].to(there)), y[k].to(there)).backward()
                optimizer.step()
        left.append([tile.weights().cpu() for tile in mcatrain.tile.tiles(net).values()])
        pulses = [tile.synapse.set_pulses for tile in mcatrain.tile.tiles(net).values()]
        assert min(pulses) > 10
    if place.type == "cpu" and (fast, rule) not in {("cpu", "rpu"), ("cuda", "mca")}:
        for one, other in zip(*left, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["8 bits, NM", "2016"])
def test_what_is_no_number_stays_so(name: str, fast: str, place: torch.device) -> None:
    """Converters do not clip it to their range, or divergence would go unseen."""
    x, w = torch.rand(3, 20), torch.rand(4, 20)
    x[1, 2] = math.nan
    with device_kernels.use(fast):
        y, _ = kernels.convert(
            x.to(place), w.to(place), None, CONVERTERS[name], 1.0, None, None, None
        )
    assert y.isnan().any(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_is_finite(bad: float, fast: str, place: torch.device) -> None:
    """Large numbers are finite; one that is not counts wherever it lies, in any layout."""
    for form, there in (("reference", torch.device("cpu")), (fast, place)):
        with device_kernels.use(form):
            values = torch.full((7, 13), 3e38, device=there)
            values[::2] *= -1
            assert kernels.is_finite(values)
            assert kernels.is_finite(values[:0])
            assert kernels.is_finite(values.double() * 1e200)
            for at in ((0, 0), (6, 12), (3, 5)):
                broken = values.clone()
                broken[at] = bad
                assert not kernels.is_finite(broken)
                assert not kernels.is_finite(broken.T)
                assert not kernels.is_finite(broken, values)
                assert not kernels.is_finite(values, broken)
                assert not kernels.is_finite(values, broken.T)
            assert kernels.is_finite(values, values[:2])
            assert kernels.is_finite(values, values[:2].T)
