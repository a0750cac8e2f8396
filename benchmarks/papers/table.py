"""What a script of this folder declares: rows, budgets, metrics, and the runs they ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devicemodels.errors import InputError, closest
from mcatrain.run.config import TrainConfig

BUDGETS = ("smoke", "hour", "full")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column: key of what a run measured, shown as scale * value + offset."""

    name: str
    key: str
    scale: float = 1.0
    offset: float = 0.0
    decimals: int = 2
    log_axis: bool = True

    def of(self, measured: dict[str, Any]) -> float | None:
        """Return the number to show, None for one that has overflowed."""
        value = measured[self.key]
        if value is None or not math.isfinite(value):
            return None
        return self.scale * value + self.offset


ACCURACY = Metric(name="test accuracy [%]", key="test_accuracy", scale=100, log_axis=False)
ERROR = Metric(name="test error [%]", key="test_accuracy", scale=-100, offset=100)
BITS = Metric(name="bits per character", key="bits_per_character", decimals=3, log_axis=False)
NATS = Metric(name="nats per character", key="test_loss", decimals=3, log_axis=False)
FRECHET = Metric(name="Fréchet distance", key="frechet_distance", decimals=1)


@dataclass(frozen=True, eq=False)
class Row:
    """A line of the table: what it changes, the paper's number as text, the budgets it is in.

    panel: of the picture; rows without one are in every panel.
    """

    label: str
    options: dict[str, Any]
    paper: str = ""
    budgets: tuple[str, ...] = BUDGETS
    panel: str = ""

    @property
    def folder(self) -> str:
        """The label as a part of a folder's name."""
        return re.sub(r"[^a-z0-9.]+", "-", self.label.lower()).strip("-")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of an experiment is run. minutes: estimate for one core and all its seeds."""

    options: dict[str, Any]
    minutes: float
    note: str
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table or figure of a paper.

    paper: citation. metrics: the columns, the first of which is judged by. base: options that all
    rows and budgets share; a budget's options go before them, and a row's before both. note: what
    a reader must know at any budget.
    """

    name: str
    title: str
    paper: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    budgets: dict[str, Budget]
    base: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def budget(self, name: str) -> Budget:
        """Return the budget called ``name``. Raises InputError for an unknown one."""
        if name not in self.budgets:
            raise InputError(f"--budget {name!r}: {closest(name, self.budgets)}")
        return self.budgets[name]

    def rows_of(self, budget: str) -> list[Row]:
        """Return the rows of a budget."""
        return [row for row in self.rows if budget in row.budgets]

    def reference(self, row: Row, budget: str) -> Row:
        """Return the row that a row is compared with: the first one on the same data."""
        data = row.options.get("data")
        return next(r for r in self.rows_of(budget) if r.options.get("data") == data)

    def runs(
        self, budget: str, seeds: Sequence[int], out: Path, data_dir: str = ""
    ) -> dict[Row, list[TrainConfig]]:
        """Return the runs of every row of a budget, one a seed, in folders below ``out``."""
        options = self.base | self.budget(budget).options
        return {
            row: [
                TrainConfig(
                    **options | row.options,
                    seed=seed,
                    data_dir=data_dir,
                    out=str(out / f"{row.folder}-seed{seed}"),
                    resume=True,
                )
                for seed in seeds
            ]
            for row in self.rows_of(budget)
        }
