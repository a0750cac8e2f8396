"""relaxation: how the conductance of RRAM cells wanders in the logarithm of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.data import devices_of, padded, runs_of
from calibration.models.priors import half_normal, log_normal, normal
from calibration.models.quadrature import nodes
from calibration.models.sequences import Sequences
from devicemodels.errors import InputError

#: Nodes of the quadrature over a cell's own diffusion.
_NODES = 7
_MOST_READS = 200
#: No instrument resolves less [µS].
_RESOLUTION = 0.005


@dataclass(frozen=True, kw_only=True)
class RelaxationData(Sequences):
    """Sequences of reads, the first after programming; time_s counts from that read.

    reference: median of the first reads [µS].
    """

    time_s: Tensor
    reference: float


class Relaxation(CalibrationModel):
    """Diffusion in the logarithm of time after programming, with a drift towards lower values.

    With s = ln(1 + t/tau), x = G0 / reference - 1, G0 the read after programming and reference
    the median of those,

        G(t) = G0 + (rate + rate_slope x) s + f sigma(x) B(s),  B a Brownian motion
        ln sigma(x) = ln sigma + sigma_slope x + sigma_bend x^2,  ln f ~ N(0, spread) by device

    and every read has noise N(0, read). ln f is integrated out by Gauss-Hermite quadrature; it
    is what gives the changes their heavy tails. The form, a variance that grows with log time,
    is what is seen in the relaxation of HfO2 cells (a model of the data, not of a filament); the
    level of sigma is taken at the first read as if that were exact.
    """

    name = "relaxation"
    device_type = ""
    family = "retention"

    def __init__(self) -> None:
        self.constants = (
            Constant(
                "rate", "uS", "mean change per e-fold of time at G0 = reference", normal(0, 1)
            ),
            Constant("rate_slope", "uS", "its change with G0 / reference", normal(0, 1)),
            Constant("sigma", "uS", "diffusion over one e-fold of time", log_normal(0.5, 1.5)),
            Constant("sigma_slope", "1", "change of ln sigma with G0 / reference", normal(0, 1)),
            Constant("sigma_bend", "1", "bend of ln sigma with G0 / reference", normal(0, 1)),
            Constant("spread", "1", "device-to-device spread of ln sigma", half_normal(1.0)),
            Constant("tau", "s", "time at which the change sets in", log_normal(1e-2, 3.0)),
            Constant("read", "uS", "noise of a read", half_normal(1.0)),
        )
        self._nodes, self._log_weights = nodes(_NODES)

    def prepare(self, measurements: Measurements) -> RelaxationData:
        """Return the reads; a sequence is a programmed cell left alone, read at its times."""
        frame = measurements.frame
        if "time_s" not in frame:
            raise InputError(
                f"{measurements.source}: {self.name} needs the time of every read: add time_s"
            )
        runs = []
        for run in runs_of(measurements):
            if (run.pulses[1:] != "read").any():
                raise InputError(
                    f"{run.where}: a pulse after "
                    f"the first read: {self.name} follows a cell that is left alone; begin a new "
                    "sequence at every pulse"
                )
            if len(run.reads) > _MOST_READS:
                raise InputError(f"{run.where}: {len(run.reads)} reads: thin them to {_MOST_READS}")
            if len(run.reads) > 1:
                runs.append(run)
        if not runs:
            raise InputError(f"{measurements.source}: no sequence of two reads: nothing to fit")
        reads = padded([run.reads for run in runs])
        times = [run.rows["time_s"].to_numpy() for run in runs]
        return RelaxationData(
            reads=reads,
            seen=padded([np.ones(len(run.reads)) for run in runs], bool),
            time_s=padded([time_s - time_s[0] for time_s in times]),
            device=devices_of(runs),
            number=len(measurements.devices),
            reference=float(np.median(reads[:, 0])),
        )

    def log_likelihood(self, values: Values, data: RelaxationData) -> Tensor:
        """Return ln p(later reads | first read), (draws..., devices)."""
        v = {name: value[..., None, None] for name, value in values.items()}  # draws, 1, 1
        s, mean, sigma = self._course(v, data)
        later = data.seen[:, 1:]
        both = later[:, :, None] & later[:, None, :]
        # The first read's own noise is in all differences from it.
        each = torch.eye(later.shape[1])
        noise = (v["read"][..., None] ** 2 + _RESOLUTION**2) * (each + 1)
        # Reads at one time have one path: the rest keeps the factors apart in rounding.
        path = torch.minimum(s[..., :, None], s[..., None, :])
        path = path + 1e-9 * path.amax((-2, -1), keepdim=True) * each
        factor = torch.exp(values["spread"][..., None] * self._nodes)[..., None]  # draws, nodes, 1
        variance = (factor * sigma.squeeze(-1)[..., None, :]) ** 2
        covariance = variance[..., None, None] * path[..., None, :, :, :]
        covariance = covariance + noise[..., None, :, :, :]
        covariance = torch.where(both, covariance, each)
        change = torch.where(later, data.reads[:, 1:] - data.reads[:, :1] - mean, 0.0)
        root, failed = torch.linalg.cholesky_ex(covariance)
        change = change[..., None, :, :, None].expand(*root.shape[:-1], 1)
        white = torch.linalg.solve_triangular(root, change, upper=False).squeeze(-1)
        diagonal = root.diagonal(dim1=-2, dim2=-1)
        total = -0.5 * (white**2).sum(-1) - torch.log(diagonal).sum(-1)
        total = total - 0.5 * math.log(2 * math.pi) * later.sum(-1)
        # Constants far out overflow; they are as good as impossible.
        total = torch.where(failed == 0, total, -torch.inf)
        return torch.logsumexp(data.by_device(total) + self._log_weights[:, None], dim=-2)

    def _course(self, v: Any, data: RelaxationData) -> tuple[Tensor, Tensor, Tensor]:
        """Return s and the mean change (draws..., sequences, later), sigma (..., sequences, 1)."""
        x = (data.reads[:, :1] / data.reference - 1).clamp(max=3.0)
        s = torch.log1p(data.time_s[:, 1:] / v["tau"])
        mean = (v["rate"] + v["rate_slope"] * x) * s
        return s, mean, v["sigma"] * torch.exp(v["sigma_slope"] * x + v["sigma_bend"] * x**2)

    def replicate(self, values: Values, data: RelaxationData, chance: torch.Generator) -> Tensor:
        """Return reads (sequences, reads) from the measured first reads on; padding is 0."""

        def deviate(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=chance, dtype=torch.float64)

        s, mean, sigma = self._course(values, data)
        factor = torch.exp(values["spread"] * deviate(data.number))[data.device, None]
        steps = torch.diff(s, dim=1, prepend=torch.zeros_like(s[:, :1])).clamp(min=0).sqrt()
        path = torch.cumsum(steps * deviate(*steps.shape), 1)
        first = data.reads[:, :1] - values["read"] * deviate(len(s), 1)
        later = first + mean + factor * sigma * path + values["read"] * deviate(*s.shape)
        reads = torch.cat([data.reads[:, :1], later], 1).clamp(min=0)
        return torch.where(data.seen, reads, 0.0)

    def groups(self, data: RelaxationData) -> tuple[str, list[tuple[float, Tensor]]]:
        ages = data.time_s[data.seen].unique()
        if len(ages) > 20:
            ages = ages[torch.linspace(0, len(ages) - 1, 20).long()]
        places = [(float(age), data.seen & (data.time_s == age)) for age in ages]
        return "time since the first read [s]", places
