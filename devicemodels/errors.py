"""The one error a user's mistake raises: a single line of what, where and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class InputError(ValueError):
    """Bad input from a user. The message is one line; the command line exits with status 2."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known name nearest to a mistyped one, and all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"


def reject_unknown(given: Iterable[str], known: Collection[str], where: str, what: str) -> None:
    """Raise InputError for the first name in ``given`` that is not ``known``."""
    for name in given:
        if name not in known:
            raise InputError(f"{where}: unknown {what} {name!r}: {closest(name, known)}")
