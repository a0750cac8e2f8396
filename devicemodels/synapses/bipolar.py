"""A weight on one bipolar device: its state, in weight units, from 0 or from a reference."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from devicemodels import kernels
from devicemodels.devices.step import StepArray
from devicemodels.devices.table import TableArray
from devicemodels.errors import InputError
from devicemodels.pulses import PulseEvents
from devicemodels.state import Chance, StateModule
from devicemodels.synapses.base import Synapse


class BipolarArray(Protocol):
    """What a single-device synapse asks of its devices."""

    weight: Tensor

    def write(self, weight: Tensor) -> None: ...

    def pulse(self, index: Tensor, count: Tensor, repeats: bool = False) -> None: ...


class SingleBipolar(Synapse):
    """``out x in`` weights, one step, table or ideal device each; neither drift nor read noise.

    reference: (out in,) float32, what is subtracted from the device in every read, after
    `zero_shift`; None before.
    """

    reference: Tensor | None

    def __init__(
        self, shape: tuple[int, int], devices: BipolarArray, granularity: float, chance: Chance
    ) -> None:
        super().__init__(shape, chance)
        assert isinstance(devices, StateModule)
        self.devices = devices
        self._granularity = granularity
        self.register_buffer("reference", None)

    @property
    def granularity(self) -> float:
        return self._granularity

    def pulse(self, events: PulseEvents, now_s: float) -> None:
        if not len(events):
            return
        self.devices.pulse(events.index, events.count, events.repeats)
        up, down = kernels.tally(events.count)
        self.set_pulses += up
        self.reset_pulses += down

    def zero_shift(self, pairs: int) -> None:
        """Bring the devices to their symmetry points and make these the weight 0.

        Kim et al., Zero-shifting technique for deep neural network training on resistive
        cross-point arrays (arXiv:1907.10228, 2019): alternating up and down pulses, ``pairs`` of
        them, drive each device to where its two steps are equal; that state is copied to the
        reference device, without error here. The reference is the mean of the states after the
        last up and the last down pulse: either alone lies half a step to one side. The distance
        from the symmetry point falls by e every (bound / dw_min) / 2 pairs of a soft-bounds device;
        what remains is the noise of the pulses. The pulses are counted.
        Raises InputError for devices without a symmetry point and for no pulses at all.
        """
        if not isinstance(self.devices, StepArray | TableArray):
            raise InputError(
                "zero_shift: ideal devices have no symmetry point, their steps are equal "
                "everywhere; take a soft-bounds, linear-step or exponential-step model"
            )
        if pairs < 1:
            raise InputError(f"zero_shift: {pairs} pulse pairs: give at least 1")
        self.devices.symmetry_point()  # refuses devices that have none
        index = torch.arange(self.devices.weight.numel(), device=self.devices.weight.device)
        once = torch.ones_like(index)
        for _ in range(pairs):
            self.devices.pulse(index, once)
            above = self.devices.weight.clone()
            self.devices.pulse(index, -once)
        self.reference = (above + self.devices.weight) / 2
        self.set_pulses += pairs * len(index)
        self.reset_pulses += pairs * len(index)

    def weights(self, now_s: float) -> Tensor:
        w = self.devices.weight
        return (w if self.reference is None else w - self.reference).view(self.shape)

    def read_variance(self, now_s: float) -> None:
        return None

    def program(self, weights: Tensor, now_s: float) -> None:
        w = weights.detach().reshape(-1)
        if self.reference is not None:
            w = w.to(self.reference) + self.reference
        self.devices.write(w)

    def conductances(self, now_s: float) -> dict[str, Tensor]:
        """Return the states of the devices as "w", without the reference."""
        return {"w": self.devices.weight}
