"""Kernels in Triton, for CUDA devices: the reference's arithmetic, each in one pass.

``normals``, ``tally`` and ``saturated_pairs`` are the reference's: torch draws and sums on the card
as fast as memory takes the numbers, and few pairs come near saturation.
Triton's interpreter (TRITON_INTERPRET=1, set before triton is imported) runs these on the CPU.
"""

from devicemodels.kernels.cuda.pairs import high_pairs, pulse_pairs, read_pairs
from devicemodels.kernels.cuda.pulses import set_pulses, step_pulses
from devicemodels.kernels.reference import normals, saturated_pairs, tally

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
