"""Kernels in Triton, for CUDA devices; see devicemodels.kernels.cuda.

Streams, patches and the gates of an LSTM are the reference's: the time of streams goes into
products of bits, which are torch's, and the others, like ``is_finite``, are a few copies and sums.
"""

from mcatrain.kernels.cuda.convert import convert
from mcatrain.kernels.cuda.program import program
from mcatrain.kernels.cuda.update import accumulate, descend, spend
from mcatrain.kernels.reference import (
    Lines,
    add_patches,
    add_product,
    coincidences,
    coincidences_sum,
    convert_patches,
    convert_to_patches,
    gains,
    is_finite,
    lstm_backward,
    lstm_forward,
    patches,
    product,
)

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
    "program",
    "spend",
]
