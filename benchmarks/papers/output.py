"""What a finished table is written as: Markdown, JSON, and a picture of the training curves."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import mcatrain
from benchmarks.machine import cpu
from benchmarks.papers.table import Metric, Row, Table
from mcatrain.run.config import TrainConfig
from mcatrain.run.folder import write_json
from mcatrain.run.writing import write_text

_MARKS = (
    "Of the paper's numbers, *verified* ones were read in a public source, *recalled* ones could "
    "not be checked against the paper, and *simulated* ones come from an independent simulation "
    "of the experiment, not from the paper."
)
#: Panels of a picture side by side.
_MOST_BESIDE = 3


def setting() -> dict[str, Any]:
    """Return when, where and with what the table is made."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "cuda_device": cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mcatrain": mcatrain.__version__,
        "commit": _commit(),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def figures(
    table: Table, budget: str, results: dict[Row, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return what is shown of each row: values by seed, mean, sd (None with one seed), gap."""
    shown = []
    for row, found in results.items():
        pulses = [(r["set_pulses"] + r["reset_pulses"]) / r["examples"] for r in found]
        shown.append(
            {
                "label": row.label,
                "paper": row.paper,
                "options": row.options,
                "metrics": {m.name: _spread(m, found) for m in table.metrics},
                "gap": _gap(table, budget, row, results),
                "pulses_per_example": statistics.mean(pulses),
                "refreshes": statistics.mean(r["refreshes"] for r in found),
                "seconds": statistics.mean(r["seconds"] for r in found),
                "remarks": [remark for r in found for remark in r["remarks"]],
            }
        )
    return shown


def _spread(metric: Metric, found: list[dict[str, Any]]) -> dict[str, Any]:
    values = [metric.of(result["metrics"]) for result in found]
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return {
        "values": values,
        "mean": statistics.mean(known) if whole else None,
        "sd": statistics.stdev(known) if whole and len(known) > 1 else None,
    }


def _gap(
    table: Table, budget: str, row: Row, results: dict[Row, list[dict[str, Any]]]
) -> float | None:
    """Return how far the mean of a row's first metric is above that of its reference."""
    reference = table.reference(row, budget)
    means = [_spread(table.metrics[0], results[r])["mean"] for r in (row, reference)]
    return None if row is reference or None in means else means[0] - means[1]


def markdown(table: Table, shown: list[dict[str, Any]]) -> str:
    """Return the table itself."""
    names = [metric.name for metric in table.metrics]
    heads = ["row", "paper", *names, "gap", "pulses / example", "refreshes", "seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for entry in shown:
        cells = [entry["label"], entry["paper"] or "–"]
        for metric in table.metrics:
            number = entry["metrics"][metric.name]
            cells.append(_number(number["mean"], metric.decimals, "overflowed"))
            if number["sd"] is not None:
                cells[-1] += f" ± {number['sd']:.{metric.decimals}f}"
        cells.append(_number(entry["gap"], table.metrics[0].decimals, "", sign="+"))
        cells += [f"{entry['pulses_per_example']:.4g}", f"{entry['refreshes']:.0f}"]
        cells.append(f"{entry['seconds']:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None, decimals: int, otherwise: str, sign: str = "") -> str:
    return otherwise if value is None else f"{value:{sign}.{decimals}f}"


def write(
    table: Table,
    budget: str,
    runs: dict[Row, list[TrainConfig]],
    results: dict[Row, list[dict[str, Any]]],
    command: str,
    where: dict[str, Any],
    folder: Path,
) -> str:
    """Write NAME-BUDGET.md, .json and .png into ``folder``; return the text of the first.

    where: the `setting` the runs began in.
    """
    shown, chosen = figures(table, budget, results), table.budget(budget)
    seeds = [config.seed for config in next(iter(runs.values()))]
    many = f"mean ± sd of {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    cuda = f", {where['cuda_device']}" if where["cuda_device"] else ""
    remarks = [f"- {e['label']}: {remark}" for e in shown for remark in e["remarks"]]
    paragraphs = [
        f"# {table.title}",
        f"{table.paper}. Budget *{budget}*: {chosen.note}",
        f"Ours: {many} ({', '.join(map(str, seeds))}); gap: {table.metrics[0].name} above the "
        f"first row's{' on the same data' if _data_sets(table, budget) > 1 else ''}; seconds: "
        "training of one run. " + _MARKS,
        markdown(table, shown),
        "\n".join(remarks),
        table.note,
        f"![training curves]({table.name}-{budget}.png)",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores{cuda}, Python "
        f"{where['python']}, torch {where['torch']}, mcatrain {where['mcatrain']}, commit "
        f"{where['commit']}",
        f"`{command}`",
    ]
    text = "\n\n".join(part for part in paragraphs if part) + "\n"
    body = {
        "table": table.name,
        "title": table.title,
        "paper": table.paper,
        "budget": budget,
        "budget_options": {**table.base, **chosen.options},
        "note": chosen.note,
        "seeds": seeds,
        "command": command,
        "setting": where,
        "metrics": [asdict(metric) for metric in table.metrics],
        "rows": shown,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table.name}-{budget}"
    draw(table, budget, runs, path.with_suffix(".png"))
    write_json(path.with_suffix(".json"), body)
    write_text(path.with_suffix(".md"), text)
    return text


def _data_sets(table: Table, budget: str) -> int:
    return len({row.options.get("data") for row in table.rows_of(budget)})


def draw(table: Table, budget: str, runs: dict[Row, list[TrainConfig]], path: Path) -> None:
    """Draw the first metric by epoch: a colour a row, a line a seed, and the rows' panels."""
    names = list(dict.fromkeys(row.panel for row in runs if row.panel)) or [""]
    wide = min(len(names), _MOST_BESIDE)
    high = math.ceil(len(names) / wide)
    figure = Figure(figsize=(max(4.6 * wide, 6.5), 3.8 * high + 0.4), layout="constrained")
    panels = figure.subplots(high, wide, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        shown = {row: mine for row, mine in runs.items() if row.panel in ("", name)}
        _draw_panel(panel, table.metrics[0], shown)
        panel.set_title(name, fontsize=10)
    for unused in panels[len(names) :]:
        unused.remove()
    figure.suptitle(f"{table.title}\nbudget {budget}, {time.strftime('%Y-%m-%d')}", fontsize=10)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png", dpi=120)
    os.replace(part, path)


def _draw_panel(panel: Axes, metric: Metric, runs: dict[Row, list[TrainConfig]]) -> None:
    for number, (row, configs) in enumerate(runs.items()):
        for k, config in enumerate(configs):
            epochs, values = _curve(metric, Path(config.out))
            label = None if k else row.label
            panel.plot(
                epochs, values, f"C{number % 10}o-", label=label, markersize=3, linewidth=1.2
            )
    if metric.log_axis:
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.tick_params(axis="y", which="both", labelsize=8)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set(xlabel="epoch", ylabel=metric.name)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8, framealpha=0.7)


def _curve(metric: Metric, run: Path) -> tuple[list[int], list[float]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    points = [(row["epoch"], metric.of(row)) for row in map(json.loads, lines)]
    known = [(epoch, value) for epoch, value in points if value is not None]
    return [epoch for epoch, _ in known], [value for _, value in known]
