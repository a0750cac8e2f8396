"""Measurements that a device model would give: for tests, and to plan an experiment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from calibration.measurements import Measurements, table
from devicemodels.devices.pcm import PCMArray, PCMParameters
from devicemodels.devices.step import StepArray, StepParameters
from devicemodels.errors import InputError
from devicemodels.library import DeviceModel
from devicemodels.state import Chance


def measure(
    model: DeviceModel, devices: int, pulses: int, *, seed: int = 0, reads: int = 1
) -> Measurements:
    """Pulse fresh devices and read them after every pulse.

    PCM: a RESET, then ``pulses`` SET pulses, each read at T0 after it (where drift is 1), with
    read noise. Step devices: ``pulses`` up, then as many down, from weight 0; a weight of 1 is
    written as 10 uS and 0 as 20 uS. reads: reads after each pulse, the further ones as
    'read' rows. Raises InputError for counts below 1 and a device without a measurement.
    """
    for name, count in (("devices", devices), ("pulses", pulses), ("reads", reads)):
        if count < 1:
            raise InputError(f"synthetic measurements: {name} = {count}: give at least 1")
    chance = Chance(seed, f"measurements/{model.name}")
    physics = model.device
    if isinstance(physics, PCMParameters):
        kinds, seen = _pcm(physics, devices, pulses, reads, chance)
    elif isinstance(physics, StepParameters):
        kinds, seen = _step(physics, devices, pulses, reads, chance)
    else:
        raise InputError(f"{model.name}: no measurement is made of {model.device_type} devices")
    steps = len(kinds)
    frame = pd.DataFrame(
        {
            "device": np.repeat(np.arange(devices), steps),
            "sequence": 0,
            "step": np.tile(np.arange(steps), devices),
            "pulse": np.tile(kinds, devices),
            "conductance_us": torch.stack(seen, dim=1).double().flatten().numpy(),
        }
    )
    return table(frame, f"synthetic {model.name}")


def _pcm(
    physics: PCMParameters, devices: int, pulses: int, reads: int, chance: Chance
) -> tuple[list[str], list[torch.Tensor]]:
    array, everyone = PCMArray(devices, physics, chance), torch.arange(devices)
    once = torch.ones(devices, dtype=torch.int64)
    kinds: list[str] = []
    seen: list[torch.Tensor] = []
    for pulse in range(pulses + 1):
        if pulse:
            array.set(everyone, once, 0.0)
        for again in range(reads):
            kinds.append("read" if again else "set" if pulse else "reset")
            seen.append(array.read(0.0).clamp(min=0))
    return kinds, seen


def _step(
    physics: StepParameters, devices: int, pulses: int, reads: int, chance: Chance
) -> tuple[list[str], list[torch.Tensor]]:
    array, everyone = StepArray(devices, physics, chance), torch.arange(devices)
    kinds, seen = ["read"], [array.weight.clone()]
    for sign, kind in ((1, "up"), (-1, "down")):
        for _ in range(pulses):
            array.pulse(everyone, torch.full((devices,), sign))
            kinds += [kind, *["read"] * (reads - 1)]
            seen += [array.weight.clone()] * reads
    return kinds, [20 + 10 * weight for weight in seen]
