"""Differential pair of PCM devices that is programmed once, open loop or verified, and read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from devicemodels.devices.programmed import ProgrammedPCMArray, ProgrammedPCMParameters
from devicemodels.errors import InputError
from devicemodels.pulses import PulseEvents
from devicemodels.state import Chance
from devicemodels.synapses.base import Synapse

_NO_TRAINING = (
    "these devices are programmed once and read, and their model knows no training pulse: train on "
    "another one (nandakumar2018) and program the result"
)


@dataclass(frozen=True)
class Verification:
    """What write-verify took: counts over all devices, and the share that converged."""

    devices: int
    writes: int
    reads: int
    converged: float


class ProgrammedPair(Synapse):
    """``out x in`` weights W = (G+ - G-) / beta; the device on the other side has target 0.

    beta: conductance of a weight of 1 [µS]; None: each `program` takes the one that brings its
    largest weight to g_max (one scale an array, as in Joshi et al. 2020). Weights beyond
    g_max / beta are written as that. The pair keeps its weights of one time in memory.
    """

    scalars: ClassVar = Synapse.scalars | {"beta": float, "programmed_at_s": float}
    devices_per_weight = 2

    def __init__(
        self,
        shape: tuple[int, int],
        device: ProgrammedPCMParameters,
        chance: Chance,
        beta: float | None = None,
    ) -> None:
        super().__init__(shape, chance)
        if beta is not None and not 0 < beta < math.inf:
            raise InputError(f"beta = {beta}: give a positive conductance [uS] of a weight of 1")
        self.size = shape[0] * shape[1]
        self.devices = ProgrammedPCMArray(2 * self.size, device, chance)
        self.scaled = beta is None
        self.beta = device.g_max if beta is None else float(beta)
        self.programmed_at_s = 0.0
        self._known: tuple[float, Tensor, Tensor] | None = None
        self.register_load_state_dict_post_hook(lambda pair, _: pair._forget())

    def _forget(self) -> None:
        self._known = None

    @property
    def granularity(self) -> float:
        raise InputError(_NO_TRAINING)

    def pulse(self, events: PulseEvents, now_s: float) -> None:
        """Refuse. Raises InputError."""
        raise InputError(_NO_TRAINING)

    def program(self, weights: Tensor, now_s: float) -> None:
        """Write target weights (out, in) open loop: once each, with the write noise of the model.

        Drift starts again. `verify` corrects what missed.
        """
        w = weights.detach().reshape(-1).to(self.devices.target_us)
        g_max = self.devices.physics.g_max
        if self.scaled:
            largest = float(w.abs().max())
            self.beta = g_max / largest if largest > 0 else g_max
        target = w * self.beta
        self.devices.write(torch.cat([target.clamp(min=0), (-target).clamp(min=0)]))
        self.programmed_at_s = now_s
        self._forget()

    def verify(self, tolerance_us: float, most_writes: int) -> Verification:
        """Read every device, write those anew that miss their target, and so on (write-verify).

        tolerance_us: largest difference of a read from the target [µS]. most_writes: of a device,
        that of `program` counted. A read has read noise as at t0, and a device whose last read
        missed has not converged. Returns the counts of reads and writes, that of `program` too.
        Raises InputError for a tolerance that is not positive, and for less than one write.
        """
        if not 0 < tolerance_us < math.inf:
            raise InputError(f"tolerance_us = {tolerance_us}: give a positive conductance [uS]")
        if most_writes < 1:
            raise InputError(f"most_writes = {most_writes}: give at least 1")
        d = self.devices
        missed = torch.arange(2 * self.size, device=d.target_us.device)
        writes, reads = len(missed), 0
        for write in range(most_writes):
            if write:
                d.rewrite(missed)
                writes += len(missed)
            reads += len(missed)
            off = (d.read(0.0, missed) - d.target_us[missed]).abs() > tolerance_us
            missed = missed[off]
        self._forget()
        return Verification(2 * self.size, writes, reads, 1 - len(missed) / max(2 * self.size, 1))

    def _read_at(self, now_s: float) -> tuple[float, Tensor, Tensor]:
        if self._known is None or self._known[0] != now_s:
            time_s = now_s - self.programmed_at_s
            plus, minus = self.devices.conductance(time_s).view(2, *self.shape)
            spread = self.devices.read_std(time_s).square().view(2, *self.shape).sum(0)
            variance = (spread / self.beta**2).to(torch.bfloat16)
            self._known = now_s, (plus - minus) / self.beta, variance
        return self._known

    def weights(self, now_s: float) -> Tensor:
        return self._read_at(now_s)[1]

    def read_variance(self, now_s: float) -> Tensor | None:
        return self._read_at(now_s)[2]

    def conductances(self, now_s: float) -> dict[str, Tensor]:
        plus, minus = self.devices.conductance(now_s - self.programmed_at_s).view(2, self.size)
        return {"G+": plus, "G-": minus}

    def _apply(self, fn: object, recurse: bool = True) -> object:
        self._forget()  # what is known stays on the old device
        return super()._apply(fn, recurse)  # type: ignore[arg-type]
