"""Around the array: DAC, ADC, additive noise, bounds, noise and bound management."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch import Tensor

from devicemodels.errors import InputError, closest
from devicemodels.state import Chance
from mcatrain import kernels
from mcatrain.kernels.patchwise import Draw
from mcatrain.ledger import Reads

#: Bound management gives up after ten halvings.
_MOST_DIVISION = 2**10


@dataclass(frozen=True, kw_only=True)
class Converters:
    """One direction of a matrix-vector product, y = ADC(W DAC(x) + noise).

    bits: None for an ideal converter; n bits are 2^n - 1 levels, symmetric about 0, on
    [-bound, bound] (aihwkit's inp_res = out_res = 1/(2^n - 2) of the range). Inputs are bounded
    by 1. input_rounding, output_rounding: 'nearest' or 'stochastic'. output_noise: standard
    deviation added to each output (aihwkit's out_noise), before management scales it back.
    noise_management NM: x is divided by max|x| before and y multiplied after.
    bound_management BM: an output at its bound halves x and is read again.
    """

    input_bits: int | None = None
    output_bits: int | None = None
    output_bound: float = math.inf
    output_noise: float = 0.0
    input_rounding: Literal["nearest", "stochastic"] = "nearest"
    output_rounding: Literal["nearest", "stochastic"] = "nearest"
    noise_management: bool = False
    bound_management: bool = False

    def __post_init__(self) -> None:
        for name in ("input_bits", "output_bits"):
            bits = getattr(self, name)
            if bits is not None and not 2 <= bits <= 24:
                raise InputError(f"{name} = {bits}: give 2 to 24 bits, or None for ideal")
        if not self.output_bound > 0:
            raise InputError(f"output_bound = {self.output_bound}: give a positive bound")
        if self.output_bits is not None and math.isinf(self.output_bound):
            raise InputError("output_bits needs an output_bound: levels need a finite range")
        if not self.output_noise >= 0:
            raise InputError(f"output_noise = {self.output_noise}: give 0 or more")
        for name in ("input_rounding", "output_rounding"):
            if getattr(self, name) not in ("nearest", "stochastic"):
                raise InputError(f"{name} {getattr(self, name)!r}: 'nearest' or 'stochastic'?")

    @cached_property
    def ideal(self) -> bool:
        """Nothing between the vector and the array."""
        return self == Converters()

    @cached_property
    def dithers(self) -> tuple[bool, bool]:
        """Whether inputs, and outputs, are rounded stochastically."""
        return (
            self.input_bits is not None and self.input_rounding == "stochastic",
            self.output_bits is not None and self.output_rounding == "stochastic",
        )

    @cached_property
    def input_levels(self) -> int:
        """Levels on each side of 0, 0 for an ideal DAC."""
        return 0 if self.input_bits is None else 2 ** (self.input_bits - 1) - 1

    @cached_property
    def output_levels(self) -> int:
        """Levels on each side of 0, 0 for an ideal ADC."""
        return 0 if self.output_bits is None else 2 ** (self.output_bits - 1) - 1


@dataclass(frozen=True, kw_only=True)
class Periphery:
    """Converters of the forward pass and of the backward pass through the transposed array."""

    forward: Converters = field(default_factory=Converters)
    backward: Converters = field(default_factory=Converters)


_MCA = Converters(
    input_bits=8, output_bits=8, output_bound=8.0, noise_management=True, bound_management=True
)
_RPU2016 = {"input_bits": 5, "output_bits": 9, "output_bound": 12.0, "output_noise": 0.06}

#: mca: 8-bit converters (Front. Neurosci. 14:406); range and managements are our choice, the
#: paper's text could not be read. rpu2016: the baseline of Gokmen & Vlasov 2016; the backward
#: vector is scaled to the converter's range (NM), as its small errors would else round to 0.
PRESETS = {
    "mca": Periphery(forward=_MCA, backward=_MCA),
    "rpu2016": Periphery(
        forward=Converters(**_RPU2016),  # type: ignore[arg-type]
        backward=Converters(**_RPU2016, noise_management=True),  # type: ignore[arg-type]
    ),
    "ideal": Periphery(),
}


def preset(name: str) -> Periphery:
    """Return the periphery called ``name``; InputError names the closest one."""
    if name not in PRESETS:
        raise InputError(f"no periphery {name!r}: {closest(name, PRESETS)}")
    return PRESETS[name]


def matvec(
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    chance: Chance,
    reads: Reads | None = None,
) -> Tensor:
    """Return the array's answer y (n, out) to the rows of x (n, in), both float32.

    weights: (out, in). variance: of one read of each weight, or None. Fresh independent read
    noise of every device is, at the output, exactly Gaussian with variance x^2 S^T. reads: counts.
    """
    if reads is not None:
        reads.vectors += x.shape[0]
    if c.ideal and variance is None:
        return kernels.product(x, weights)
    y, clipped = _convert(x, weights, variance, c, 1.0, chance)
    return within_bounds(y, clipped, x, weights, variance, c, chance, reads)


def within_bounds(
    y: Tensor,
    clipped: Tensor | None,
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    chance: Chance,
    reads: Reads | None = None,
) -> Tensor:
    """Manage bounds: read rows of x again that have ``clipped``, the rest of y is as it is."""
    divisor = 1.0
    while clipped is not None and c.bound_management and divisor < _MOST_DIVISION:
        divisor *= 2
        if reads is not None:
            reads.repeats += len(clipped)
        if x.size(0) == 1:
            y, clipped = _convert(x, weights, variance, c, divisor, chance)
        else:
            y[clipped], again = _convert(x[clipped], weights, variance, c, divisor, chance)
            clipped = None if again is None else clipped[again]
    return y


def _convert(
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    divisor: float,
    chance: Chance,
) -> tuple[Tensor, Tensor | None]:
    drawn = draws(weights, variance is not None, c, chance)(x.size(0))
    return kernels.convert(x, weights, variance, c, divisor, *drawn)


def draws(weights: Tensor, noisy: bool, c: Converters, chance: Chance) -> Draw:
    """Return what draws the chance of `kernels.convert`; noisy: whether reads are."""
    outputs, inputs = weights.shape
    noisy = noisy or c.output_noise > 0

    def draw(n: int) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return (
            chance.uniform(n, inputs) if c.dithers[0] else None,
            chance.normal(n, outputs) if noisy else None,
            chance.uniform(n, outputs) if c.dithers[1] else None,
        )

    return draw
