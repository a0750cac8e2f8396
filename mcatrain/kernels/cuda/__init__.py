"""Kernels in Triton, for CUDA devices; see devicemodels.kernels.cuda.

``coincidences_sum`` is the reference's: its time goes into products of bits, which are torch's.
"""

from mcatrain.kernels.cuda.convert import convert
from mcatrain.kernels.cuda.program import program_pairs
from mcatrain.kernels.cuda.streams import coincidences
from mcatrain.kernels.cuda.update import accumulate, spend
from mcatrain.kernels.reference import coincidences_sum

__all__ = [
    "accumulate",
    "coincidences",
    "coincidences_sum",
    "convert",
    "program_pairs",
    "spend",
]
