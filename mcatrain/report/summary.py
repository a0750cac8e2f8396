"""The numbers of the report: groups of seeds, the summary table, the sentences that compare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mcatrain.report.metrics import METRICS, Losses, Metric, losses_of
from mcatrain.run.records import Results, Run, number

RULE_NAMES = {"fp32": "float32", "mca": "MCA", "rpu": "RPU"}


@dataclass(frozen=True)
class Spread:
    """A number over seeds: mean, standard deviation (None for one seed), how many."""

    mean: float
    sd: float | None
    count: int

    @staticmethod
    def of(values: Iterable[float | None]) -> Spread | None:
        known = [value for value in values if value is not None]
        if not known:
            return None
        return Spread(mean(known), stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True)
class Group:
    """The runs of one rule on one device model, one for each seed."""

    rule: str
    device: str | None
    device_name: str | None
    runs: tuple[Run, ...]

    @property
    def rule_name(self) -> str:
        return RULE_NAMES.get(self.rule, self.rule)

    @property
    def label(self) -> str:
        return self.rule_name + (f" on {self.device_name}" if self.device_name else "")

    @property
    def device_kind(self) -> str:
        """What to call the device in a sentence."""
        model = self.runs[0].model
        if model is None:
            return "device"
        return "PCM pair" if model.device_type == "pcm" else f"{model.device_type} device"

    def over_seeds(self, value: Callable[[dict[str, Any]], float | None]) -> Spread | None:
        """Return the spread of a number of the runs' outcomes."""
        return Spread.of(value(run.outcome) for run in self.runs)

    def metric(self, key: str, scale: float = 1.0) -> Spread | None:
        def read(outcome: dict[str, Any]) -> float | None:
            value = number(outcome["metrics"].get(key))
            return None if value is None else scale * value

        return self.over_seeds(read)


def group_runs(results: Results) -> list[Group]:
    """Put the seeds of each rule and device together, in the order of the files."""
    found: dict[tuple[str, str | None], list[Run]] = {}
    for run in results.runs:
        found.setdefault((run.rule, run.device), []).append(run)
    names = _device_names({device for _, device in found if device})
    return [Group(rule, dev, names.get(dev or ""), tuple(r)) for (rule, dev), r in found.items()]


def _device_names(devices: set[str]) -> dict[str, str]:
    """Call a parameter file by its stem, unless two files share one."""
    stems = {d: Path(d).stem if d.endswith(".toml") else d for d in devices}
    shared = Counter(stems.values())
    return {device: stem if shared[stem] == 1 else device for device, stem in stems.items()}


def main_metric(groups: list[Group]) -> Metric:
    """Return the metric that the runs are judged by."""
    for metric in METRICS:
        if any(group.metric(metric.key) for group in groups):
            return metric
    return METRICS[0]


def decimal(value: float | None, digits: int = 2) -> str:
    """Write a number with a true minus sign; an em dash if there is none."""
    if value is None or not math.isfinite(value):
        return "—"
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def significant(value: float | None) -> str:
    """Write a count or a rate: whole from 100 up, three digits below."""
    if value is None or not math.isfinite(value):
        return "—"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def with_spread(spread: Spread | None, digits: int) -> str:
    """Write mean ± standard deviation, the latter from two seeds up."""
    if spread is None:
        return "—"
    tail = "" if spread.sd is None else f" ± {decimal(spread.sd, digits)}"
    return decimal(spread.mean, digits) + tail


def losses(groups: Sequence[Group]) -> Losses:
    """Return what the losses are called; runs that are shown together have the same."""
    return losses_of(groups[0].runs[0].config)


def summary_table(
    groups: list[Group], metric: Metric, over: str = "seed"
) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of the table on top; differences only between several groups.

    over: what the runs of a group differ in.
    """
    unit, digits = f" [{metric.unit}]", metric.digits
    is_accuracy = metric.key == "test_accuracy"
    loss = losses(groups)
    gap_unit = " [points]" if is_accuracy else unit
    columns = ["rule", f"{over}s", metric.name + unit]
    columns += ["test error [%]"] if is_accuracy else []
    several = len(groups) > 1
    columns += [f"difference to {other}{gap_unit}" for other in ("float32", "best")] * several
    columns += [f"test {loss.name} [{loss.unit}]"] if metric.key != "test_loss" else []
    columns += ["pulses per example", "refreshes", "training time [s]"]
    has_budget = any(run.outcome.get("budget") for group in groups for run in group.runs)
    columns += ["budget"] * has_budget
    spreads = {g.label: g.metric(metric.key, metric.scale) for g in groups}
    known = [spread.mean for spread in spreads.values() if spread]
    best = (max if metric.higher_is_better else min)(known) if known else None
    reference = next((spreads[g.label] for g in groups if g.rule == "fp32"), None)
    rows = []
    for group in groups:
        spread = spreads[group.label]
        row = [group.label, str(len(group.runs)), with_spread(spread, digits)]
        row += [decimal(100 - spread.mean if spread else None)] if is_accuracy else []
        if several:
            row.append("—" if group.rule == "fp32" else _gap(spread, reference, digits))
            row.append(_gap(spread, Spread(best, None, 1) if best is not None else None, digits))
        if metric.key != "test_loss":
            row.append(with_spread(group.metric("test_loss"), 4))
        pulses = group.over_seeds(_pulses_per_example)
        refreshes = group.over_seeds(lambda outcome: number(outcome.get("refreshes")))
        seconds = group.over_seeds(lambda outcome: number(outcome.get("seconds")))
        programs = group.rule != "fp32"
        row += [significant(s.mean if s and programs else None) for s in (pulses, refreshes)]
        row.append(decimal(seconds.mean if seconds else None, 1))
        rows.append(row + [budget_in_words(*(r.outcome for r in group.runs))] * has_budget)
    return columns, rows


def _gap(one: Spread | None, other: Spread | None, digits: int) -> str:
    if one is None or other is None:
        return "—"
    text = decimal(one.mean - other.mean, digits)
    return text if text[0] == "−" or not float(text.replace(",", "")) else "+" + text


def mean_and_spread(values: Iterable[float | None]) -> str:
    """Write the mean of what is known, three digits, and ± the standard deviation if it shows."""
    spread = Spread.of(values)
    shows = spread and spread.sd and spread.sd > 5e-4 * abs(spread.mean)
    tail = f" ± {spread.sd:.2g}" if spread and shows else ""
    return significant(spread.mean if spread else None) + tail


def budget_in_words(*outcomes: dict[str, Any]) -> str:
    """Say what the budget of each run was and how far it went in the mean; — if there was none."""
    budgets = [found for o in outcomes if isinstance(found := o.get("budget"), dict)]
    known = [
        [number(budget.get(key)) for key in ("amount", "spent", "epochs")] for budget in budgets
    ]
    if not budgets or any(value is None for values in known for value in values):
        return "—"
    kind = budgets[0].get("kind")
    amount, spent, epochs = zip(*known, strict=True)
    head = f"{mean(spent):.4g} of {amount[0]:.4g} {'J' if kind == 'energy' else kind}, "
    head += f"{mean_and_spread(epochs)} epochs"
    left = sum(not budget.get("used_up") for budget in budgets)
    if not left:
        return head
    return f"{head}: not spent" + (f" by {left} of {len(budgets)}" if len(budgets) > 1 else "")


def _pulses_per_example(outcome: dict[str, Any]) -> float | None:
    pulses, examples = number(outcome.get("pulses")), number(outcome.get("examples"))
    return pulses / examples if pulses is not None and examples else None


def sentences(groups: list[Group], metric: Metric) -> list[str]:
    """Say each gap in words: rules that share a device, then every rule against float32."""
    said = []
    for device in dict.fromkeys(g.device for g in groups if g.device):
        sharing = [g for g in groups if g.device == device]
        if len(sharing) > 1:
            base = next((g for g in sharing if g.rule == "mca"), sharing[0])
            where = f"On the same {base.device_kind} ({base.device_name}) "
            said += [
                where + _compare(g.rule_name, g, base.rule_name, base, metric)
                for g in sharing
                if g is not base
            ]
    reference = next((g for g in groups if g.rule == "fp32"), None)
    if reference is not None:
        others = (g for g in groups if g.rule != "fp32")
        said += [_compare(g.label, g, "float32", reference, metric) for g in others]
    return said


def _compare(name: str, group: Group, base_name: str, base: Group, metric: Metric) -> str:
    one, other = (g.metric(metric.key, metric.scale) for g in (group, base))
    if one is None or other is None:
        missing = name if one is None else base_name
        return f"{name} cannot be compared with {base_name}: {missing} has no {metric.name}."
    digits = metric.digits
    gap = one.mean - other.mean
    size = f"{abs(gap):.{1 if metric.unit == '%' and abs(gap) >= 9.995 else digits}f}"
    values = f"{decimal(one.mean, digits)} against {decimal(other.mean, digits)} {metric.unit}"
    note = ""
    if one.sd is not None and other.sd is not None:
        within = abs(gap) <= math.hypot(one.sd, other.sd)
        note = "; within the spread over seeds" if within else ""
    if not float(size):
        return f"{name} is level with {base_name} ({values})."
    side = "above" if gap > 0 else "below"
    points, where = (f" {metric.point}s", "") if metric.point else ("", f" in {metric.name}")
    return f"{name} is {size}{points} {side} {base_name}{where} ({values}{note})."


def remarks(results: Results, groups: list[Group]) -> list[tuple[str, str]]:
    """Return (whose, what) of everything a reader must know before trusting the numbers."""
    said: dict[tuple[str, str], list[str]] = {}
    for text in (results.table or {}).get("remarks") or []:
        said.setdefault(("", str(text)), [])
    if len(results.runs) < results.chips:
        missing = results.chips - len(results.runs)
        said["", f"{missing} of {results.chips} chips have not begun: go on with --resume."] = []
    for group in groups:
        for run in group.runs:
            texts = [str(text) for text in (run.result or {}).get("remarks") or []]
            if run.result is None:
                texts.append(_unfinished(run))
            last = run.history[-1] if run.history else {}
            if any(
                key in last and number(last[key]) is None for key in ("train_loss", "test_loss")
            ):
                texts.append("The loss is no longer a number at the end: this training diverged.")
            for text in texts:
                said.setdefault((group.label, text), []).append(str(run.seed))
    whose = {}
    for (label, text), seeds in said.items():
        plural = "s" if len(seeds) > 1 else ""
        shown = f"{label}, seed{plural} {', '.join(seeds)}" if results.is_comparison else label
        whose[label, text] = shown if seeds else "Chips" if results.chips else "Comparison"
    return [(whose[key], key[1]) for key in said]


def _unfinished(run: Run) -> str:
    epoch = f"epoch {run.history[-1]['epoch']:g}" if run.history else "no evaluation yet"
    planned = f" of {run.config['epochs']}" if "epochs" in run.config and run.history else ""
    return (
        f"This run has not finished (there is no result.json): what is shown ends at {epoch}"
        f"{planned}. The same command with --resume continues it."
    )
