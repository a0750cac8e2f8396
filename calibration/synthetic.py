"""Measurements that a device model would give: for tests, and to plan an experiment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from calibration.measurements import Measurements, table
from calibration.readers.crosssim import UpdateTables
from devicemodels.devices.pcm import PCMArray, PCMParameters
from devicemodels.devices.step import StepArray, StepParameters
from devicemodels.devices.table import TableArray, TableParameters
from devicemodels.errors import InputError
from devicemodels.library import DeviceModel
from devicemodels.state import Chance

#: Draws of a change, of which the first that a device can make is taken.
_TRIES = 100


def measure(
    model: DeviceModel, devices: int, pulses: int, *, seed: int = 0, reads: int = 1
) -> Measurements:
    """Pulse fresh devices and read them after every pulse.

    PCM: a RESET, then ``pulses`` SET pulses, each read at T0 after it (where drift is 1), with
    read noise. Step and table devices: ``pulses`` up, then as many down, from weight 0; a weight
    of 1 is written as 10 uS and 0 as 20 uS. reads: reads after each pulse, the further ones as
    'read' rows. Raises InputError for counts below 1 and a device without a measurement.
    """
    for name, count in (("devices", devices), ("pulses", pulses), ("reads", reads)):
        if count < 1:
            raise InputError(f"synthetic measurements: {name} = {count}: give at least 1")
    chance = Chance(seed, f"measurements/{model.name}")
    physics = model.device
    if isinstance(physics, PCMParameters):
        kinds, seen = _pcm(physics, devices, pulses, reads, chance)
    elif isinstance(physics, StepParameters | TableParameters):
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


def measure_tables(
    published: Mapping[int, UpdateTables], sequences: int, pulses: int, *, seed: int = 0
) -> Measurements:
    """Pulse devices of published update tables and read them after every pulse, without noise.

    Each of ``sequences`` a device starts anywhere in the device's range of conductance and takes
    ``pulses`` pulses up or down, by the toss of a coin. Changes are sorted along the published
    fractions, linear between these and between conductances. A change that would leave the
    device's range is drawn again. Raises InputError for counts below 1.
    """
    for name, count in (("sequences", sequences), ("pulses", pulses)):
        if count < 1:
            raise InputError(f"synthetic measurements: {name} = {count}: give at least 1")
    chance = np.random.default_rng(seed)
    frames = []
    for device, both in published.items():
        ways = (both.decreasing, both.increasing)
        change = [np.sort(way.change, axis=0) for way in ways]
        low = max(way.conductance[0] for way in ways)
        high = min(way.conductance[-1] for way in ways)
        up = chance.integers(2, size=(sequences, pulses))
        for sequence in range(sequences):
            g = [float(chance.uniform(low, high))]
            for k in range(pulses):
                way, rows = ways[up[sequence, k]], change[up[sequence, k]]
                place = np.interp(g[-1], way.conductance, np.arange(len(way.conductance)))
                j = min(int(place), len(way.conductance) - 2)
                here = rows[:, j] + (place - j) * (rows[:, j + 1] - rows[:, j])
                moved = g[-1] + np.interp(chance.random(_TRIES), way.cdf, here)
                inside = moved[(moved >= low) & (moved <= high)]
                # A state from which next to no pulse stays inside is left at the nearer end.
                g.append(float(inside[0] if len(inside) else moved[0].clip(low, high)))
            kinds = ["read", *np.where(up[sequence] == 1, "up", "down")]
            frames.append(
                pd.DataFrame(
                    {
                        "device": str(device),
                        "sequence": sequence,
                        "step": np.arange(pulses + 1),
                        "pulse": kinds,
                        "conductance_us": g,
                    }
                )
            )
    return table(pd.concat(frames), "reads drawn from published update tables")


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
    physics: StepParameters | TableParameters, devices: int, pulses: int, reads: int, chance: Chance
) -> tuple[list[str], list[torch.Tensor]]:
    everyone = torch.arange(devices)
    array: StepArray | TableArray
    if isinstance(physics, StepParameters):
        array = StepArray(devices, physics, chance)
    else:
        array = TableArray(devices, physics, chance)
    kinds, seen = ["read"], [array.weight.clone()]
    for sign, kind in ((1, "up"), (-1, "down")):
        for _ in range(pulses):
            array.pulse(everyone, torch.full((devices,), sign))
            kinds += [kind, *["read"] * (reads - 1)]
            seen += [array.weight.clone()] * reads
    return kinds, [20 + 10 * weight for weight in seen]
