"""Statistical models of memory devices, and synapses made of them."""

from devicemodels.errors import InputError
from devicemodels.library import NONIDEALITIES, DeviceModel, available, load
from devicemodels.model import parse_changes
from devicemodels.pulses import PulseEvents
from devicemodels.state import Chance
from devicemodels.synapses.base import Synapse

__all__ = [
    "NONIDEALITIES",
    "Chance",
    "DeviceModel",
    "InputError",
    "PulseEvents",
    "Synapse",
    "available",
    "load",
    "parse_changes",
]
