"""Readers of published data sets, in place: one module a set; here, what they share."""

from __future__ import annotations

import hashlib
import io
import lzma
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.measurements import Measurements, table
from devicemodels.errors import InputError


def published(path: Path, origin: str) -> bytes:
    """Return the bytes of a published file, those of a .xz unpacked.

    origin: where the data set was published. Raises InputError, naming both, if the file is
    missing or cut short.
    """
    try:
        content = path.read_bytes()
        return lzma.decompress(content) if path.suffix == ".xz" else content
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or "not a whole .xz file"
        raise InputError(f"{path}: cannot read: {reason}: get the data of {origin}") from None


def cells(
    path: Path, origin: str, columns: Sequence[str], *, separator: str = ",", header: bool = True
) -> pd.DataFrame:
    """Return a published table of finite numbers with these columns; header: whether it has one.

    Raises InputError if the file is anything else.
    """
    content = published(path, origin)
    try:
        frame = pd.read_csv(io.BytesIO(content), sep=separator, header=0 if header else None)
    except ValueError:  # among them: not a text, no columns, rows of different lengths
        frame = pd.DataFrame()
    if not header and frame.shape[1] == len(columns):
        frame.columns = pd.Index(columns)
    if (
        list(frame.columns) != list(columns)
        or not all(map(pd.api.types.is_numeric_dtype, frame.dtypes))
        or not np.isfinite(frame.to_numpy(np.float64)).all()
    ):
        raise InputError(
            f"{path}: not a table of the numbers {', '.join(columns)}: get the data of {origin}"
        )
    return frame


def measured(frame: pd.DataFrame, path: Path) -> Measurements:
    """Return the checked table of what was read from ``path``, with the sha256 of that file."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(table(frame, str(path)), sha256=sha256)
