"""Put the page together from the files of a run or a comparison, and write it."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from devicemodels.errors import InputError
from mcatrain.report import made, summary
from mcatrain.report.chips import chips_section
from mcatrain.report.devices import device_sections
from mcatrain.report.distributions import distribution_figures
from mcatrain.report.energy import energy_section
from mcatrain.report.evaluation import evaluation_sections
from mcatrain.report.pictures import training_figures
from mcatrain.report.plots import Painter
from mcatrain.report.records import Results, load_results
from mcatrain.report.spending import spending_figures

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
_GLOSSARY = {
    "fp32": "float32 computes everything in 32-bit floating point, without any device: the "
    "reference.",
    "mca": "MCA (mixed-precision training on computational memory) adds up weight changes in "
    "digital memory, χ, and sends a device pulses only when χ is worth one.",
    "rpu": "RPU (resistive processing unit) updates every device directly, with random pulse "
    "streams whose coincidences stand for the product of input and error.",
}


def build_report(folder: Path) -> Path:
    """Write ``folder``/report.html from the other files there and return its path.

    Works on a run folder, finished or not, and on a comparison folder. The page is one file that
    needs no network; the same files give the same page, byte for byte. It is replaced in one
    step: a reader never sees half of it.

    Raises InputError for a folder or a file in it that is missing or broken.
    """
    folder = Path(folder)
    page = _render(load_results(folder))
    path = folder / "report.html"
    draft = folder / f".report.html.{os.getpid()}.tmp"
    try:
        draft.write_text(page, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}): make room and the folder writable"
        ) from None
    finally:
        draft.unlink(missing_ok=True)
    return path


def _render(results: Results) -> str:
    groups = summary.group_runs(results)
    metric = summary.main_metric(groups)
    painter = Painter()
    over = "chip" if results.chips else "seed"
    columns, rows = summary.summary_table(groups, metric, over)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["micro"] = _micro
    template = resources.files("mcatrain.report") / "template.html"
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=_title(results, groups),
        facts=_facts(results, groups),
        metric_note=metric.note,
        columns=columns,
        rows=[(group.rule, row) for group, row in zip(groups, rows, strict=True)],
        glossary=[_GLOSSARY[rule] for rule in _GLOSSARY if any(g.rule == rule for g in groups)],
        gaps=summary.sentences(groups, metric),
        remarks=summary.remarks(results, groups),
        training=training_figures(painter, groups, metric),
        distributions=[
            (group, figures)
            for group in groups
            if (figures := distribution_figures(painter, group))
        ],
        evaluations=evaluation_sections(painter, groups),
        devices=device_sections(painter, groups),
        energy=energy_section(groups),
        spending=spending_figures(painter, groups, metric, over),
        sheets=made.sheets(groups),
        texts=made.texts(groups),
        option_columns=[group.label for group in groups],
        options=_options(groups),
        command=results.about("command"),
        versions=results.about("versions") or (results.runs[0].result or {}).get("versions") or {},
        is_comparison=results.is_comparison,
        has_bands=max(len(group.runs) for group in groups) > 1,
        over=over,
        chips=chips_section(results, metric),
    )


def _micro(text: str) -> str:
    """Parameter files are plain ASCII: write their uS and uA as µS and µA."""
    return re.sub(r"\bu(?=[AS]\b)", "µ", text)


def _title(results: Results, groups: list[summary.Group]) -> str:
    task, data = str(results.about("task") or "network"), str(results.about("data") or "data")
    name = task.upper() if task in ("mlp", "cnn", "lstm", "gan") else task
    subject = f"{name} on {data}"
    if len(groups) == 1:
        return f"{subject}: {groups[0].label}"
    return f"{subject}: {', '.join(dict.fromkeys(g.rule_name for g in groups))} compared"


def _facts(results: Results, groups: list[summary.Group]) -> str:
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


def _options(groups: list[summary.Group]) -> list[tuple[str, list[str]]]:
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


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
