"""Put the page together from the files of a run or a comparison, and write it."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import jinja2

from devicemodels import page
from devicemodels.errors import InputError
from mcatrain.report import made, options, summary
from mcatrain.report.chips import chips_section
from mcatrain.report.devices import device_sections
from mcatrain.report.energy import energy_section
from mcatrain.report.evaluation import Digest, EvaluationSection, digest
from mcatrain.report.pages import cells_of_runs, columns_of_runs, run_pages
from mcatrain.report.pictures import training_figures
from mcatrain.report.plots import Painter
from mcatrain.report.spending import spending_figures
from mcatrain.run.records import Results, load_results

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
    text = _render(load_results(folder))
    path = folder / "report.html"
    draft = folder / f".report.html.{os.getpid()}.tmp"
    try:
        draft.write_text(text, encoding="utf-8")
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
    devices = device_sections(painter, groups)
    pages = run_pages(painter, results, groups, metric, devices)
    template = _environment().get_template("page.html")
    return template.render(
        style=page.style() + _asset("runs.css"),
        script=page.script() + _asset("pages.js"),
        title=options.title(results, groups),
        facts=options.facts(results, groups),
        metric_note=metric.note,
        columns=columns,
        rows=[(group.rule, row) for group, row in zip(groups, rows, strict=True)],
        glossary=[_GLOSSARY[rule] for rule in _GLOSSARY if any(g.rule == rule for g in groups)],
        gaps=summary.sentences(groups, metric),
        remarks=summary.remarks(results, groups),
        training=training_figures(painter, groups, metric),
        pages=pages,
        digests=digest([p.evaluation for p in pages if p.evaluation]),
        devices=devices,
        energy=energy_section(groups),
        spending=spending_figures(painter, groups, metric, over),
        sheets=made.sheets(groups),
        texts=made.texts(groups),
        option_columns=[group.label for group in groups],
        options=options.option_table(groups),
        command=results.about("command"),
        versions=results.about("versions") or (results.runs[0].result or {}).get("versions") or {},
        is_comparison=results.is_comparison,
        has_bands=max(len(group.runs) for group in groups) > 1,
        over=over,
        chips=chips_section(results, metric),
        run_columns=columns_of_runs(pages),
        run_cells=cells_of_runs(pages),
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("mcatrain.report"), jinja2.FileSystemLoader(page.FOLDER)]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["micro"] = page.micro
    environment.globals["units"] = _units
    environment.filters["unbroken"] = page.unbroken
    return environment


def _asset(name: str) -> str:
    """Return a style or script that only this report has."""
    return (resources.files("mcatrain.report") / name).read_text(encoding="utf-8")


def _units(table: EvaluationSection | Digest) -> list[str]:
    """Return the heads of a table's times, each with the unit of what was read then."""
    return [f"{time} [{table.unit}]" for time in table.head]
