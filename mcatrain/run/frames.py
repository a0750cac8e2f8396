"""Runs as pandas frames, for analyses of one's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from devicemodels.errors import InputError
from mcatrain.run.records import Run, find_runs, load_ledger

if TYPE_CHECKING:  # half a second, which only who asks for frames should wait
    import pandas as pd

#: The layer of what is counted over all layers.
TOTAL = "total"
_COUNTS = ("set_pulses", "reset_pulses", "refreshes", "pulses", "seconds", "examples")
_ABOUT_EVALUATION = (
    "device", "programming", "time_s", "compensation", "batchnorm_recalibrated", "chips", "mean",
    "sd",
)  # fmt: skip


class Runs(NamedTuple):
    """What a folder's runs were and did, in long frames that share the column ``run``.

    run: path below the folder that was read, "." for that folder itself. What is missing, or has
    overflowed, is NaN; what is counted and nowhere missing is int64.

    runs: a row a run: run, finished; its options, by their names in config.toml; metrics.NAME, the
    last evaluation's; set_pulses, reset_pulses, refreshes, pulses (SET and RESET), seconds [s] (of
    training steps), examples, energy_j [J]. Of a run that is not finished: as far as it is.
    metrics: a row an evaluation in training: run, step, epoch, seconds, train_loss, ... as in
    metrics.jsonl, and energy_j [J] until then.
    ledger: a row an operation: run, step, epoch, layer, operation, count. Counts are of the run
    until then: for the layer "total" at every evaluation, for each layer when it has finished.
    evaluations: a row a reading after training (mcatrain evaluate): run, metric, device,
    programming, time_s [s], compensation, batchnorm_recalibrated, chips, mean, sd over chips.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    ledger: pd.DataFrame
    evaluations: pd.DataFrame


def load_runs(folder: str | os.PathLike[str]) -> Runs:
    """Load every run in a folder or below it: of train, compare, --chips, or several of them.

    Raises InputError, one line, for a folder without runs and for a file that is broken.

        found = mcatrain.load_runs("results")
        found.runs.groupby(["rule", "device_model"])["metrics.test_accuracy"].agg(["mean", "std"])
        found.metrics.merge(found.runs[["run", "rule"]]).pivot_table("test_loss", "epoch", "rule")
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{place}: no such folder: give one that mcatrain train or compare made")
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in Runs._fields}
    for run in find_runs(place):
        name = {"run": run.folder.relative_to(place).as_posix()}
        spent = load_ledger(run)
        energy = {row.get("step"): row.get("energy") for row in spent}
        tables["runs"].append(name | _summary(run, spent))
        for row in run.history:
            tables["metrics"].append(name | row | {"energy_j": energy.get(row.get("step"))})
        tables["ledger"] += [name | row for row in _operations(run, spent)]
        tables["evaluations"] += [name | row for row in _readings(run)]
    return Runs(
        _frame(tables["runs"], {"run": "str", "finished": "bool"}),
        _frame(tables["metrics"], {"run": "str", "step": "int64", "epoch": "float64"}),
        _frame(
            tables["ledger"],
            {"run": "str", "step": "int64", "epoch": "float64", "layer": "str",
             "operation": "str", "count": "int64"},
        ),
        _frame(
            tables["evaluations"],
            {"run": "str", "metric": "str", "device": "str", "programming": "str",
             "time_s": "float64", "compensation": "str", "mean": "float64", "sd": "float64"},
        ),
    )  # fmt: skip


def _summary(run: Run, spent: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    outcome = run.outcome
    # Of a run that is not finished the outcome is its last evaluation, with steps and seconds.
    apart = {"step", "epoch", *_COUNTS}
    measured = {f"metrics.{k}": v for k, v in outcome["metrics"].items() if k not in apart}
    counted = {key: outcome.get(key) for key in _COUNTS}
    energy = spent[-1].get("energy") if spent else None
    finished = {"finished": run.result is not None}
    return finished | run.config | measured | counted | {"energy_j": energy}


def _operations(run: Run, spent: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    rows = []
    for row in spent:
        at = {"step": row.get("step"), "epoch": row["epoch"]}
        counts = {key: value for key, value in row.items() if key not in (*at, "energy")}
        rows += _counted(at | {"layer": TOTAL}, counts)
    layers = ((run.result or {}).get("ledger") or {}).get("layers", {}) if run.history else {}
    for layer, counts in layers.items():
        last = {key: run.history[-1].get(key) for key in ("step", "epoch")}
        rows += _counted(last | {"layer": layer}, counts)
    return rows


def _counted(about: dict[str, Any], counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [about | {"operation": name, "count": count} for name, count in counts.items()]


def _readings(run: Run) -> list[dict[str, Any]]:
    told = run.evaluation or {}
    metric = {"metric": told.get("metric")}
    return [
        metric | {key: entry.get(key) for key in _ABOUT_EVALUATION}
        for entry in told.get("entries", [])
    ]


def _frame(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Return rows as a frame; ``columns`` come first, and have their types even without rows."""
    import pandas as pd

    known = [{k: v for k, v in row.items() if v is not None} for row in rows]
    frame = pd.DataFrame(known)
    frame = frame.reindex(columns=[*columns, *(c for c in frame.columns if c not in columns)])
    return frame.astype(columns)
