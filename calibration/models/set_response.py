"""set-response: the SET steps of phase-change memory from RESET, with history."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import StudentT
from torch.special import log_ndtr

from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.data import PAD, READ, Data, devices_of, last_of_pulse, padded, runs_of
from calibration.models.priors import half_normal, log_normal, normal
from calibration.models.quadrature import nodes
from devicemodels.errors import InputError

#: What came before a read beside `PAD` and `READ`.
SET = 2
#: Nodes of the quadrature over a device's own step factor.
_NODES = 7
#: No instrument resolves less [µS]; it keeps clipped reads of noiseless tables from a density
#: without bound.
_RESOLUTION = 0.005
_TINY = 1e-12


@dataclass(frozen=True)
class SetData(Data):
    """Sequences of reads, each from a RESET, padded to one length.

    reads: (sequences, steps) [µS], the first after RESET. kind: what came before a read (a SET
    pulse, nothing, or padding). pulse: SET pulses since RESET, this one counted.
    """

    per_row = ("reads", "kind", "pulse")

    reads: Tensor
    kind: Tensor
    pulse: Tensor
    device: Tensor
    number: int

    @property
    def seen(self) -> Tensor:  # type: ignore[override]
        return self.kind != PAD


@dataclass(frozen=True)
class _Belief:
    """The true conductance after the reads so far: mean and variance, [µS] and [µS²]."""

    mean: Tensor
    variance: Tensor


class SetResponse(CalibrationModel):
    """SET steps of Nandakumar et al., J. Appl. Phys. 124, 152135 (2018), read with noise.

    With p the SET pulses since RESET, this one counted, and f a device's own factor,

        G' = clip(G + f mu + f sigma N(0, 1), g_min, g_max)
        mu = m1 G + c1 + A1 exp(-p/a),   sigma = m2 G + c2 + A2 exp(-p/a)
        read = G + (m3 G + c3) N(0, 1),  ln f ~ N(0, spread)

    and RESET leaves N(reset_mean, reset_std). A read below 0 is written as 0. The true G is not
    seen: it is followed by assumed density filtering (a Gaussian belief, corrected by every
    read, clipping included), and f is integrated out by Gauss-Hermite quadrature. heavy_tails:
    a SET step's noise is Student-t with four degrees of freedom in the likelihood of a read.
    """

    name = "set-response"
    device_type = "pcm"

    def __init__(self, heavy_tails: bool = False) -> None:
        self.heavy_tails = heavy_tails
        self.constants = (
            Constant("m1", "1", "slope of the mean SET step against G", normal(-0.1, 0.15)),
            Constant("c1", "uS", "mean SET step at G = 0 after many pulses", log_normal(0.8, 1.0)),
            Constant("A1", "uS", "history: extra mean step", normal(1.0, 2.0)),
            Constant("a", "pulse", "history: pulses for a decay by e", log_normal(3.0, 0.7)),
            Constant("m2", "1", "slope of the write noise against G", normal(0.1, 0.1)),
            Constant("c2", "uS", "write noise at G = 0 after many pulses", log_normal(0.3, 1.0)),
            Constant("A2", "uS", "history: extra write noise", log_normal(1.0, 1.0)),
            Constant("m3", "1", "slope of the read noise against G", half_normal(0.05)),
            Constant("c3", "uS", "read noise at G = 0", half_normal(0.3)),
            Constant("spread", "1", "device-to-device spread of the step", half_normal(0.3)),
            Constant("g_min", "uS", "lowest conductance", log_normal(0.1, 1.0)),
            Constant("g_max", "uS", "highest conductance", log_normal(20.0, 0.7)),
            Constant("reset_mean", "uS", "mean conductance after RESET", log_normal(0.2, 1.5)),
            Constant("reset_std", "uS", "spread of the conductance after RESET", half_normal(0.5)),
        )
        self._nodes, self._log_weights = nodes(_NODES)

    def prepare(self, measurements: Measurements) -> SetData:
        """Return the reads; every sequence must begin with a RESET and hold only SET and reads."""
        frame = measurements.frame
        other = frame[~frame["pulse"].isin(("set", "reset", "read"))]
        if len(other):
            raise InputError(
                f"{measurements.source}: {self.name} knows set, reset and read, and device "
                f"{other['device'].iloc[0]} has a pulse {other['pulse'].iloc[0]!r}: fit these rows "
                "with --model step-response"
            )
        runs = runs_of(measurements)
        for run in runs:
            if run.pulses[0] != "reset" or (run.pulses[1:] == "reset").any():
                raise InputError(
                    f"{run.where}: {self.name} "
                    "counts pulses from a RESET: begin the sequence with the read after it "
                    "(pulse = reset), and give every RESET a sequence of its own"
                )
        is_set = [run.pulses == "set" for run in runs]
        if not any(one.any() for one in is_set):
            raise InputError(f"{measurements.source}: no SET pulses: nothing to fit")
        return SetData(
            padded([run.reads for run in runs]),
            padded([np.where(one, SET, READ) for one in is_set], np.int64),
            padded([np.cumsum(one) for one in is_set]),
            devices_of(runs),
            len(measurements.devices),
        )

    def start(self, data: SetData) -> dict[str, Tensor]:
        """Return the medians of the priors, and bounds at the reads' own ends."""
        # From above, the reads piled up at a bound would pass for a bend of the response.
        return super().start(data) | {"g_max": data.reads.max()}

    def log_likelihood(self, values: Values, data: SetData) -> Tensor:
        spread = values["spread"][..., None, None]
        factor = torch.exp(spread * self._nodes[:, None])  # (draws..., nodes, 1)
        v = {name: value[..., None, None] for name, value in values.items()}
        total = self._sequences(v, factor, data)
        if len(data.device) != data.number or (data.device.diff() != 1).any():
            total = data.by_device(total)
        return torch.logsumexp(total + self._log_weights[:, None], dim=-2)

    def groups(self, data: SetData) -> tuple[str, list[tuple[float, Tensor]]]:
        last = last_of_pulse(data.kind, data.seen)
        places = range(int(data.pulse.max()) + 1)
        return "SET pulses since RESET", [(float(p), last & (data.pulse == p)) for p in places]

    def _sequences(self, v: dict[str, Tensor], factor: Tensor, data: SetData) -> Tensor:
        """Return ln p of each sequence given its device's factor, (draws..., nodes, sequences)."""
        first = data.reads[:, 0]
        before = _Belief(v["reset_mean"], v["reset_std"] ** 2 + _TINY)
        total, belief = _read(before, first, v)
        total, zero = total + 0 * factor, 0 * factor
        belief = _Belief(belief.mean + zero, belief.variance + zero)
        for k in range(1, data.reads.shape[1]):
            kind, y = data.kind[:, k], data.reads[:, k]
            gained, after = self._step(belief, factor, data.pulse[:, k], y, v)
            if (kind != SET).any():
                again, held = _read(belief, y, v)
                is_set, is_read = kind == SET, kind == READ
                gained = torch.where(is_set, gained, torch.where(is_read, again, 0.0))
                mean = torch.where(is_set, after.mean, held.mean)
                after = _Belief(mean, torch.where(is_set, after.variance, held.variance))
            total, belief = total + gained, after
        return total

    def _step(
        self, belief: _Belief, factor: Tensor, pulse: Tensor, y: Tensor, v: dict[str, Tensor]
    ) -> tuple[Tensor, _Belief]:
        """Return ln p(read y) after a SET pulse, and the belief corrected by y."""
        history = torch.exp(-pulse / v["a"])
        mean = belief.mean + factor * (v["m1"] * belief.mean + v["c1"] + v["A1"] * history)
        noise = factor * (v["m2"] * belief.mean + v["c2"] + v["A2"] * history).clamp(min=1e-4)
        grown = (1 + factor * v["m1"]) ** 2 * belief.variance
        variance = grown + noise**2
        low, high, deviation = v["g_min"], v["g_max"], variance.sqrt()
        r2 = _read_variance(y.clamp(min=0), v)
        seen = variance + r2
        corrected = mean + variance / seen * (y - mean)
        left = variance * r2 / seen
        inside = log_ndtr((corrected - low) / left.sqrt())
        inside = inside + log_ndtr((high - corrected) / left.sqrt())
        inside = inside + self._density(y, mean, seen)
        at_low = log_ndtr((low - mean) / deviation) + _density(y, low, _read_variance(low, v))
        at_high = log_ndtr((mean - high) / deviation) + _density(y, high, _read_variance(high, v))
        found = torch.stack(torch.broadcast_tensors(inside, at_low, at_high))
        total = torch.logsumexp(found, 0)
        share = torch.exp(found - total)
        corrected = torch.minimum(torch.maximum(corrected, low), high)
        middle = share[0] * corrected + share[1] * low + share[2] * high
        around = share[0] * (left + (corrected - middle) ** 2)
        around = around + share[1] * (low - middle) ** 2 + share[2] * (high - middle) ** 2
        return total, _Belief(middle, around + _TINY)

    def _density(self, y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        if not self.heavy_tails:
            return _density(y, mean, variance)
        # Of the same variance as the Gaussian: 4 / (4 - 2) = 2.
        return StudentT(4.0, mean, (variance / 2).sqrt(), validate_args=False).log_prob(y)

    def replicate(self, values: Values, data: SetData, chance: torch.Generator) -> Tensor:
        """Return reads (sequences, steps); padding is 0."""
        v = {name: float(value) for name, value in values.items()}

        def deviate(n: int) -> Tensor:
            return torch.randn(n, generator=chance, dtype=torch.float64)

        factor = torch.exp(v["spread"] * deviate(data.number))[data.device]
        n, steps = data.reads.shape
        g = (v["reset_mean"] + v["reset_std"] * deviate(n)).clamp(min=0)
        reads = torch.zeros_like(data.reads)
        for k in range(steps):
            if k:
                history = torch.exp(-data.pulse[:, k] / v["a"])
                step = v["m1"] * g + v["c1"] + v["A1"] * history
                noise = (v["m2"] * g + v["c2"] + v["A2"] * history).clamp(min=0)
                if self.heavy_tails:
                    four = (deviate(4 * n) ** 2).view(4, n).mean(0)
                    tail = deviate(n) * torch.rsqrt(four) / math.sqrt(2)
                else:
                    tail = deviate(n)
                after = (g + factor * (step + noise * tail)).clamp(v["g_min"], v["g_max"])
                g = torch.where(data.kind[:, k] == SET, after, g)
            seen = (g + (v["m3"] * g + v["c3"]) * deviate(n)).clamp(min=0)
            reads[:, k] = torch.where(data.kind[:, k] == PAD, 0.0, seen)
        return reads


def _read(belief: _Belief, y: Tensor, v: dict[str, Tensor]) -> tuple[Tensor, _Belief]:
    """Return ln p(read y) of an unchanged device, and the belief corrected by y."""
    r2 = _read_variance(belief.mean, v)
    seen = belief.variance + r2
    difference = y - belief.mean
    gain = belief.variance / seen
    return _density(y, belief.mean, seen), _Belief(belief.mean + gain * difference, gain * r2)


def _read_variance(g: Tensor, v: dict[str, Tensor]) -> Tensor:
    return (v["m3"] * g + v["c3"]) ** 2 + _RESOLUTION**2


def _density(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return ln N(y; mean, variance); of a read that is 0, ln of all the chance at or below it."""
    difference = y - mean
    there = -0.5 * (difference**2 / variance + torch.log(2 * math.pi * variance))
    if (y > 0).all():
        return there
    return torch.where(y > 0, there, log_ndtr(-mean * variance.rsqrt()))
