"""set-response: the SET steps of phase-change memory from RESET, with history."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.data import PAD, READ, Data, devices_of, last_of_pulse, padded, runs_of
from calibration.models.priors import half_normal, log_normal, normal
from calibration.models.set_filter import Blocks, blocks
from calibration.models.set_integral import devices
from devicemodels.errors import InputError

#: What came before a read beside `PAD` and `READ`.
SET = 2


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

    @functools.cached_property
    def blocks(self) -> Blocks:
        """The reads by the pulse before them."""
        return blocks(self.reads, self.seen, self.pulse)

    @functools.cached_property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What the kernel is given: the first sequence of each device, and the blocks."""
        first = np.searchsorted(self.device.numpy(), np.arange(self.number + 1))
        b = self.blocks
        counts = b.number.long(), b.mean, b.square, b.zeros.long(), b.length
        return first, *(np.ascontiguousarray(value.numpy()) for value in counts)


class _Filter(Function):
    """The kernel's likelihood (draws, devices) of constants theta (draws, 14), with its gradient.

    Devices are shared out among torch's threads; each is computed alone, so their number does not
    change a result.
    """

    @staticmethod
    def forward(ctx: Any, theta: Tensor, data: SetData, heavy: bool) -> Tensor:
        sloped = ctx.needs_input_grad[0]
        value = np.empty((len(theta), len(data)))
        slope = np.empty((*value.shape, theta.shape[1]) if sloped else (0, 0, 0))
        given = theta.detach().numpy(), *data.arrays, heavy, sloped, value, slope
        threads = torch.get_num_threads()
        ends = [len(data) * k // threads for k in range(threads + 1)]
        list(_pool(threads).map(lambda a, b: devices(a, b, *given), ends[:-1], ends[1:]))
        ctx.save_for_backward(torch.as_tensor(slope))
        return torch.as_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (above[..., None] * slope).sum(1), None, None


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


class SetResponse(CalibrationModel):
    """SET steps of Nandakumar et al., J. Appl. Phys. 124, 152135 (2018), read with noise.

    With p the SET pulses since RESET, this one counted, and f a device's own factor,

        G' = clip(G + f mu + f sigma N(0, 1), g_min, g_max)
        mu = m1 G + c1 + A1 exp(-p/a),   sigma = m2 G + c2 + A2 exp(-p/a)
        read = G + (m3 G + c3) N(0, 1),  ln f ~ N(0, spread)

    and RESET leaves N(reset_mean, reset_std), at least 0. A read below 0 is written as 0. The true
    G is not seen: it is followed by assumed density filtering (`set_filter`: a Gaussian belief
    after every pulse's reads, all integrals over it by quadrature, clipping included), and f is
    integrated out by adaptive Gauss-Hermite quadrature. heavy_tails: a SET step's noise is
    Student-t with four degrees of freedom.
    """

    name = "set-response"
    device_type = "pcm"
    family = "pulses"
    clips = True

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
        theta = torch.stack(torch.broadcast_tensors(*(values[c.name] for c in self.constants)), -1)
        flat = theta.reshape(-1, len(self.constants))
        found: Tensor = _Filter.apply(flat, data, self.heavy_tails)
        return found.view(*theta.shape[:-1], len(data))

    def groups(self, data: SetData) -> tuple[str, list[tuple[float, Tensor]]]:
        last = last_of_pulse(data.kind, data.seen)
        places = range(int(data.pulse.max()) + 1)
        return "SET pulses since RESET", [(float(p), last & (data.pulse == p)) for p in places]

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
