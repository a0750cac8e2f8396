"""Phase-change memory devices: SET with history, write noise, drift, read noise, RESET."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from devicemodels import kernels
from devicemodels.errors import InputError, closest
from devicemodels.kernels.reference import drifted
from devicemodels.quantities import Parameters, quantity
from devicemodels.state import Chance
from devicemodels.wear import DeviceArray

#: What `PCMParameters.without` can switch off.
NONIDEALITIES = ("nonlinearity", "history", "write-noise", "read-noise", "drift")


@dataclass(frozen=True, kw_only=True)
class PCMParameters(Parameters):
    """Constants of the SET response, drift and read noise (J. Appl. Phys. 124, 152135, 2018).

    One SET pulse, p counted from the last RESET (the first is 1):
    mean = m1 G + c1 + A1 exp(-p/a), std = m2 G + c2 + A2 exp(-p/a), G clipped to [g_min, g_max].
    """

    m1: float = quantity("1", -1, 1, "slope of the mean SET step against G")
    c1: float = quantity("uS", 0, 100, "mean SET step at G = 0 after many pulses")
    A1: float = quantity("uS", -100, 100, "history: extra mean step, decaying with pulse number")
    a: float = quantity("pulse", 1e-3, 1e6, "history: pulses for a decay by e")
    m2: float = quantity("1", -1, 1, "slope of the write noise against G")
    c2: float = quantity("uS", 0, 100, "write noise at G = 0 after many pulses")
    A2: float = quantity("uS", -100, 100, "history: extra write noise")
    mean_step: float = quantity("uS", 1e-6, 100, "mean SET step over the range used: granularity")
    g_min: float = quantity("uS", 0, 1e3, "lowest conductance")
    g_max: float = quantity("uS", 1e-3, 1e4, "highest conductance")
    t0_s: float = quantity("s", 1e-9, 1e9, "time after programming at which G is stated")
    nu_mean: float = quantity("1", 0, 1, "mean drift exponent")
    nu_std: float = quantity("1", 0, 1, "device-to-device spread of the drift exponent")
    m3: float = quantity("1", 0, 1, "slope of the read noise against G")
    c3: float = quantity("uS", 0, 100, "read noise at G = 0")
    reset_mean: float = quantity("uS", 0, 1e3, "mean conductance after RESET")
    reset_std: float = quantity("uS", 0, 1e3, "spread of the conductance after RESET")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.g_min < self.g_max:
            raise InputError(f"g_min = {self.g_min} uS must be below g_max = {self.g_max} uS")

    @property
    def reads_noisily(self) -> bool:
        return self.m3 > 0 or self.c3 > 0

    def without(self, *nonidealities: str) -> PCMParameters:
        """Return the same device with the named non-idealities switched off, each alone.

        nonlinearity: the mean step is mean_step at every G. history: no dependence on the pulse
        number. write-noise: pulses and RESET land on their mean. read-noise, drift: none.
        Raises InputError for an unknown name.
        """
        off = {
            "nonlinearity": {"m1": 0.0, "c1": self.mean_step},
            "history": {"A1": 0.0, "A2": 0.0},
            "write-noise": {"m2": 0.0, "c2": 0.0, "A2": 0.0, "reset_std": 0.0},
            "read-noise": {"m3": 0.0, "c3": 0.0},
            "drift": {"nu_mean": 0.0, "nu_std": 0.0},
        }
        changed: dict[str, float] = {}
        for name in nonidealities:
            if name not in off:
                raise InputError(f"no such non-ideality {name!r}: {closest(name, off)}")
            changed |= off[name]
        return replace(self, **changed)

    def mean_set_response(self, pulses: int) -> list[float]:
        """Return the conductance [µS] after 0..pulses SET pulses from RESET, without noise."""
        g = [self.reset_mean]
        for p in range(1, pulses + 1):
            step = self.m1 * g[-1] + self.c1 + self.A1 * math.exp(-p / self.a)
            g.append(min(max(g[-1] + step, self.g_min), self.g_max))
        return g


class PCMArray(DeviceArray):
    """``size`` PCM devices, all freshly RESET at time 0.

    conductance_us: G at T0 after programming, undrifted [µS]. pulses: SET pulses since RESET.
    programmed_at_s: time of the last pulse [s]. exponent: drift exponent of each device.
    Reading applies drift; it never changes the state.
    """

    conductance_us: Tensor
    pulses: Tensor
    programmed_at_s: Tensor
    exponent: Tensor
    chance: Chance

    def __init__(self, size: int, parameters: PCMParameters, chance: Chance) -> None:
        super().__init__()
        self.physics = parameters
        self.borrow("chance", chance)
        self.register_buffer("conductance_us", torch.zeros(size, dtype=torch.float32))
        self.register_buffer("pulses", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("programmed_at_s", torch.zeros(size, dtype=torch.float64))
        nu = parameters.nu_mean + parameters.nu_std * chance.normal(size)
        self.register_buffer("exponent", nu.clamp_(min=0))
        self.reset(torch.arange(size), 0.0)

    def reset(self, index: Tensor, now_s: float) -> None:
        """RESET the devices ``index`` (n,): low conductance, no history, age 0."""
        p = self.physics
        g = p.reset_mean + p.reset_std * self.chance.normal(len(index))
        self.conductance_us[index] = g.clamp_(min=0)
        self.pulses[index] = 0
        self.programmed_at_s[index] = now_s
        if self.wear is not None:
            self.wear.add(index, torch.full_like(index, -1))

    def set(self, index: Tensor, count: Tensor, now_s: float, repeats: bool = False) -> None:
        """Apply ``count`` (n,) > 0 SET pulses to the devices ``index`` (n,), in order.

        repeats: whether a device may occur more than once.
        """
        normals = self.chance.normal(int(count.sum()))
        kernels.set_pulses(
            self.conductance_us, self.pulses, index, count, normals, self.physics, repeats
        )
        self.programmed_at_s[index] = now_s
        if self.wear is not None:
            self.wear.add(index, count)

    def conductance(self, now_s: float, index: Tensor | None = None) -> Tensor:
        """Return the drifted conductance [µS] at ``now_s``, without read noise."""
        where = slice(None) if index is None else index
        return drifted(
            self.conductance_us[where],
            self.programmed_at_s[where],
            self.exponent[where],
            now_s,
            self.physics.t0_s,
        )

    def read(self, now_s: float, index: Tensor | None = None) -> Tensor:
        """Return one read [µS]: the drifted conductance and fresh read noise."""
        g = self.conductance(now_s, index)
        if self.physics.reads_noisily:
            spread = self.physics.m3 * g + self.physics.c3
            g = g + spread * self.chance.normal(g.numel())
        return g
