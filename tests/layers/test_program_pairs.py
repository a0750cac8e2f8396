"""A whole update of PCM pairs in one call: every form, against the reference and the physics."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from devicemodels import kernels as device_kernels
from devicemodels import load
from devicemodels.devices.pcm import PCMParameters
from mcatrain import kernels

NANDAKUMAR = load("nandakumar2018").device
NO_LIMIT = 10**8


@pytest.fixture
def in_rounds(fast: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few programs that each goes through the list several times."""
    if fast == "cuda":
        program = importlib.import_module("mcatrain.kernels.cuda.program")
        monkeypatch.setattr(program, "_BLOCK", 256)
        monkeypatch.setattr(program, "_PROGRAMS", 2)


@pytest.fixture
def at_once(fast: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long blocks: the interpreter's time is that of their number."""
    if fast == "cuda" and not torch.cuda.is_available():
        for name in ("program", "update"):
            module = importlib.import_module(f"mcatrain.kernels.cuda.{name}")
            monkeypatch.setattr(module, "_BLOCK", 2**15)


@dataclass
class Pairs:
    """The state of ``out x in`` pairs, all alike, and what is made of it."""

    chi: Tensor
    state: tuple[Tensor, Tensor, Tensor, Tensor]
    weight: Tensor
    variance: Tensor | None

    def program(self, device: PCMParameters, *, now_s: float = 0.0, **options: Any) -> list[int]:
        given = {"gradient": None, "scale": 1.0, "seed": 1, "limit": NO_LIMIT} | options
        return kernels.program_pairs(
            self.chi, given["gradient"], given["scale"], 0.1, *self.state, now_s, 8.02, device,
            given["seed"], given["limit"], self.weight, self.variance,
        ).tolist()  # fmt: skip

    def tensors(self) -> list[Tensor]:
        every = [self.chi, *self.state, self.weight, self.variance]
        return [t.to("cpu", copy=True) for t in every if t is not None]


def pairs(
    shape: tuple[int, int], place: torch.device, g: torch.Generator, noisy: bool = True
) -> Pairs:
    """Return pairs in random states, programmed within the first 100 s."""
    n = shape[0] * shape[1]
    state = (
        0.1 + 11.9 * torch.rand(2 * n, generator=g),
        torch.randint(0, 40, (2 * n,), dtype=torch.int32, generator=g),
        100 * torch.rand(2 * n, dtype=torch.float64, generator=g),
        0.04 + 0.01 * torch.randn(2 * n, generator=g),
    )
    chi = torch.rand(shape, generator=g).mul_(2**13).round_().sub_(2**12).div_(2**16)
    made = (chi, torch.zeros(n), torch.zeros(n))
    chi, weight, variance = (t.to(place) for t in made)
    a, b, c, d = (t.to(place) for t in state)
    return Pairs(chi, (a, b, c, d), weight, variance if noisy else None)


@pytest.mark.usefixtures("in_rounds")
@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 5], ids=["dense", "one row", "five rows"])
@pytest.mark.parametrize("shape", [(50, 61), (1, 1), (3, 700)])
def test_without_write_noise_it_is_the_reference(
    shape: tuple[int, int], rows: int, noisy: bool, fast: str, place: torch.device
) -> None:
    """Chi, devices, weights and counters, where nothing is left to chance.

    Factors in eighths, and chi in multiples of 2^-16: sums are exact in whatever order.
    """
    device = load("nandakumar2018").without("write-noise").device
    g = torch.Generator().manual_seed(7)
    x, d = (torch.randn(max(rows, 1), n, generator=g).mul_(8).round_().div_(8) for n in shape[::-1])
    found = []
    for name, there in (("reference", torch.device("cpu")), (fast, place)):
        own = pairs(shape, there, torch.Generator().manual_seed(2), noisy)
        factors = x.to(there), d.to(there)
        gradient = factors if rows else factors[1].T @ factors[0]
        with device_kernels.use(name):
            counters = own.program(device, now_s=500.0, gradient=gradient, scale=-0.25)
        found.append((counters, own.tensors()))
    (expected, left), (counters, left_fast) = found
    assert counters == expected
    assert counters[1] >= counters[0] >= (600 if shape == (50, 61) else 0)
    assert torch.equal(left[0], left_fast[0])
    for one, other in zip(left, left_fast, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)


def test_too_many_pulses_touch_no_device(fast: str, place: torch.device) -> None:
    for name, there in (("reference", torch.device("cpu")), (fast, place)):
        own = pairs((4, 5), there, torch.Generator().manual_seed(3))
        before = own.tensors()
        own.chi[1, 2] = 1.05
        with device_kernels.use(name):
            assert own.program(NANDAKUMAR, limit=9) == [1, 10, 10]
            assert all(map(torch.equal, before[1:], own.tensors()[1:]))
            own.chi[1, 2] = 0.95
            assert own.program(NANDAKUMAR, limit=9) == [1, 9, 9]
        changed = [i for i, t in enumerate(own.tensors()) if not torch.equal(t, before[i])]
        assert changed == [0, 1, 2, 3, 5, 6]  # all but the drift exponents


@pytest.mark.usefixtures("at_once")
def test_mean_and_spread_of_the_published_response(fast: str, place: torch.device) -> None:
    """G after 1, 2, 5, 10 and 20 pulses, one at a time, as in an independent Monte Carlo.

    40,000 devices here, 200,000 there; clip [0.1, 20] uS. Mean and standard deviation within 5
    standard errors and half the table's last digit: false alarm of all ten 6e-6.
    """
    table = {1: (2.06, 1.52), 2: (3.44, 1.97), 5: (5.92, 2.38), 10: (7.83, 2.46), 20: (9.40, 2.67)}
    device = load("nandakumar2018").vary(g_max=20.0).device
    assert isinstance(device, PCMParameters)
    n = 40_000
    own = pairs((200, 200), place, torch.Generator().manual_seed(4))
    rest = 0.1 + 0.01 * torch.randn(2 * n, generator=torch.Generator().manual_seed(5))
    own.state[0].copy_(rest.clamp(min=0))
    own.state[1].zero_()
    own.chi.zero_()
    one = torch.full_like(own.chi, 0.1001)
    with device_kernels.use(fast):
        for pulse in range(1, 21):
            assert own.program(device, gradient=one, seed=pulse) == [n, n, 1]
            if pulse in table:
                g = own.state[0][:n].double().cpu()
                mean, std = table[pulse]
                fourth = ((g - g.mean()) ** 4).mean().item()
                error = 5 * math.sqrt(1 / n + 1 / 200_000)
                assert abs(g.mean().item() - mean) < error * std + 0.005
                of_std = math.sqrt(fourth - std**4) / (2 * std)
                assert abs(g.std().item() - std) < error * of_std + 0.005
    assert (own.state[1][:n] == 20).all()
    assert torch.equal(own.state[0][n:].cpu(), rest.clamp(min=0)[n:])


@pytest.mark.usefixtures("at_once")
def test_the_draws_of_pulses_are_independent_normals(fast: str, place: torch.device) -> None:
    """Of three pulses of 16,384 devices whose step is pure noise of 1 uS: distribution, and no
    tie between neighbours, pulses, the halves of pairs, or seeds.

    The cuda form draws by device and pulse, so that the first pulse of an event is alike however
    many follow; the reference goes through the numbers of a seed in the order of the events.
    Kolmogorov-Smirnov at 1e-6; correlations within 5 standard errors.
    """
    constants = {"m1": 0.0, "c1": 0.0, "A1": 0.0, "m2": 0.0, "c2": 1.0, "A2": 0.0}
    device = load("nandakumar2018").vary(**constants, g_min=0.0, g_max=1000.0).device
    assert isinstance(device, PCMParameters)
    n = 2**14

    def draws(sign: float, pulses: float, seed: int) -> Tensor:
        own = pairs((128, 128), place, torch.Generator().manual_seed(6))
        own.state[0].fill_(100.0)
        own.chi.fill_(sign * 0.1001 * pulses)
        own.program(device, seed=seed)
        g = own.state[0].double().cpu() - 100
        assert (g[n:] == 0).all() if sign > 0 else (g[:n] == 0).all()
        return g[:n] if sign > 0 else g[n:]

    with device_kernels.use(fast):
        one, two, three = (draws(1, k, 2**62) for k in (1, 2, 3))
        minus, other = draws(-1, 1, 2**62), draws(1, 1, 2**62 + 1)
        again = draws(1, 1, 2**62)
    assert torch.equal(one, again)
    keyed = fast == "cuda"
    second, third = two - one, three - two
    samples = [one, minus, other] + ([second, third] if keyed else [two / 2**0.5])
    for z in samples:
        assert stats.kstest(z.numpy(), "norm").pvalue > 1e-6
        for lag in (1, 2, 128):
            assert abs(float((z[lag:] * z[:-lag]).mean())) < 5 / math.sqrt(n - lag)
    ties = [(one, other)] + ([(one, minus), (one, second), (second, third)] if keyed else [])
    for a, b in ties:
        assert abs(float((a * b).mean())) < 5 / math.sqrt(n)
