"""Pulse response of a device model, by Monte Carlo: what one pulse after the other does to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from devicemodels import Chance, DeviceModel
from devicemodels.devices.ideal import IdealArray
from devicemodels.devices.pcm import PCMArray, PCMParameters
from devicemodels.devices.step import StepArray, StepParameters
from devicemodels.devices.table import TableArray, TableParameters

_DEVICES = 4000
_SET_PULSES = 20
#: Pulses shown each way for a bipolar device: enough to reach its bounds, within reason.
_MOST_PULSES = 5000
_POINTS = 60


@dataclass(frozen=True)
class Response:
    """values: (points, devices), state after ``pulse`` (points,) pulses [µS, or weight]."""

    pulse: NDArray[np.float64]
    values: NDArray[np.float64]

    def percentile(self, percent: float) -> NDArray[np.float64]:
        """Return that percentile over the devices, (points,)."""
        return np.asarray(np.percentile(self.values, percent, axis=1))


def set_response(parameters: PCMParameters) -> Response:
    """Return the conductance [µS] after 0..20 SET pulses from RESET: undrifted, no read noise."""
    devices = PCMArray(_DEVICES, parameters, Chance(0, "report/set-response"))
    everyone = torch.arange(_DEVICES)
    once = torch.ones(_DEVICES, dtype=torch.int64)
    states = [devices.conductance_us.double().numpy()]
    for _ in range(_SET_PULSES):
        devices.set(everyone, once, 0.0)
        states.append(devices.conductance_us.double().numpy())
    return Response(np.arange(_SET_PULSES + 1.0), np.stack(states))


def up_down_response(model: DeviceModel, devices: int = 400) -> Response:
    """Return the weight of bipolar devices under up pulses, then as many down pulses."""
    chance, p = Chance(0, "report/up-down"), model.device
    array: StepArray | TableArray | IdealArray
    if isinstance(p, StepParameters):
        array = StepArray(devices, p, chance)
        reach = math.ceil(1.5 * p.w_max / p.dw_min)
    elif isinstance(p, TableParameters):
        array = TableArray(devices, p, chance)
        reach = math.ceil(1.5 * (p.states[-1] - p.states[0]) / 2 / p.granularity)
    else:
        array = IdealArray(devices, p, chance)  # type: ignore[arg-type]
        reach = _SET_PULSES
    burst = max(1, math.ceil(min(reach, _MOST_PULSES) / _POINTS))
    legs = min(_POINTS, math.ceil(reach / burst))
    everyone = torch.arange(devices)
    states = [array.weight.double().numpy()]
    for sign in (1, -1):
        count = torch.full((devices,), sign * burst, dtype=torch.int64)
        for _ in range(legs):
            array.pulse(everyone, count)
            states.append(array.weight.double().numpy())
    return Response(burst * np.arange(len(states), dtype=float), np.stack(states))
