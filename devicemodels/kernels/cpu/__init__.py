"""Kernels in Numba: the reference's arithmetic, one device after the other, no compiler needed."""

from devicemodels.kernels.cpu.normals import normals
from devicemodels.kernels.cpu.pairs import high_pairs, pulse_pairs, read_pairs, saturated_pairs
from devicemodels.kernels.cpu.pulses import set_pulses, step_pulses, tally

__all__ = [
    "high_pairs",
    "normals",
    "pulse_pairs",
    "read_pairs",
    "saturated_pairs",
    "set_pulses",
    "step_pulses",
    "tally",
]
