"""Kernels in Numba, for the CPU: one pass, no temporaries, no compiler needed."""

from mcatrain.kernels.cpu.cells import lstm_backward, lstm_forward
from mcatrain.kernels.cpu.coincidences import coincidences, coincidences_sum
from mcatrain.kernels.cpu.convert import convert
from mcatrain.kernels.cpu.lines import Lines
from mcatrain.kernels.cpu.patchwise import convert_patches, convert_to_patches
from mcatrain.kernels.cpu.products import add_product, product
from mcatrain.kernels.cpu.streams import gains
from mcatrain.kernels.cpu.update import accumulate, descend, is_finite, spend
from mcatrain.kernels.cpu.windows import add_patches, patches

__all__ = [
    "Lines",
    "accumulate",
    "add_patches",
    "add_product",
    "coincidences",
    "coincidences_sum",
    "convert",
    "convert_patches",
    "convert_to_patches",
    "descend",
    "gains",
    "is_finite",
    "lstm_backward",
    "lstm_forward",
    "patches",
    "product",
    "spend",
]
