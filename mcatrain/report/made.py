"""What trained models made: sheets of generated images, and text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from mcatrain.report.summary import Group


@dataclass(frozen=True)
class Sheet:
    """The generated images of one run, as a data: URI that stands in the page."""

    rule: str
    label: str
    source: str


@dataclass(frozen=True)
class Text:
    """What the model of one run wrote."""

    rule: str
    label: str
    text: str


def sheets(groups: Sequence[Group]) -> list[tuple[str, list[Sheet]]]:
    """Return (seed, sheets of the rules side by side) for every seed that has any."""
    by_seed: dict[str, list[Sheet]] = {}
    for group in groups:
        for run in group.runs:
            if run.images is not None:
                source = "data:image/png;base64," + base64.b64encode(run.images).decode("ascii")
                sheet = Sheet(group.rule, group.label, source)
                by_seed.setdefault(str(run.seed), []).append(sheet)
    return list(by_seed.items())


def texts(groups: Sequence[Group]) -> list[Text]:
    """Return what was written, rule by rule; the seed is named where a rule has several."""
    return [
        Text(
            group.rule,
            group.label + (f", seed {run.seed}" if len(group.runs) > 1 else ""),
            run.written,
        )
        for group in groups
        for run in group.runs
        if run.written
    ]
