"""amplitude-response: conductance after pulses swept in voltage, by device and by sweep."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.amplitude_data import KNOTS, NODES, AmplitudeData, cosines, gather
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.priors import log_normal

#: No instrument resolves less, in ln G.
_RESOLUTION = 1e-3


class AmplitudeResponse(CalibrationModel):
    """A smooth curve of ln conductance against voltage, with curves of devices and of sweeps.

    With V the amplitude of the pulse before the read, and f the natural cubic spline through
    ln curve_k [µS] at 14 voltages evenly spaced over those of the table,

        ln read = f(V) + d_i(V) + c_is(V) + N(0, noise(V)^2)
        d_i = spread(V) M(V; length_spread) by device, c_is = cycle(V) M(V; length_cycle) by sweep

    M is a Gaussian process of unit variance, of the Matérn covariance (1 + r) exp(-r), r =
    sqrt(3) |V - V'| / length, splined between the same 14 voltages. It scales the curve where it
    is long, and moves its steps where it is short. ln spread, ln cycle and ln noise are straight
    between seven voltages each. The curve may rise and fall; nothing makes it monotone, and
    beside a step of less than a knot's distance it swings over. Sweeps of a device follow each
    other: c_is has correlation exp(-|s - s'| / memory) between
    sweeps, as its spectrum over the discrete cosines along the sweeps of a device,

        (1 - r^2) / (1 - 2 r cos(w) + r^2) at frequency w, r = exp(-1 / memory).

    All is Gaussian, and integrated out in closed form: the likelihood is that of these equations
    without approximation. The cosines differ from an autoregressive process at the first and
    last sweeps. A step that moves by more than its own width, and sweeps that fall into two
    states, are not Gaussian: of those the mean and the covariance are fitted. One device cannot
    tell a spread: of one, the population is the device, and the constants of spread keep their
    priors. Of a few devices the normal distribution around the mode (svi) is too narrow for the
    spreads, and a memory as long as the sweeps can pass for a spread.
    """

    name = "amplitude-response"
    device_type = ""

    def __init__(self) -> None:
        found = []
        for k in range(KNOTS):
            about = f"median conductance at {k} / {KNOTS - 1} of the range of voltages"
            found.append(Constant(f"curve_{k}", "uS", about, log_normal(10.0, 1.5)))
        for name, about, usual in (
            ("spread", "device-to-device spread of ln G", 0.2),
            ("cycle", "cycle-to-cycle spread of ln G", 0.1),
            ("noise", "noise of ln G from pulse to pulse", 0.05),
        ):
            for k in range(NODES):
                where = f"{about} at {k} / {NODES - 1} of the range"
                found.append(Constant(f"{name}_{k}", "1", where, log_normal(usual, 1.0)))
        for kind, by in (("spread", "device"), ("cycle", "cycle")):
            about = f"voltage over which the {by}-to-{by} spread is correlated"
            found.append(Constant(f"length_{kind}", "V", about, log_normal(0.3, 1.0)))
        about = "sweeps for a decay by e of the correlation between sweeps"
        self.constants = (*found, Constant("memory", "sweep", about, log_normal(5.0, 1.5)))

    def prepare(self, measurements: Measurements) -> AmplitudeData:
        """Return the reads, a column a voltage.

        Raises InputError for a table without amplitude_v or with fewer than 14 voltages, with
        pulses of two kinds, a voltage twice in a sweep or missing in one, a read of 0, or one
        sweep a device.
        """
        return gather(measurements, self.name)

    def start(self, data: AmplitudeData) -> dict[str, Tensor]:
        """Return medians of the priors, and the moments of the reads near knots and nodes."""
        found, logs = super().start(data), data.reads.log()
        means = torch.stack([logs[data.device == k].mean(0) for k in range(data.number)])
        level = torch.linalg.lstsq(data.basis, means.mean(0)[:, None]).solution[:, 0]
        found |= {f"curve_{k}": value.exp() for k, value in enumerate(level)}
        within = (logs - means[data.device]).square().mean(0)
        # What neighbours differ by is noise, and twice its variance.
        noise = logs.diff(dim=1) - logs.diff(dim=1).mean(0)
        noise = torch.cat([noise, noise[:, -1:]], 1).square().mean(0) / 2
        variances = {"noise": noise, "cycle": (within - noise).clamp(min=1e-4)}
        if not data.lone:
            variances["spread"] = (means - means.mean(0)).square().mean(0)
        for name, variance in variances.items():
            smooth = (data.hats[1].T @ variance) / data.hats[1].sum(0)
            deviation = smooth.sqrt().clamp(min=5e-3)
            found |= {f"{name}_{k}": value for k, value in enumerate(deviation)}
        return found

    def log_likelihood(self, values: Values, data: AmplitudeData) -> Tensor:
        level, of_device, of_sweep = _process(values, data)
        weight = 1 / _noise(values, data)  # (draws..., voltages)
        power = _power(values, data)
        scaled = data.basis * weight[..., None]
        a, b = data.basis.T @ scaled, data.modes @ scaled
        q = weight @ (data.modes**2).T
        # The mean of a device's sweeps has the population's curve in it, other modes have none.
        first = data.frequency == 0
        scale = data.sweeps[first].sqrt()
        moved = scale[:, None] * (a @ level[..., None])[..., None, :, 0]
        along = b[..., first, :] - moved / 2
        away = 2 * scale * (along * level[..., None, :]).sum(-1)
        covariance = power[..., first][..., None, None] * of_sweep[..., None, :, :]
        if not data.lone:
            covariance = covariance + data.sweeps[first][:, None, None] * of_device[..., None, :, :]
        mean = _gained(a[..., None, :, :], b[..., first, :] - moved, covariance)
        # All other modes have one covariance but for its size: in its axes they are scalars.
        root, failed = torch.linalg.cholesky_ex(of_sweep)
        stiff, axes = torch.linalg.eigh(root.mT @ a @ root)
        stiff = torch.where((failed == 0)[..., None], stiff.clamp(min=0), torch.inf)
        seen = (b @ (root @ axes)).square()
        grown = 1 + power[..., None] * stiff[..., None, :]
        rest = 0.5 * (power[..., None] * seen / grown - grown.log()).sum(-1)
        # Of the reads, where the curve is of their logarithms.
        n = data.modes.shape[1]
        fixed = data.reads.log().sum(-1) + 0.5 * n * math.log(2 * math.pi)
        total = torch.where(first, 0.0, rest) - fixed - 0.5 * q + 0.5 * weight.log().sum(-1, True)
        return data.by_device(total) + mean + 0.5 * away

    def replicate(self, values: Values, data: AmplitudeData, chance: torch.Generator) -> Tensor:
        """Return reads (sequences, voltages) [µS], of other devices where there are several."""

        def deviate(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=chance, dtype=torch.float64)

        level, of_device, of_sweep = _process(values, data)
        own = level.expand(data.number, KNOTS)
        if not data.lone:
            own = own + deviate(data.number, KNOTS) @ torch.linalg.cholesky(of_device).T
        modes = deviate(len(data.reads), KNOTS) @ torch.linalg.cholesky(of_sweep).T
        modes = modes * _power(values, data).sqrt()[:, None]
        parts = [
            cosines(int((data.device == k).sum())).T @ modes[data.device == k]
            for k in range(data.number)
        ]
        logs = (own[data.device] + torch.cat(parts)) @ data.basis.T
        return (logs + _noise(values, data).sqrt() * deviate(*logs.shape)).exp()

    def groups(self, data: AmplitudeData) -> tuple[str, list[tuple[float, Tensor]]]:
        columns = torch.arange(len(data.volts))
        places = enumerate(data.volts.tolist())
        return "pulse amplitude [V]", [(v, data.seen & (columns == k)) for k, v in places]


def _stacked(values: Values, name: str, number: int) -> Tensor:
    return torch.stack([values[f"{name}_{k}"] for k in range(number)], -1)


def _between(values: Values, name: str, hats: Tensor) -> Tensor:
    """Return spread, cycle or noise at places with these weights of the nodes."""
    # Far beyond all reads: a search may look there, and must find numbers.
    return (_stacked(values, name, NODES).log().clamp(-15, 15) @ hats.T).exp()


def _noise(values: Values, data: AmplitudeData) -> Tensor:
    """Return the variance of the noise of ln reads, (draws..., voltages)."""
    return _between(values, "noise", data.hats[1]) ** 2 + _RESOLUTION**2


def _power(values: Values, data: AmplitudeData) -> Tensor:
    """Return the spectrum of the sweeps' own curves at every mode, (draws..., sequences)."""
    r = torch.exp(-1 / values["memory"])[..., None]
    return (1 - r**2) / (1 - 2 * r * data.frequency.cos() + r**2)


def _process(values: Values, data: AmplitudeData) -> tuple[Tensor, Tensor, Tensor]:
    """Return f at the knots (draws..., KNOTS), and the covariances of d and c there."""
    level = _stacked(values, "curve", KNOTS).log()
    apart = (data.knots[:, None] - data.knots).abs() * math.sqrt(3)
    found = []
    for kind in ("spread", "cycle"):
        r = apart / values[f"length_{kind}"].clamp(1e-6, 1e6)[..., None, None]
        size = _between(values, kind, data.hats[0])
        # Knots much closer than the length are alike: the rest keeps them apart in rounding.
        matern = (1 + r) * torch.exp(-r) + 1e-6 * torch.eye(KNOTS, dtype=r.dtype)
        found.append(size[..., :, None] * matern * size[..., None, :])
    return level, found[0], found[1]


def _gained(a: Tensor, b: Tensor, covariance: Tensor) -> Tensor:
    """Return ln of the mean of exp(b.x - x.a.x / 2) over x of N(0, covariance)."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    inner = root.mT @ a @ root
    inner = inner + torch.eye(inner.shape[-1], dtype=a.dtype)
    factor, failed_too = torch.linalg.cholesky_ex(inner)
    white = torch.linalg.solve_triangular(factor, root.mT @ b[..., None], upper=False)
    volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    found = 0.5 * white.square().sum((-2, -1)) - volume
    # Constants far out are lost in rounding; they are as good as impossible.
    return torch.where((failed == 0) & (failed_too == 0), found, -torch.inf)
