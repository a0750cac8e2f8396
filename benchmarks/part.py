"""One part of the suite: what it measured, as a table for people and as figures for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.timing import CLOCKS, Clock


@dataclass(frozen=True)
class Effort:
    """How much is measured, and by which clock.

    rounds: of every case, None for its own; smoke: the least that runs.
    """

    rounds: int | None = None
    smoke: bool = False
    clock: Clock = CLOCKS["wall"]

    def of(self, rounds: int) -> int:
        """Return the rounds of a case whose own are ``rounds``."""
        if self.rounds is not None:
            return self.rounds
        return 1 if self.smoke else rounds


@dataclass(frozen=True)
class Table:
    """Cells of text under a title; notes say how they came about."""

    title: str
    notes: str
    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [f"### {self.title}", "", self.notes, "", _row(self.head)]
        lines.append("|" + "---|" * len(self.head))
        return "\n".join([*lines, *map(_row, self.rows)])


@dataclass(frozen=True)
class Part:
    """What a part of the suite found. figures: plain values that JSON can hold."""

    title: str
    tables: list[Table]
    figures: Any


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
