"""The hot loops of training; see devicemodels.kernels for how a form is chosen."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from devicemodels.kernels import form


def dac(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """See `reference.dac`."""
    return form(__name__, x).dac(x, *rest)


def adc(y: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    """See `reference.adc`."""
    return form(__name__, y).adc(y, *rest)


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """See `reference.spend`."""
    return form(__name__, chi).spend(chi, epsilon)


def coincidences(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """See `reference.coincidences`."""
    return form(__name__, x).coincidences(x, *rest)
