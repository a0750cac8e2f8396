"""The one error a user's mistake raises: a single line of what, where and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from a user. The message is one line; the command line exits with status 2."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known name nearest to a mistyped one, and all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"
