"""Kernels in Numba, for the CPU: one pass, no temporaries, no compiler needed."""

from mcatrain.kernels.cpu.convert import convert
from mcatrain.kernels.cpu.update import accumulate, coincidences, spend

__all__ = ["accumulate", "coincidences", "convert", "spend"]
