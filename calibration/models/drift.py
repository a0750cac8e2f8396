"""drift: the decay of phase-change memory after programming, its exponent by device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.priors import half_normal, normal
from calibration.models.sequences import PROGRAMMING, Sequences, gather
from devicemodels.errors import InputError

#: Spread of the prior of ln G0: three, a factor of 20, says nothing of any one sequence.
_WIDE = 3.0
#: No instrument repeats a read better; it keeps noiseless tables from a density without bound.
_RESOLUTION = 1e-4
_BINS = 12


@dataclass(frozen=True, kw_only=True)
class DriftData(Sequences):
    """Reads at ages time_s [s] after programming, which is always given here.

    reference: ln of the geometric mean of the sequences' first reads [ln µS].
    """

    time_s: Tensor
    reference: float


@dataclass(frozen=True)
class _Sums:
    """Of each sequence: reads, and ln read (y) against x = -ln(age/t0): means, sums about them.

    first: ln of the first read less the reference. All (sequences,).
    """

    n: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor
    first: Tensor


class Drift(CalibrationModel):
    """Drift of Nandakumar et al., J. Appl. Phys. 124, 152135 (2018), read with a relative error.

    With t the time since programming [s] and nu a device's own exponent,

        read = G0 max(t/t0, 1)^(-nu_k) (1 + read_error N(0, 1))
        nu_k = nu + nu_slope (ln g - reference),   nu ~ N(nu_mean, nu_std)

    G0 is free in every sequence; g is the sequence's first read and reference the mean of ln g,
    so that nu_mean is the exponent at the typical conductance. g is taken as known: exact for an
    exponent that depends on that read, and its noise blurs nu_slope where the levels of a table
    differ by no more than that. As in `PCMArray`, a read younger than t0, the one of the
    programming row at age 0 too, sees no drift and counts as a read of G0. In logarithms, with
    ln(1 + e) = e, all is linear and Gaussian, and G0 and nu are integrated out in closed form.

    t0_s: time after programming at which G0 is stated [s].
    """

    name = "drift"
    device_type = "pcm"
    family = "retention"

    def __init__(self, t0_s: float = 38.6) -> None:
        if not (t0_s > 0 and math.isfinite(t0_s)):
            raise InputError(f"drift: t0_s = {t0_s:g}: give a time above 0 in seconds")
        self.t0_s = t0_s
        self.constants = (
            Constant("nu_mean", "1", "mean drift exponent", normal(0.05, 0.05)),
            Constant("nu_std", "1", "device-to-device spread of the exponent", half_normal(0.03)),
            Constant("nu_slope", "1", "exponent against ln conductance", normal(0.0, 0.05)),
            Constant("read_error", "1", "relative error of a read", half_normal(0.1)),
        )

    def prepare(self, measurements: Measurements) -> DriftData:
        """Return the reads: of each sequence the one after a SET or RESET, then later ones.

        time_s is the time since that pulse, and the age of each read [s]: 0 or more in the row
        of the pulse, above 0 in the others. Raises InputError for any other table, for a read of
        0, which has no logarithm, and where no read is later than t0.
        """
        if "time_s" not in measurements.frame:
            raise InputError(
                f"{measurements.source}: column time_s is missing: drift needs the seconds since "
                "programming of every read: add it"
            )
        found = gather(
            measurements,
            PROGRAMMING,
            "drift counts from programming: begin the sequence with the read after its last pulse "
            "(pulse = set or reset)",
            "has no logarithm",
        )
        frame = measurements.frame
        wrong = (frame["time_s"] < 0) | ((frame["time_s"] == 0) & (frame["pulse"] == "read"))
        if wrong.any():
            row = frame[wrong].iloc[0]
            raise InputError(
                f"{measurements.source}: device {row['device']}, sequence {row['sequence']}, step "
                f"{row['step']}: time_s = {row['time_s']:g} is no age of a read: give the seconds "
                "since the programming pulse"
            )
        if not (frame["time_s"] > self.t0_s).any():
            raise InputError(
                f"{measurements.source}: no read is later than t0 = {self.t0_s:g} s after "
                "programming: nothing drifts before: read later"
            )
        return DriftData(**found, reference=float(found["reads"][:, 0].log().mean()))

    def start(self, data: DriftData) -> dict[str, Tensor]:
        """Return the medians of the priors, and the mean exponent of all reads together."""
        sums = self._sums(data)
        return super().start(data) | {"nu_mean": sums.xy.sum() / sums.xx.sum().clamp(min=1e-12)}

    def log_likelihood(self, values: Values, data: DriftData) -> Tensor:
        """Return ln p of the logarithms of a device's reads, (draws..., devices)."""
        v = {name: value[..., None] for name, value in values.items()}
        s = self._sums(data)
        s2 = _error(v)
        # Of a sequence whose G0 is integrated out, what is about its mean has the variance of a
        # read, and its mean has that of the level besides.
        scatter, mean = 1 / s2, s.n / (s2 + s.n * _WIDE**2)
        slope = v["nu_mean"] + v["nu_slope"] * s.first
        at = s.y - slope * s.x - data.reference
        square = scatter * (s.yy - slope * (2 * s.xy - slope * s.xx)) + mean * at**2
        log = s.n * math.log(2 * math.pi) + (s.n - 1) * s2.log() + (s2 + s.n * _WIDE**2).log()
        # nu, which a device's sequences share, less its mean enters as exp(force nu - curve nu²/2).
        force = data.by_device(scatter * (s.xy - slope * s.xx) + mean * s.x * at)
        curve = data.by_device(scatter * s.xx + mean * s.x**2)
        widened = 1 + v["nu_std"] ** 2 * curve
        gained = v["nu_std"] ** 2 * force**2 / widened
        return -0.5 * (data.by_device(square + log) - gained + widened.log())

    def log_density(self, values: Values, data: DriftData) -> Tensor:
        """Return ln p of a device's reads [µS], (draws..., devices); d ln G = dG / G."""
        logs = torch.where(data.seen, data.reads, 1.0).log().sum(1)
        return self.log_likelihood(values, data) - data.by_device(logs)

    def replicate(self, values: Values, data: DriftData, chance: torch.Generator) -> Tensor:
        """Return reads (sequences, reads) of new devices at the levels of the measured ones.

        Exponents and errors are fresh; the level that fits best, which is free, is that of the
        measured sequence, so that measured reads rank evenly among replicates. Padding is 0.
        """

        def normals(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=chance, dtype=torch.float64)

        x, s2, spread2 = self._x(data), _error(values), values["nu_std"] ** 2
        y = torch.where(data.seen, data.reads, 1.0).log()
        nu = values["nu_mean"] + values["nu_slope"] * (y[:, :1] - data.reference)
        nu = nu + values["nu_std"] * normals(data.number)[data.device, None]
        again = nu * x + torch.log1p((s2.sqrt() * normals(*y.shape)).clamp(min=-0.99))
        # Generalised least squares: errors of the reads and, as long as x, of the exponent.
        weight = spread2 * x.sum(1, keepdim=True) / (s2 + spread2 * (x**2).sum(1, keepdim=True))
        weight = torch.where(data.seen, 1 - weight * x, 0.0)
        level = (weight * (y - again)).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return torch.where(data.seen, torch.exp(level + again), 0.0)

    def groups(self, data: DriftData) -> tuple[str, list[tuple[float, Tensor]]]:
        """Return ages in up to twelve bins of equal width in ln t, and age 0 where it was read."""
        zero = data.seen & (data.time_s == 0)
        found = [(0.0, zero)] if zero.any() else []
        later = data.seen & (data.time_s > 0)
        log = torch.where(later, data.time_s, 1.0).log()
        low, high = float(log[later].min()), float(log[later].max())
        edges = torch.as_tensor(np.linspace(low, high, _BINS + 1)[1:-1])
        place = torch.bucketize(log, edges, right=True)
        for k in range(_BINS):
            where = later & (place == k)
            if where.any():
                found.append((float(log[where].mean().exp()), where))
        return "time since programming [s]", found

    def _x(self, data: DriftData) -> Tensor:
        return -(data.time_s / self.t0_s).clamp(min=1).log()

    def _sums(self, data: DriftData) -> _Sums:
        seen = data.seen.double()
        n = seen.sum(1)
        x, y = self._x(data), torch.where(data.seen, data.reads, 1.0).log()
        mean_x, mean_y = (seen * x).sum(1) / n, (seen * y).sum(1) / n
        dx, dy = seen * (x - mean_x[:, None]), seen * (y - mean_y[:, None])
        first = y[:, 0] - data.reference
        return _Sums(n, mean_x, mean_y, (dx**2).sum(1), (dx * dy).sum(1), (dy**2).sum(1), first)


def _error(v: Values) -> Tensor:
    return v["read_error"] ** 2 + _RESOLUTION**2
