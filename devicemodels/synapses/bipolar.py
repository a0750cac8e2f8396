"""A weight on one bipolar device: its state, in weight units, is the weight."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from devicemodels.pulses import PulseEvents
from devicemodels.state import Chance, StateModule
from devicemodels.synapses.base import Synapse


class BipolarArray(Protocol):
    """What a single-device synapse asks of its devices."""

    weight: Tensor

    def write(self, weight: Tensor) -> None: ...

    def pulse(self, index: Tensor, count: Tensor) -> None: ...


class SingleBipolar(Synapse):
    """``out x in`` weights, one step or ideal device each; neither drift nor read noise."""

    def __init__(
        self, shape: tuple[int, int], devices: BipolarArray, granularity: float, chance: Chance
    ) -> None:
        super().__init__(shape, chance)
        assert isinstance(devices, StateModule)
        self.devices = devices
        self._granularity = granularity

    @property
    def granularity(self) -> float:
        return self._granularity

    def pulse(self, events: PulseEvents, now_s: float) -> None:
        if not len(events):
            return
        self.devices.pulse(events.index, events.count)
        up = int(events.count.clamp(min=0).sum())
        self.set_pulses += up
        self.reset_pulses += up - int(events.count.sum())

    def weights(self, now_s: float) -> Tensor:
        return self.devices.weight.view(self.shape)

    def read_variance(self, now_s: float) -> None:
        return None

    def program(self, weights: Tensor, now_s: float) -> None:
        self.devices.write(weights.detach().reshape(-1))

    def conductances(self, now_s: float) -> dict[str, Tensor]:
        return {"w": self.devices.weight}
