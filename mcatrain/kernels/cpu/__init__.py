"""Kernels in Numba, for the CPU: one pass, no temporaries, no compiler needed.

``program_pairs`` is the reference's: nothing is gained here by not waiting for the device.
"""

from mcatrain.kernels.cpu.convert import convert
from mcatrain.kernels.cpu.streams import coincidences, coincidences_sum
from mcatrain.kernels.cpu.update import accumulate, spend
from mcatrain.kernels.reference import program_pairs

__all__ = [
    "accumulate",
    "coincidences",
    "coincidences_sum",
    "convert",
    "program_pairs",
    "spend",
]
