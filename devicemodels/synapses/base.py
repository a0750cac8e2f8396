"""What every synapse offers: weights made of devices, changed by nothing but pulses."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from devicemodels.devices.pcm import PCMParameters
from devicemodels.pulses import PulseEvents
from devicemodels.state import Chance, StateModule


@dataclass(frozen=True)
class Programmable:
    """PCM pairs laid open to a kernel that pulses them itself.

    state, caches, beta_us, physics, tolerance: as `kernels.pulse_pairs` takes them. high_us,
    both_us: a pair is near saturation if one device is above the one and both are above the
    other, undrifted [µS]. seed: of the normals of these pulses.
    """

    state: tuple[Tensor, Tensor, Tensor, Tensor]
    caches: tuple[Tensor, Tensor | None, Tensor]
    beta_us: float
    physics: PCMParameters
    tolerance: float
    now_s: float
    high_us: float
    both_us: float
    seed: int


class Synapse(StateModule):
    """An array of weights (out x in). Conductances inside [µS], weight units outside.

    Counters (Python integers, saved with the state): ``set_pulses`` raise a conductance,
    ``reset_pulses`` lower one (a bipolar device's down pulses count here), ``refreshes``.
    """

    scalars: ClassVar = {"set_pulses": int, "reset_pulses": int, "refreshes": int}
    chance: Chance
    set_pulses = 0
    reset_pulses = 0
    refreshes = 0
    #: Devices that a weight is made of.
    devices_per_weight = 1
    #: Whether a refresh compares the devices with a threshold.
    can_saturate = False

    def __init__(self, shape: tuple[int, int], chance: Chance) -> None:
        super().__init__()
        self.shape = shape
        self.chance = chance

    @property
    @abstractmethod
    def granularity(self) -> float:
        """Mean weight change of one pulse: epsilon of MCA, dw_min of RPU."""

    @abstractmethod
    def pulse(self, events: PulseEvents, now_s: float) -> None:
        """Send the pulses to the devices at time ``now_s``."""

    def programmable(self, now_s: float) -> Programmable | None:
        """Return what a kernel needs that pulses the devices itself at ``now_s``; None where it
        cannot. What it did is told to `was_programmed`."""
        return None

    def was_programmed(self, pulses: int, near: Tensor | None, now_s: float) -> None:
        """Note the pulses of such a kernel, and which pairs may now read as saturated (None: too
        many to name)."""
        raise NotImplementedError

    @abstractmethod
    def weights(self, now_s: float) -> Tensor:
        """Return the weights as they read at ``now_s`` without noise, (out, in). Do not modify."""

    @abstractmethod
    def read_variance(self, now_s: float) -> Tensor | None:
        """Return the variance of one noisy read of each weight, (out, in); None if noise-free.

        bfloat16: rounded by at most 0.4 %, and cheap to multiply.
        """

    def read(self, now_s: float) -> tuple[Tensor, Tensor | None]:
        """Return `weights` and `read_variance`."""
        return self.weights(now_s), self.read_variance(now_s)

    @abstractmethod
    def program(self, weights: Tensor, now_s: float) -> None:
        """Write target weights (out, in) as a perfect program-and-verify would, within bounds."""

    def fabricate(self) -> bool:
        """Leave the devices as they come from fabrication; False if no such state is known."""
        return False

    def refresh(self, now_s: float) -> int:
        """Re-write saturated weights; return how many. Only differential pairs saturate."""
        return 0

    def read_exactly(self) -> None:
        """From now on read without the tolerance that a cache may have."""

    def saturated(self, now_s: float) -> tuple[int, int]:
        """Return how many pairs have a device above the refresh threshold, and of how many."""
        return 0, 0

    @abstractmethod
    def conductances(self, now_s: float) -> dict[str, Tensor]:
        """Return the device values by name, for pictures: [µS], or weight units if bipolar."""
