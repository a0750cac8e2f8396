"""The hot loops of training; see devicemodels.kernels for how a form is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from devicemodels.kernels import form

if TYPE_CHECKING:
    from mcatrain.kernels.lines import Lines


def convert(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    """See `reference.convert`."""
    return form(__name__, x).convert(x, *rest)


def product(x: Tensor, w: Tensor, out: Tensor | None = None) -> Tensor:
    """See `reference.product`."""
    y: Tensor = form(__name__, x).product(x, w, out)
    return y


def add_product(to: Tensor, *rest: Any) -> None:
    """See `reference.add_product`."""
    form(__name__, to).add_product(to, *rest)


def convert_patches(images: Tensor, *rest: Any) -> tuple[Tensor, Tensor | None]:
    """See `patchwise.convert_patches`."""
    return form(__name__, images).convert_patches(images, *rest)


def convert_to_patches(d: Tensor, *rest: Any) -> Tensor | None:
    """See `patchwise.convert_to_patches`."""
    return form(__name__, d).convert_to_patches(d, *rest)


def convert_lines(of: Tensor, *rest: Any) -> Lines:
    """See `lines.Lines`."""
    return cast("Lines", form(__name__, of).Lines(of, *rest))


def patches(images: Tensor, *rest: Any) -> None:
    """See `windows.patches`."""
    form(__name__, images).patches(images, *rest)


def add_patches(rows: Tensor, *rest: Any) -> None:
    """See `windows.add_patches`."""
    form(__name__, rows).add_patches(rows, *rest)


def lstm_forward(z: Tensor, c_before: Tensor) -> tuple[Tensor, Tensor]:
    """See `cells.lstm_forward`."""
    return form(__name__, z).lstm_forward(z, c_before)


def lstm_backward(z: Tensor, *rest: Tensor) -> Tensor:
    """See `cells.lstm_backward`."""
    return form(__name__, z).lstm_backward(z, *rest)


def is_finite(*values: Tensor) -> bool:
    """See `reference.is_finite`."""
    return form(__name__, values[0]).is_finite(*values)


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """See `reference.spend`."""
    return form(__name__, chi).spend(chi, epsilon)


def descend(chi: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """See `reference.descend`."""
    return form(__name__, chi).descend(chi, *rest)


def accumulate(chi: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """See `reference.accumulate`."""
    return form(__name__, chi).accumulate(chi, *rest)


def program_of(chi: Tensor) -> Callable[..., tuple[int, int, Tensor | None] | None] | None:
    """Return `cuda.program.program`, for which one pass is worth most, or None on other devices."""
    return getattr(form(__name__, chi), "program", None)


def gains(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, int]:
    """See `reference.gains`."""
    return form(__name__, x).gains(x, *rest)


def coincidences(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, int]:
    """See `reference.coincidences`."""
    return form(__name__, x).coincidences(x, *rest)


def coincidences_sum(x: Tensor, *rest: Any) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """See `reference.coincidences_sum`."""
    return form(__name__, x).coincidences_sum(x, *rest)
