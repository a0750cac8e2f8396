"""What the HTML reports of runs and of fits share: frame, macros, style and script.

They stand here because neither report may import the other's package. Nothing of devices is in
them, and no template engine is imported: a report's own environment loads ``frame.html`` and
``macros.html`` from `FOLDER`, and gives the frame `style` and `script` with what it adds to them.
"""

from __future__ import annotations

import re
from pathlib import Path

#: Where ``frame.html`` and ``macros.html`` lie.
FOLDER = Path(__file__).parent


def style() -> str:
    """Return the style of every report."""
    return _text("page.css")


def script() -> str:
    """Return the script of every report: colours, tables, pictures, the command."""
    return _text("page.js") + _text("pictures.js")


def unbroken(text: str) -> str:
    """Return the text with every number and its unit on one line: a filter of ``macros.html``."""
    return re.sub(r"(?<=\d) (?=(?:%|[µnm]?[AJSsV])(?!\w))", "\u00a0", text)


def micro(text: str) -> str:
    """Return the text with µS and µA where parameter files, plain ASCII, have uS and uA."""
    return re.sub(r"\bu(?=[AS]\b)", "µ", text)


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
