"""Kernels in Triton, for CUDA devices: the reference's arithmetic, each in one pass.

``normals`` is the reference's: torch draws on the card as fast as memory takes the numbers.
Triton's interpreter (TRITON_INTERPRET=1, set before triton is imported) runs these on the CPU.
"""

from devicemodels.kernels.cuda.pairs import aged_pairs, high_pairs, read_pairs
from devicemodels.kernels.cuda.pulses import set_pulses, step_pulses
from devicemodels.kernels.reference import normals

__all__ = ["aged_pairs", "high_pairs", "normals", "read_pairs", "set_pulses", "step_pulses"]
