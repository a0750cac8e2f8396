"""Title, line of facts and options of a report: what was trained, and how."""

from __future__ import annotations

from typing import Any

from mcatrain.report import summary
from mcatrain.run.records import Results, Run

#: Options that say where a run was kept, not what it was: they differ for every run.
_PLACES = ("out", "resume")
#: Options in the line under the title.
_FACTS = {
    "task": "task {}",
    "data": "data {}",
    "epochs": "{} epochs",
    "batch_size": "batch size {}",
    "sequence": "sequences of {} characters",
    "dropout": "dropout {}",
    "lr": "lr {}",
    "array_size": "arrays of at most {}",
    "devices_per_weight": "devices per weight {}",
}
_OF_TEXT = ("sequence",)
_OF_ARRAYS = ("array_size", "devices_per_weight")
#: ... of which these values say nothing.
_UNUSED = {"devices_per_weight": "1"}


def title(results: Results, groups: list[summary.Group]) -> str:
    """Return what was trained, on what data, by which rules."""
    task, data = str(results.about("task") or "network"), str(results.about("data") or "data")
    name = task.upper() if task in ("mlp", "cnn", "lstm", "gan") else task
    subject = f"{name} on {data}"
    if len(groups) == 1:
        return f"{subject}: {groups[0].label}"
    return f"{subject}: {', '.join(dict.fromkeys(g.rule_name for g in groups))} compared"


def facts(results: Results, groups: list[summary.Group]) -> str:
    """Return the line under the title: what was trained, how long, from which seeds."""
    runs = [run for group in groups for run in group.runs]
    seeds = list(dict.fromkeys(str(run.seed) for run in runs if run.seed is not None))
    parts = [f"{len(runs)} training runs"] if len(runs) > 1 else []
    if results.chips:
        parts = [f"{len(runs)} of {results.chips} chips"]
    of_text = runs[0].config.get("task") == "lstm"
    on_arrays = any(group.rule != "fp32" for group in groups)
    for key, text in _FACTS.items():
        values = [str(run.config[key]) for run in runs if key in run.config]
        shown = " or ".join(value for value in dict.fromkeys(values) if value)
        applies = of_text if key in _OF_TEXT else on_arrays if key in _OF_ARRAYS else True
        if shown and applies and shown != _UNUSED.get(key):
            parts.append(text.format(shown))
    if seeds:
        parts.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}")
    return " · ".join(parts)


def option_table(groups: list[summary.Group]) -> list[tuple[str, list[str]]]:
    """Return (option, values): one value where all rules have the same, else one for each."""
    first = [group.runs[0].config for group in groups]
    table = []
    for key in dict.fromkeys(key for config in first for key in config if key not in _PLACES):
        if key == "seed":
            values = [", ".join(str(run.seed) for run in group.runs) for group in groups]
        elif key == "device_model":  # float32 has the option's default, but no device
            values = [_shown(group.runs[0].device) for group in groups]
        else:
            values = [_shown(config.get(key)) for config in first]
        table.append((key, values[:1] if len(set(values)) == 1 else values))
    return table


def run_options(run: Run) -> list[tuple[str, str]]:
    """Return the options of one run and their values."""
    options = {key: value for key, value in run.config.items() if key not in _PLACES}
    if "device_model" in options:
        options["device_model"] = run.device
    return [(key, _shown(value)) for key, value in options.items()]


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
