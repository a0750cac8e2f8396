"""Phase-change memory that is programmed once and then read: write noise, drift, read noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from devicemodels.errors import InputError
from devicemodels.quantities import Parameters, quantity
from devicemodels.state import Chance, StateModule

#: Stands for a target of 0 where ln r or a power of r is asked for; every fit is clipped there.
_LEAST_RATIO = 1e-12


@dataclass(frozen=True, kw_only=True)
class ProgrammedPCMParameters(Parameters):
    """Fits against r = target / g_max (Joshi et al., Nat. Commun. 11:2473, 2020).

    write noise = write_0 + write_1 r + write_2 r^2; drift exponent |N(mean, std)| with mean and
    std linear in ln r, clipped; read noise G(t) Q sqrt(ln((t + t_read) / (2 t_read))) with
    Q = min(q_at_1 / r^q_power, q_max).
    """

    g_max: float = quantity("uS", 1e-3, 1e4, "highest conductance that is written")
    write_0: float = quantity("uS", 0, 1e3, "write noise at a target of 0")
    write_1: float = quantity("uS", -1e3, 1e3, "write noise, coefficient of r")
    write_2: float = quantity("uS", -1e3, 1e3, "write noise, coefficient of r squared")
    t0_s: float = quantity("s", 1e-9, 1e9, "time after programming at which G is stated")
    nu_mean_slope: float = quantity("1", -1, 1, "mean drift exponent, slope against ln r")
    nu_mean_at_1: float = quantity("1", -1, 1, "mean drift exponent at r = 1, before clipping")
    nu_mean_low: float = quantity("1", 0, 1, "mean drift exponent, lower clip")
    nu_mean_high: float = quantity("1", 0, 1, "mean drift exponent, upper clip")
    nu_std_slope: float = quantity("1", -1, 1, "spread of the drift exponent, slope against ln r")
    nu_std_at_1: float = quantity("1", -1, 1, "spread of the drift exponent at r = 1, unclipped")
    nu_std_low: float = quantity("1", 0, 1, "spread of the drift exponent, lower clip")
    nu_std_high: float = quantity("1", 0, 1, "spread of the drift exponent, upper clip")
    q_at_1: float = quantity("1", 0, 10, "read noise Q at r = 1")
    q_power: float = quantity("1", 0, 10, "read noise: Q falls as this power of r")
    q_max: float = quantity("1", 0, 10, "read noise: upper clip of Q")
    t_read_s: float = quantity("s", 1e-12, 1, "duration of a read")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("nu_mean", "nu_std"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if low > high:
                raise InputError(f"{name}_low = {low} must not be above {name}_high = {high}")
        if self.t_read_s > self.t0_s:
            raise InputError(f"t_read_s = {self.t_read_s} s must not be above t0_s = {self.t0_s} s")

    def write_std(self, ratio: Tensor) -> Tensor:
        """Return the write noise [µS] of targets at ``ratio`` of g_max."""
        return (self.write_0 + ratio * (self.write_1 + ratio * self.write_2)).clamp(min=0)

    def exponent(self, ratio: Tensor, normal: Tensor) -> Tensor:
        """Return the drift exponents |N(mean, std)| of devices with these standard normals."""
        log = ratio.clamp(min=_LEAST_RATIO).log()
        mean = (self.nu_mean_slope * log + self.nu_mean_at_1).clamp(
            self.nu_mean_low, self.nu_mean_high
        )
        std = (self.nu_std_slope * log + self.nu_std_at_1).clamp(self.nu_std_low, self.nu_std_high)
        return (mean + std * normal).abs()

    def noise_level(self, ratio: Tensor) -> Tensor:
        """Return Q, the part of the read noise that depends on the target."""
        return (self.q_at_1 / ratio.clamp(min=_LEAST_RATIO) ** self.q_power).clamp(max=self.q_max)

    def log_drift(self, time_s: float) -> float:
        """Return ln((t + t0) / t0), by which an exponent acts ``time_s`` after programming."""
        return math.log1p(max(time_s, 0.0) / self.t0_s)

    def noise_growth(self, time_s: float) -> float:
        """Return sqrt(ln((t + t_read) / (2 t_read))); before t0, where no fit is, as at t0."""
        t = max(time_s, self.t0_s)
        return math.sqrt(math.log((t + self.t_read_s) / (2 * self.t_read_s)))


class ProgrammedPCMArray(StateModule):
    """``size`` PCM devices, at 0 until they are written.

    target_us, conductance_us: what was asked for and what was written [µS], at t0. exponent: drift
    exponent of each device at its target. normal: the device's place among its like, which fixes
    the exponent at any target. Times count from the programming [s]. Reading changes no state.
    """

    target_us: Tensor
    conductance_us: Tensor
    exponent: Tensor
    normal: Tensor
    chance: Chance

    def __init__(self, size: int, parameters: ProgrammedPCMParameters, chance: Chance) -> None:
        super().__init__()
        self.physics = parameters
        self.borrow("chance", chance)
        normal = chance.normal(size)
        zeros = torch.zeros(size, dtype=torch.float32, device=normal.device)
        self.register_buffer("target_us", zeros)
        self.register_buffer("conductance_us", zeros.clone())
        self.register_buffer("exponent", parameters.exponent(zeros, normal))
        self.register_buffer("normal", normal)

    def write(self, target_us: Tensor) -> None:
        """Program every device once, at its target (size,) [µS] within 0 to g_max."""
        p = self.physics
        self.target_us.copy_(target_us).clamp_(0, p.g_max)
        self.exponent.copy_(p.exponent(self.target_us / p.g_max, self.normal))
        self.rewrite(torch.arange(len(self.target_us), device=self.target_us.device))

    def rewrite(self, index: Tensor) -> None:
        """Program the devices ``index`` (n,) anew at the targets they have."""
        p, target = self.physics, self.target_us[index]
        spread = p.write_std(target / p.g_max)
        g = target + spread * self.chance.normal(len(index))
        self.conductance_us[index] = g.clamp_(min=0)

    def conductance(self, time_s: float, index: Tensor | None = None) -> Tensor:
        """Return the drifted conductance [µS] without read noise."""
        where = slice(None) if index is None else index
        drift = torch.exp(self.exponent[where] * -self.physics.log_drift(time_s))
        return self.conductance_us[where] * drift

    def read_std(self, time_s: float, index: Tensor | None = None) -> Tensor:
        """Return the standard deviation of a read [µS]."""
        p, where = self.physics, slice(None) if index is None else index
        level = p.noise_level(self.target_us[where] / p.g_max)
        return self.conductance(time_s, index) * level * p.noise_growth(time_s)

    def read(self, time_s: float, index: Tensor | None = None) -> Tensor:
        """Return one read [µS]: the drifted conductance and fresh read noise."""
        g = self.conductance(time_s, index)
        return g + self.read_std(time_s, index) * self.chance.normal(g.numel())
