"""Options that hold more than one value, read from how they are written on the command line.

Each function raises InputError, naming the option, for what cannot be read.
"""

from __future__ import annotations

import math

from devicemodels.errors import InputError
from mcatrain.nn.options import deviations


def widths(text: str) -> tuple[int, ...]:
    """Read ``256,128``, the widths of hidden layers; "" is none."""
    if not text:
        return ()
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if min(found, default=0) < 1:
        raise InputError(f"--hidden {text!r}: give widths such as 250 or 256,128")
    return found


def array_limit(text: str) -> tuple[int, int] | None:
    """Read ``512x512``, rows and columns of the largest array; "" is None, any size."""
    if not text:
        return None
    try:
        rows, columns = (int(part) for part in text.split("x"))
    except ValueError:
        rows = columns = 0
    if min(rows, columns) < 1:
        raise InputError(f"--array-size {text!r}: give ROWSxCOLUMNS, e.g. 512x512")
    return rows, columns


def devices(text: str) -> dict[str, int]:
    """Read ``4`` or ``conv2=13,4``, devices by layer; '' stands for layers without a name."""
    found: dict[str, int] = {}
    for part in text.split(","):
        layer, named, number = (piece.strip() for piece in part.rpartition("="))
        count = int(number) if number.isdecimal() else 0
        # A name left out, or given twice, is a slip: the first or last must not win in silence.
        if count < 1 or layer in found or bool(named) != bool(layer):
            raise InputError(
                f"--devices-per-weight {text!r}: give N, or LAYER=N,... such as conv2=13, each "
                "layer once"
            )
        found[layer] = count
    return found


def beta(text: str) -> float | str | None:
    """Read a conductance [µS], deviations 'Nsd', or ``file``, None: the device model's."""
    if text == "file":
        return None
    if text.endswith("sd"):
        try:
            deviations(text)
        except InputError as error:
            raise InputError(f"--{error}") from None
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"--beta {text!r}: give a conductance [uS], 'file' or e.g. '3.5sd'")
    return value


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
