"""Where parameter files lie and how one is read: shipped ones by name, any other by path."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from devicemodels.errors import InputError, closest


@dataclass(frozen=True)
class ParameterFile:
    """A file's text. name: without its ending. where: as errors call it. folder: of a path."""

    text: str
    name: str
    where: str
    folder: Path = Path()


def shipped(package: str) -> list[str]:
    """Return the names of the parameter files that come with a package."""
    folder = resources.files(package) / "parameters"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def read_file(name: str | Path, package: str, kind: str) -> ParameterFile:
    """Read a file that comes with ``package`` by name, or any by path (with '/' or '.toml').

    kind: what it describes, in errors. Raises InputError for an unknown name, and for what cannot
    be read.
    """
    text = str(name)
    if text.endswith(".toml") or "/" in text:
        path = Path(text)
        try:
            return ParameterFile(path.read_text(encoding="utf-8"), path.stem, text, path.parent)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise InputError(f"{text}: cannot read the {kind}: {reason}") from None
    if text not in shipped(package):
        raise InputError(f"no {kind} {text!r}: {closest(text, shipped(package))}; or a FILE.toml")
    source = resources.files(package) / "parameters" / f"{text}.toml"
    return ParameterFile(source.read_text(encoding="utf-8"), text, f"{text}.toml")


def read_table(text: str, header: Sequence[str], where: str) -> dict[str, Any]:
    """Return the tables of a parameter file, whose ``header`` keys hold texts.

    Raises InputError for what is not TOML, and for a header that is missing or empty.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond Python's limits
        raise InputError(f"{where}: not valid TOML: {error}") from None
    for key in header:
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise InputError(f'{where}: {key} is missing: add a line {key} = "..."')
    return table
