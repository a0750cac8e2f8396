"""The hot loops of training; see devicemodels.kernels for how a form is chosen."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from devicemodels.kernels import form


def convert(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    """See `reference.convert`."""
    return form(__name__, x).convert(x, *rest)


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """See `reference.spend`."""
    return form(__name__, chi).spend(chi, epsilon)


def accumulate(chi: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """See `reference.accumulate`."""
    return form(__name__, chi).accumulate(chi, *rest)


def program_pairs(chi: Tensor, *rest: Any) -> Tensor:
    """See `reference.program_pairs`."""
    return form(__name__, chi).program_pairs(chi, *rest)


def coincidences(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """See `reference.coincidences`."""
    return form(__name__, x).coincidences(x, *rest)


def coincidences_sum(x: Tensor, *rest: Any) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """See `reference.coincidences_sum`."""
    return form(__name__, x).coincidences_sum(x, *rest)
