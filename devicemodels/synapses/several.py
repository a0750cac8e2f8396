"""Several devices a weight: their mean is the weight, and pulses go to all of them or in turn."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from devicemodels.pulses import PulseEvents
from devicemodels.synapses.base import Synapse

#: Which devices of a weight take a pulse.
SELECTIONS = ("all", "counter")


def _of_array(name: str) -> Any:
    return property(
        lambda synapse: getattr(synapse.array, name),
        lambda synapse, value: setattr(synapse.array, name, value),
    )


class SeveralDevices(Synapse):
    """``out x in`` weights, each the mean of ``number`` devices or pairs.

    array: a synapse of ``number * out x in``; device k of weight i is its weight k out in + i. It
    holds the counters and the chance, so there is one of each.

    selection 'all': every device takes every pulse, as N devices on the same pulse streams do
    (Gokmen, Onen & Haensch, Front. Neurosci. 11:538, 2017): device variation averages out, the
    granularity stays. 'counter': a pulse goes to the one device that a counter, common to the
    whole array, points at, and the counter moves on by one a pulse (Boybat et al., Nat. Commun.
    9:2514, 2018): the granularity is 1 / number of a device's. Its state is saved.
    """

    scalars: ClassVar = {"counter": int}
    set_pulses = _of_array("set_pulses")
    reset_pulses = _of_array("reset_pulses")
    refreshes = _of_array("refreshes")

    def __init__(self, array: Synapse, number: int, selection: str) -> None:
        assert selection in SELECTIONS
        rows, columns = array.shape
        assert rows % number == 0
        super().__init__((rows // number, columns), array.chance)
        # The array owns the random stream, else it would be saved twice.
        del self.chance
        self.borrow("chance", array.chance)
        self.array, self.number, self.selection = array, number, selection
        self.counter = 0
        self.devices_per_weight = number * array.devices_per_weight
        self.can_saturate = array.can_saturate

    @property
    def granularity(self) -> float:
        return self.array.granularity / (self.number if self.selection == "counter" else 1)

    def pulse(self, events: PulseEvents, now_s: float) -> None:
        if not len(events):
            return
        n = self.number
        device = torch.arange(n, device=events.index.device).unsqueeze(1)
        index = (events.index + device * (self.shape[0] * self.shape[1])).view(-1)
        if self.selection == "all":
            self.array.pulse(PulseEvents(index, events.count.repeat(n), events.repeats), now_s)
            return
        pulses = events.count.abs()
        end = self.counter + pulses.cumsum(0)
        # Of the pulses j = 0, 1, ... of an event, device k takes those with start + j = k mod n.
        turn = (device - (end - pulses)) % n
        count = (events.count.sign() * ((pulses + n - 1 - turn) // n)).view(-1)
        taken = count != 0
        self.array.pulse(PulseEvents(index[taken], count[taken], events.repeats), now_s)
        self.counter = int(end[-1]) % n

    def _each(self, values: Tensor) -> Tensor:
        return values.view(self.number, *self.shape)

    def weights(self, now_s: float) -> Tensor:
        return self._each(self.array.weights(now_s)).mean(0)

    def read_variance(self, now_s: float) -> Tensor | None:
        variance = self.array.read_variance(now_s)
        if variance is None:
            return None
        return self._each(variance).float().sum(0).div_(self.number**2).to(variance.dtype)

    def program(self, weights: Tensor, now_s: float) -> None:
        self.array.program(weights.repeat(self.number, 1), now_s)

    def fabricate(self) -> bool:
        return self.array.fabricate()

    def read_exactly(self) -> None:
        self.array.read_exactly()

    def refresh(self, now_s: float) -> int:
        """Re-write saturated pairs, each on its own; return how many pairs."""
        return self.array.refresh(now_s)

    def saturated(self, now_s: float) -> tuple[int, int]:
        return self.array.saturated(now_s)

    def conductances(self, now_s: float) -> dict[str, Tensor]:
        """Return the values of all devices, (number out in,) each name."""
        return self.array.conductances(now_s)
