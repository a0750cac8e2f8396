"""Bipolar step devices: one pulse moves the weight up or down by about one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from devicemodels import kernels
from devicemodels.errors import InputError
from devicemodels.quantities import Parameters, quantity
from devicemodels.state import Chance
from devicemodels.wear import DeviceArray


class StepResponse(Protocol):
    """How the step depends on the state: factor ``scale`` on each device's own step."""

    @property
    def kind(self) -> str: ...

    @property
    def constants(self) -> tuple[float, ...]:
        """Constants of the response in the order the CPU kernel takes them (six, padded by 0)."""

    def scale(self, w: Tensor, up: Tensor, upper: Tensor, lower: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class StepParameters(Parameters):
    """A device whose step does not depend on its state (Gokmen & Vlasov 2016).

    Weight units. Spreads ``*_dtod`` (device to device) and ``dw_min_std`` (cycle to cycle) are
    fractions; a device's own value is the mean times ``|1 + spread N(0, 1)|``. ``up_down`` is
    the ratio of the up to the down step (1 = balanced), each device's ratio spread by
    ``up_down_dtod``.
    """

    dw_min: float = quantity("weight", 1e-12, 1e3, "mean weight change of one pulse: granularity")
    dw_min_dtod: float = quantity("1", 0, 10, "device-to-device spread of dw_min")
    dw_min_std: float = quantity("1", 0, 10, "cycle-to-cycle spread of each step")
    up_down: float = quantity("1", 1e-3, 1e3, "mean ratio of up to down step")
    up_down_dtod: float = quantity("1", 0, 1, "device-to-device spread of the ratio")
    w_max: float = quantity("weight", 1e-9, 1e6, "mean upper bound")
    w_min: float = quantity("weight", -1e6, -1e-9, "mean lower bound")
    w_max_dtod: float = quantity("1", 0, 10, "device-to-device spread of the upper bound")
    w_min_dtod: float = quantity("1", 0, 10, "device-to-device spread of the lower bound")

    kind = "constant"

    @property
    def constants(self) -> tuple[float, ...]:
        return (0.0,) * 6

    def scale(self, w: Tensor, up: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
        return torch.ones_like(w)


@dataclass(frozen=True, kw_only=True)
class LinearStepParameters(StepParameters):
    """Step that shrinks linearly: dw = dw_min (1 - slope w) up, dw_min (1 + slope w) down."""

    slope_up: float = quantity("1/weight", -1e6, 1e6, "relative loss of the up step per weight")
    slope_down: float = quantity("1/weight", -1e6, 1e6, "relative loss of the down step per weight")

    kind = "linear"

    @property
    def constants(self) -> tuple[float, ...]:
        return (self.slope_up, self.slope_down, 0.0, 0.0, 0.0, 0.0)

    def scale(self, w: Tensor, up: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
        factor = torch.where(up, 1 - self.slope_up * w, 1 + self.slope_down * w)
        return factor.clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class SoftBoundsParameters(StepParameters):
    """Step that vanishes at the device's own bounds: 1 - w/w_max up, 1 + w/|w_min| down."""

    kind = "soft-bounds"

    def scale(self, w: Tensor, up: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
        return torch.where(up, 1 - w / upper, 1 - w / lower).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class ExpStepParameters(StepParameters):
    """Step dw_min max(0, 1 - A exp(gamma z)), z = 2 a w / (w_max - w_min) + b, - gamma z down.

    The form that aihwkit documents as ExpStep.
    """

    A_up: float = quantity("1", -1e6, 1e6, "strength of the saturation, up")
    A_down: float = quantity("1", -1e6, 1e6, "strength of the saturation, down")
    gamma_up: float = quantity("1", -1e3, 1e3, "steepness of the saturation, up")
    gamma_down: float = quantity("1", -1e3, 1e3, "steepness of the saturation, down")
    a: float = quantity("1", -1e3, 1e3, "scale of z")
    b: float = quantity("1", -1e3, 1e3, "offset of z")

    kind = "exponential"

    @property
    def constants(self) -> tuple[float, ...]:
        return (self.A_up, self.A_down, self.gamma_up, self.gamma_down, self.a, self.b)

    def scale(self, w: Tensor, up: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
        z = 2 * self.a * w / (upper - lower) + self.b
        grown = torch.where(
            up,
            self.A_up * torch.exp(self.gamma_up * z),
            self.A_down * torch.exp(-self.gamma_down * z),
        )
        return (1 - grown).clamp(min=0)


class StepArray(DeviceArray):
    """``size`` bipolar step devices at weight 0, each with its own steps and bounds.

    weight: (size,) float32, state in weight units. devices: (size, 4) float32, the mean steps of
    each device, down (below 0) and up, its lower and its upper bound, side by side in memory as a
    pulse needs them all.
    """

    weight: Tensor
    devices: Tensor
    chance: Chance

    def __init__(self, size: int, parameters: StepParameters, chance: Chance) -> None:
        super().__init__()
        self.physics = p = parameters
        self.borrow("chance", chance)

        def spread(mean: float, fraction: float) -> Tensor:
            return mean * (1 + fraction * chance.normal(size)).abs_()

        step, ratio = spread(p.dw_min, p.dw_min_dtod), spread(p.up_down, p.up_down_dtod)
        # The ratio splits the step so that the mean of up and down stays the device's dw_min.
        up, down = step * 2 * ratio / (1 + ratio), step * 2 / (1 + ratio)
        upper, lower = spread(p.w_max, p.w_max_dtod), spread(p.w_min, p.w_min_dtod)
        self.register_buffer("devices", torch.stack([-down, up, lower, upper], dim=1))
        self.register_buffer("weight", torch.zeros(size, dtype=torch.float32))

    @property
    def step_up(self) -> Tensor:
        """Mean up step of each device, (size,) float32, above 0."""
        return self.devices[:, 1]

    @property
    def step_down(self) -> Tensor:
        """Mean down step of each device, (size,) float32, above 0."""
        return -self.devices[:, 0]

    @property
    def lower(self) -> Tensor:
        """Lower bound of each device, (size,) float32."""
        return self.devices[:, 2]

    @property
    def upper(self) -> Tensor:
        """Upper bound of each device, (size,) float32."""
        return self.devices[:, 3]

    def write(self, weight: Tensor) -> None:
        """Set the states to ``weight`` (size,), clipped to each device's bounds."""
        self.weight.copy_(weight).clamp_(self.lower, self.upper)

    def symmetry_point(self) -> Tensor:
        """Return where the mean up and down steps of each device are equal, (size,) float32.

        There alternating pulses settle and balanced ones have no mean effect (Kim et al.,
        arXiv:1907.10228, 2019). Soft bounds: (up - down) / (up / upper - down / lower) with the
        device's own steps and bounds. A device with the larger step on one side over its whole
        range settles at that bound, which is returned.
        Raises InputError if the steps do not come closer towards the bounds.
        """
        low, high = self.lower.double(), self.upper.double()
        if not (self._excess(low) > self._excess(high)).any():
            raise InputError(
                f"{self.physics.kind} steps of these constants have no symmetry point: up and "
                "down step do not change places with the state; take a soft-bounds model"
            )
        for _ in range(30):  # halvings of the range: beyond float32
            middle = (low + high) / 2
            rises = self._excess(middle) > 0
            low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
        return middle.float()

    def _excess(self, w: Tensor) -> Tensor:
        """Return the mean up step less the mean down step at the states ``w``."""
        high, low = self.upper.double(), self.lower.double()
        up = torch.ones_like(w, dtype=torch.bool)
        rise = self.step_up * self.physics.scale(w, up, high, low)
        return rise - self.step_down * self.physics.scale(w, ~up, high, low)

    def pulse(self, index: Tensor, count: Tensor, repeats: bool = False) -> None:
        """Apply ``count`` (n,) signed pulses to the devices ``index`` (n,), in order.

        repeats: whether a device may occur more than once.
        """
        p = self.physics
        draws = count.numel() if p.kind == "constant" else int(count.abs().sum())
        normals = self.chance.normal(draws)
        kernels.step_pulses(
            self.weight, self.devices, index, count, normals, p.dw_min_std, p, repeats
        )
        if self.wear is not None:
            self.wear.add(index, count)
