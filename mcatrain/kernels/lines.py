"""Converters around an array that is driven line after line, each known when its turn comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mcatrain import kernels

if TYPE_CHECKING:
    from mcatrain.periphery import Converters


class Lines:
    """`convert` of lines (time, n, in), one time step a call.

    The first ``ahead`` columns of all lines are there from the start, the others when called.
    weights, variance: as for `convert`; neither changes in between.
    """

    def __init__(
        self, lines: Tensor, ahead: int, weights: Tensor, variance: Tensor | None, c: Converters
    ) -> None:
        self.lines, self.weights, self.variance, self.c = lines, weights, variance, c

    def __call__(
        self, t: int, dither: Tensor | None, normals: Tensor | None, output_dither: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return `convert` of lines[t]."""
        x = self.lines[t]
        return kernels.convert(
            x, self.weights, self.variance, self.c, 1.0, dither, normals, output_dither
        )
