"""chi and PCM pairs of an array on a card: what is timed there, and its check by the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from devicemodels import PulseEvents, load
from devicemodels import kernels as device_kernels
from devicemodels.devices.pcm import PCMParameters
from devicemodels.kernels.reference import DUE_BLOCK
from devicemodels.synapses.base import Programmable
from mcatrain import kernels

EPSILON, BETA_US, TOLERANCE = 0.096, 8.02, 3e-3
#: Pairs with one device above the one and both above the other count as near saturation [uS].
ABOVE_US, BOTH_US = 11.99, 4.0


@dataclass
class Pairs:
    """chi and PCM pairs of a square array."""

    chi: Tensor
    conductance_us: Tensor
    pulses: Tensor
    programmed_at_s: Tensor
    exponent: Tensor
    weight: Tensor
    variance: Tensor
    due_s: Tensor

    @staticmethod
    def make(width: int, device: torch.device) -> Pairs:
        n, g = width * width, torch.Generator(device).manual_seed(0)

        def uniform(size: int) -> Tensor:
            return torch.rand(size, generator=g, device=device)

        # Multiples of 2^-22: with `factors` as they are, sums are exact in whatever order.
        chi = (uniform(n) * 2 - 1).mul_(0.99 * EPSILON * 2**22).round_().mul_(2.0**-22)
        return Pairs(
            chi.view(width, width),
            0.1 + 11.9 * uniform(2 * n),
            torch.zeros(2 * n, dtype=torch.int32, device=device),
            100 * uniform(2 * n).double(),
            0.01 + 0.08 * uniform(2 * n),
            torch.zeros(n, device=device),
            torch.zeros(n, dtype=torch.bfloat16, device=device),
            torch.zeros(-(-n // DUE_BLOCK), dtype=torch.float64, device=device),
        )

    def update(self, x: Tensor, d: Tensor, scale: float, device: PCMParameters) -> None:
        """Add scale d x^T to chi, pulse the devices without write noise, read what was pulsed."""
        index, count = kernels.accumulate(self.chi, x, d, scale, EPSILON)
        events = PulseEvents(index, count)
        still = torch.zeros(events.total, device=index.device)
        device_kernels.pulse_pairs(*self._state(), events, still, 500.0, *self._way(device))

    def update_at_once(self, x: Tensor, d: Tensor, scale: float, device: PCMParameters) -> None:
        """Do `update` in one pass, where there is a kernel for it."""
        caches = self.weight, self.variance, self.due_s
        still = device.without("write-noise")
        to = Programmable(
            self._state(), caches, BETA_US, still, TOLERANCE, 500.0, ABOVE_US, BOTH_US, seed=1
        )
        program = kernels.program_of(self.chi)
        assert program is not None
        assert program(self.chi, None, (x, d), scale, EPSILON, to) is not None

    def _state(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.conductance_us, self.pulses, self.programmed_at_s, self.exponent

    def _way(self, device: PCMParameters) -> tuple[Any, ...]:
        return BETA_US, device, TOLERANCE, 0.0, self.weight, self.variance, self.due_s

    def read(self, device: PCMParameters, now_s: float) -> None:
        """Read the blocks that are due."""
        g, _, at_s, nu = self._state()
        device_kernels.read_pairs(g, at_s, nu, None, now_s, *self._way(device))


def pcm() -> PCMParameters:
    """Return the device of the paper."""
    device = load("nandakumar2018").device
    assert isinstance(device, PCMParameters)
    return device


def factors(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x and d of one example, (1, width) each, in eighths."""
    g = torch.Generator(device).manual_seed(1)
    x, d = torch.randn(2, 1, width, generator=g, device=device).mul_(8).round_().div_(8)
    return x, d


def check(width: int, device: torch.device) -> dict[str, float]:
    """Return how far the kernels are from the reference at the size timed, by what they do.

    Of values above 1, the share of the value.
    """
    x, d = factors(width, device)
    left: list[dict[str, Tensor]] = []
    for form in ("reference", "cuda"):
        own, one = Pairs.make(width, device), Pairs.make(width, device)
        with device_kernels.use(form):
            index, count = kernels.accumulate(one.chi, x[0], d[0], -(2.0**-10), EPSILON)
            made = {"index": index, "count": count, "chi": one.chi}
            own.update(x[0], d[0], -(2.0**-10), pcm())
            made |= {"pulses": own.pulses, "conductance": own.conductance_us}
            made["written"] = own.weight.clone()
            own.read(pcm(), 1e4)
            made |= {"weight": own.weight, "variance": own.variance, "due": own.due_s}
            made["high"] = device_kernels.high_pairs(own.conductance_us, ABOVE_US, BOTH_US)
        left.append(made)
    reference, found = left
    own = Pairs.make(width, device)
    with device_kernels.use("cuda"):
        own.update_at_once(x[0], d[0], -(2.0**-10), pcm())
    at_once = {"chi": own.chi, "pulses": own.pulses, "conductance": own.conductance_us}
    for name, value in (at_once | {"written": own.weight}).items():
        reference[f"{name}, one pass"], found[f"{name}, one pass"] = reference[name], value
    far = {}
    for name, expected in reference.items():
        same = expected.shape == found[name].shape
        expected, got = expected.double(), found[name].double()
        off = (expected - got).abs() / expected.abs().clamp(min=1) if same else None
        far[name] = math.inf if off is None else float(off.max())
    return far


def agrees(far: dict[str, float]) -> bool:
    """Are the differences those of rounding, and lists alike?"""
    exact = "index", "count", "pulses", "pulses, one pass", "high"
    limits = dict.fromkeys(exact, 0.0) | {"variance": 2.0**-8}
    return all(value <= limits.get(name, 1e-5) for name, value in far.items())
