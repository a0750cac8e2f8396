"""Kernels in Numba, for the CPU: one pass, no temporaries, no compiler needed."""

from mcatrain.kernels.cpu.coincidences import coincidences, coincidences_sum
from mcatrain.kernels.cpu.convert import convert
from mcatrain.kernels.cpu.streams import gains
from mcatrain.kernels.cpu.update import accumulate, spend

__all__ = ["accumulate", "coincidences", "coincidences_sum", "convert", "gains", "spend"]
