"""Files of tables: CSV, plain or packed, and Parquet, to and from a frame of cells."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from calibration.checks import Origin
from devicemodels.errors import InputError

#: The kinds of file.
SUFFIXES = (".csv", ".csv.gz", ".csv.xz", ".parquet")


def contents(path: Path | str) -> bytes:
    """Return the bytes of a file. Raises InputError if it is missing, empty or unreadable."""
    _suffix(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot read the measurements: {error.strerror}: check the path"
        ) from None
    if not content:
        raise InputError(f"{path}: the file is empty: give a header and a row a read")
    return content


def decoded(content: bytes, path: Path | str) -> tuple[pd.DataFrame, Origin]:
    """Return the table in a file's bytes, cells of a CSV as text, and how to name its rows.

    Raises InputError for a damaged file, another text encoding than UTF-8, and CSV rows longer
    than the header.
    """
    if _suffix(path) == ".parquet":
        try:
            return pd.read_parquet(io.BytesIO(content)), Origin(str(path))
        except ImportError:
            raise
        except Exception:  # a damaged file makes pyarrow raise nearly anything
            raise InputError(f"{path}: not a whole Parquet file: write it again") from None
    # The header is line 1 of the file.
    return _csv(_text(content, path), path), Origin(str(path), "line", 2)


def encoded(frame: pd.DataFrame, path: Path | str) -> bytes:
    """Return a frame as the bytes of a file of the kind of ``path``; the same for the same frame.

    Raises InputError for an unknown suffix.
    """
    suffix = _suffix(path)
    frame = frame.astype(dict.fromkeys(frame.select_dtypes("category"), str))
    if suffix == ".parquet":
        return frame.to_parquet(index=False)
    text = frame.to_csv(index=False, lineterminator="\n").encode()
    if suffix == ".csv.gz":
        return gzip.compress(text, mtime=0)
    return lzma.compress(text) if suffix == ".csv.xz" else text


def replace(path: Path | str, content: bytes) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as part:
        part.write_bytes(content)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a path to write to, so that a reader finds the old file or the new, never a part.

    Raises InputError if it cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}): make room and the folder writable"
        ) from None


def _suffix(path: Path | str) -> str:
    """Return the one of SUFFIXES that a path ends with."""
    for suffix in SUFFIXES:
        if Path(path).name.lower().endswith(suffix):
            return suffix
    raise InputError(f"{path}: unknown kind of file: give one of {', '.join(SUFFIXES)}")


def _text(content: bytes, path: Path | str) -> str:
    """Return the text of a CSV file, unpacked."""
    try:
        if _suffix(path) == ".csv.gz":
            content = gzip.decompress(content)
        elif _suffix(path) == ".csv.xz":
            content = lzma.decompress(content)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        raise InputError(f"{path}: not a whole {_suffix(path)} file: pack it again") from None
    try:
        text = content.decode("utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{path}: not a text file: save it as CSV in UTF-8")
    return text


def _csv(text: str, path: Path | str) -> pd.DataFrame:
    """Return the cells of a CSV file as text."""
    header = text.partition("\n")[0]
    if "," not in header and (other := re.search(r"[;\t|]", header)):
        raise InputError(
            f"{path}: line 1: columns are separated by {other[0]!r}: separate them by commas"
        )
    try:
        # The header is read as a row, so that pandas neither renames columns nor takes an index.
        cells = pd.read_csv(
            io.StringIO(text.rstrip()),
            header=None,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
        )
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: line 1 is blank: begin with a header") from None
    except pd.errors.ParserError as error:
        if quote := re.search(r"EOF inside string starting at row (\d+)", str(error)):
            line = str(int(quote[1]) + 1)
            raise InputError(
                f"{path}: line {line}: a quotation mark is never closed: close or remove it"
            ) from None
        fields = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if fields is None:
            raise InputError(f"{path}: not a CSV table: save it as CSV again") from None
        wanted, line, seen = fields.groups()
        raise InputError(
            f"{path}: line {line} has {seen} fields, the header {wanted} columns: remove the rest "
            "of the line (decimal commas? write points)"
        ) from None
    return cells.iloc[1:].set_axis(list(cells.iloc[0]), axis="columns")
