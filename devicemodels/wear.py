"""Pulses that each device has had: an option, because it takes memory for every device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from devicemodels.errors import InputError
from devicemodels.state import StateModule


class Wear(StateModule):
    """Pulses of each device. set_pulses, reset_pulses: (size,) int32; a bipolar device's up and
    down pulses."""

    set_pulses: Tensor
    reset_pulses: Tensor

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__()
        for name in ("set_pulses", "reset_pulses"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.int32, device=device))

    def add(self, index: Tensor, count: Tensor) -> None:
        """Count pulses (n,) of the devices ``index`` (n,), which may repeat: above 0 for SET."""
        count = count.to(torch.int32)
        self.set_pulses.index_add_(0, index, count.clamp(min=0))
        self.reset_pulses.index_add_(0, index, count.neg().clamp_(min=0))


class DeviceArray(StateModule):
    """What all device arrays share. wear: None while nobody asked for it: no memory is taken."""

    wear: Wear | None

    def __init__(self) -> None:
        super().__init__()
        self.wear = None


def wear_of(synapse: Any) -> Wear | None:
    """Return the wear of a synapse's devices, None where it is not tracked."""
    devices = getattr(synapse, "array", synapse).devices
    return devices.wear if isinstance(devices, DeviceArray) else None


def track_wear(model: nn.Module) -> None:
    """Count from now on what each device of a model's synapses gets; saved with the state.

    Pulses before, of zero shifting, went to all devices alike and are counted in.
    Raises InputError for a model that was trained already: who had its pulses is not known.
    """
    from devicemodels.synapses.base import Synapse

    for synapse in model.modules():
        devices = getattr(synapse, "devices", None)
        if not isinstance(synapse, Synapse) or not isinstance(devices, DeviceArray):
            continue
        size = next(devices.buffers()).shape[0]
        wear = Wear(size, next(devices.buffers()).device)
        for name in ("set_pulses", "reset_pulses"):
            each, rest = divmod(getattr(synapse, name), size)
            if rest:
                raise InputError(
                    "track_wear: the devices have had pulses already: call it before training"
                )
            getattr(wear, name).fill_(each)
        devices.wear = wear
