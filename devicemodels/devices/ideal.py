"""A device that obeys: every pulse is exactly one step, without bounds, noise or drift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from devicemodels.pulses import rounds
from devicemodels.quantities import Parameters, quantity
from devicemodels.state import Chance
from devicemodels.wear import DeviceArray


@dataclass(frozen=True, kw_only=True)
class IdealParameters(Parameters):
    """The step of one pulse; a rule may ask for another granularity (a smaller epsilon)."""

    step: float = quantity("weight", 1e-12, 1e3, "weight change of one pulse: granularity")


class IdealArray(DeviceArray):
    """``size`` ideal bipolar devices. weight: (size,) float32."""

    weight: Tensor

    def __init__(self, size: int, parameters: IdealParameters, chance: Chance) -> None:
        super().__init__()
        self.physics = parameters
        self.register_buffer("weight", torch.zeros(size, dtype=torch.float32))

    def write(self, weight: Tensor) -> None:
        """Set the states to ``weight`` (size,)."""
        self.weight.copy_(weight)

    def pulse(self, index: Tensor, count: Tensor, repeats: bool = False) -> None:
        """Add ``count`` (n,) signed steps to the devices ``index`` (n,), in order.

        repeats: whether a device may occur more than once.
        """
        for part in rounds(index) if repeats else (slice(None),):
            device = index[part]
            moved = self.weight[device].double() + count[part].double() * self.physics.step
            self.weight[device] = moved.to(self.weight.dtype)
        if self.wear is not None:
            self.wear.add(index, count)
