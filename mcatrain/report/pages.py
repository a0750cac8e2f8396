"""The page of each run: all that the report shows of this run alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mcatrain.report.devices import DeviceSection
from mcatrain.report.distributions import distribution_figures
from mcatrain.report.energy import EnergySection, energy_section
from mcatrain.report.evaluation import EvaluationSection, evaluation_section
from mcatrain.report.ledger import LedgerSection, ledger_section
from mcatrain.report.metrics import Metric, losses_of
from mcatrain.report.options import run_options
from mcatrain.report.pictures import Figure, course_figure
from mcatrain.report.plots import Painter
from mcatrain.report.summary import Group, decimal, remarks, significant
from mcatrain.run.records import Results, Run, number

#: Runs whose pages have pictures, shared out among the rules: more would make the file too big.
_WITH_PICTURES = 24


@dataclass(frozen=True)
class RunPage:
    """One run's page. id: its hash. place: what the run is called among those of its rule.

    last: (quantity, value, unit) at the end of training. device: id of its section, or None.
    is_pictured: whether pictures were drawn; a page without them lists no options either.
    """

    id: str
    run: Run
    label: str
    place: str
    last: tuple[tuple[str, str, str], ...]
    remarks: tuple[str, ...]
    course: Figure | None
    distributions: tuple[Figure, ...]
    evaluation: EvaluationSection | None
    ledger: LedgerSection | None
    energy: EnergySection | None
    options: tuple[tuple[str, str], ...]
    device: DeviceSection | None
    is_pictured: bool

    @property
    def name(self) -> str:
        """The run's name on the page: rule, device and seed or chip."""
        return f"{self.label}, {self.place}" if self.place else self.label


def run_pages(
    painter: Painter,
    results: Results,
    groups: Sequence[Group],
    metric: Metric,
    devices: Sequence[DeviceSection],
) -> list[RunPage]:
    """Return the pages in the order of the groups; a run that stands alone has no course."""
    by_device = {user: section for section in devices for user in section.groups}
    alone = len(results.runs) == 1
    pictured = _pictured(groups)
    pages: list[RunPage] = []
    for group in groups:
        for number_of_run, run in enumerate(group.runs):
            if results.chips:
                place = f"chip {run.folder.name}, seed {run.seed}"
            else:
                place = "" if alone or run.seed is None else f"seed {run.seed}"
            name = f"{group.label}, {place}" if place else group.label
            one = Group(group.rule, group.device, group.device_name, (run,))
            whole = (group.label, number_of_run) in pictured
            pages.append(
                RunPage(
                    _slug(name, {page.id for page in pages}),
                    run,
                    group.label,
                    place,
                    tuple(_last(run, metric)),
                    tuple(text for _, text in remarks(Results(run.folder, (run,), None), [one])),
                    None if alone or not whole else course_figure(painter, run, metric, name),
                    tuple(distribution_figures(painter, run, name)) if whole else (),
                    evaluation_section(painter, run, name),
                    ledger_section(run),
                    energy_section([one]),
                    tuple(run_options(run)) if whole else (),
                    by_device.get(group.label),
                    whole,
                )
            )
    return pages


def _pictured(groups: Sequence[Group]) -> set[tuple[str, int]]:
    """Choose the runs that have pictures: the first of every rule, then the second, and so on."""
    most = max(len(group.runs) for group in groups)
    order = [(g.label, place) for place in range(most) for g in groups if place < len(g.runs)]
    return set(order[:_WITH_PICTURES])


def _slug(name: str, taken: set[str]) -> str:
    base = "run-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    slug, tries = base, 2
    while slug in taken:
        slug, tries = f"{base}-{tries}", tries + 1
    return slug


def _last(run: Run, metric: Metric) -> list[tuple[str, str, str]]:
    """Return the figures at the end of training that the run has."""
    outcome, loss = run.outcome, losses_of(run.config)
    metrics = outcome["metrics"]
    rows = []
    if metric.key != "test_loss":
        value = number(metrics.get(metric.key))
        shown = decimal(None if value is None else metric.scale * value, metric.digits)
        rows.append((metric.name, shown, metric.unit))
    for part in ("test", "train"):
        value = number(metrics.get(f"{part}_loss"))
        rows.append((f"{part} {loss.name}", decimal(value, 4), loss.unit))
    counts = [("training examples", "examples")]
    if run.rule != "fp32":
        counts += [("SET or up pulses", "set_pulses"), ("RESET or down pulses", "reset_pulses")]
        counts.append(("refreshes of pairs", "refreshes"))
    rows += [(name, significant(number(outcome.get(key))), "–") for name, key in counts]
    rows.append(("training time", decimal(number(outcome.get("seconds")), 1), "s"))
    return rows


def columns_of_runs(pages: Sequence[RunPage]) -> list[str]:
    """Return the heads of the table of all runs, those of float32 being among the others'."""
    return [name + (f" [{unit}]" if unit != "–" else "") for name, unit in _quantities(pages)]


def cells_of_runs(pages: Sequence[RunPage]) -> list[list[str]]:
    """Return the cells of that table, a row a page."""
    table = []
    for page in pages:
        held = {(name, unit): value for name, value, unit in page.last}
        table.append([held.get(key, "—") for key in _quantities(pages)])
    return table


def _quantities(pages: Sequence[RunPage]) -> list[tuple[str, str]]:
    longest = max((page.last for page in pages), key=len)
    return [(name, unit) for name, _, unit in longest]
