"""Energy and time in tables: of the report, and of 'mcatrain energy'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devicemodels.errors import InputError
from devicemodels.quantities import Quantity
from mcatrain import energy
from mcatrain.report.summary import (
    Group,
    Spread,
    budget_in_words,
    decimal,
    group_runs,
    mean_and_spread,
    significant,
)
from mcatrain.run.records import Results, load_results, number
from mcatrain.run.sums import wear_of_all

#: The paper's network, and what our own run of it sent: 1.1 pulses an image.
_PAPER = energy.mlp_image((784, 250, 10), pulses=1100, examples=1000, refresh_every=100)
#: Columns of the table and the parts that they sum.
COLUMNS = {
    "forward": ("forward converters", "forward array", "forward products"),
    "backward": ("backward converters", "backward array", "backward products"),
    "update": ("update", "update products"),
    "pulses": ("pulses",),
    "refresh": ("refresh",),
    "memory": ("memory",),
}


@dataclass(frozen=True)
class EnergySection:
    """The table (rule, cells) by group, and the energy model behind it; parameters () if gone."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, list[str]], ...]
    model: str
    note: str
    parameters: tuple[Quantity, ...]
    wear: tuple[str, ...]

    @property
    def unsure(self) -> int:
        """Number of values that nobody published: recalled, assumed or fitted."""
        return sum(q.status != "verified" for q in self.parameters)


def energy_section(groups: Sequence[Group]) -> EnergySection | None:
    """Return the energy of every group, the mean of its finished runs; None where none tells it."""
    rows, models, wear = [], [], []
    for group in groups:
        told = [r.outcome for r in group.runs if isinstance(r.outcome.get("energy"), dict)]
        if not told:
            continue
        rows.append((group.rule, [group.label, *_cells([outcome["energy"] for outcome in told])]))
        models.append(str(told[0]["energy"].get("model")))
        wear += [f"{group.label}: {line}" for line in _wear(told)]
    if not rows:
        return None
    columns = (
        "rule", *(f"{name} [nJ]" for name in COLUMNS), "an example [nJ]", "an epoch [mJ]",
        "digital design, an example [nJ]", "digital : this", "time an example [µs]",
    )  # fmt: skip
    try:
        model = energy.load(models[0])
        note, parameters = model.note, model.quantities
    except InputError:  # a file of the user's that is no longer there
        note, parameters = "", ()
    return EnergySection(columns, tuple(rows), models[0], note, parameters, tuple(wear))


def _cells(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the cells of one row; what an example takes by part is the mean over runs alone."""
    columns = list(zip(*map(_values, runs), strict=True))
    parts = [Spread.of(values) for values in columns[: len(COLUMNS)]]
    means = [significant(part.mean if part else None) for part in parts]
    return means + [mean_and_spread(values) for values in columns[len(COLUMNS) :]]


def _values(found: dict[str, Any]) -> list[float | None]:
    """Return the numbers of one run's row; parts are for an example."""
    whole, each = number(found.get("total")), number(found.get("per_example"))
    scale = 1e9 * each / whole if whole and each is not None else 0.0
    parts = found.get("parts") or {}
    values: list[float | None] = []
    for names in COLUMNS.values():
        known = [parts[name] for name in names if name in parts]
        values.append(scale * sum(known) if known else None)
    digital = number((found.get("digital") or {}).get("per_example"))
    per_epoch, seconds = number(found.get("per_epoch")), number(found.get("seconds_per_example"))
    for value, unit in ((each, 1e9), (per_epoch, 1e3), (digital, 1e9)):
        values.append(None if value is None else unit * value)
    return [*values, number(found.get("ratio")), None if seconds is None else 1e6 * seconds]


def _wear(outcomes: Sequence[dict[str, Any]]) -> list[str]:
    tables = [found for o in outcomes if (found := (o.get("ledger") or {}).get("wear"))]
    if not tables:
        return []
    endurance, said = tables[0].get("endurance"), []
    for layer in tables[0].get("layers") or {}:
        found = wear_of_all([table["layers"][layer] for table in tables])
        line = f"layer {layer}: {found['mean']:.3g} pulses a device, {found['most']:,} at most"
        if endurance is not None:
            line += f"; {found['share_above']:.2%} of devices had more than {endurance:g}"
        said.append(line + ".")
    return said


def chips_in_words(results: Results) -> list[str]:
    """Return what all chips of a training spent together, [] where that is not known."""
    spent = (results.table or {}).get("energy") if results.chips else None
    if not isinstance(spent, dict) or not results.table:
        return []
    table = results.table
    whole, chip = number(spent.get("total")), spent.get("chip") or {}
    each = [number((chip.get("total") or {}).get(key)) for key in ("mean", "sd")]
    if whole is None or each[0] is None:
        return []
    pulses = table["set_pulses"] + table["reset_pulses"]
    said = f"All {table['chips']} chips together spent {1e3 * whole:.4g} mJ"
    said += f" and {pulses:,} pulses on {table['examples']:,} examples; a chip "
    said += f"{1e3 * each[0]:.4g}" + (f" ± {1e3 * each[1]:.2g}" if each[1] else "") + " mJ."
    return [said]


def bought(entry: dict[str, Any]) -> str:
    """Return what a comparison's entry did with its budget, '' if it had none."""
    said = budget_in_words(entry)
    return "" if said == "—" else f"  ({said})"


def paper_in_words() -> list[str]:
    """Return the paper's network under the shipped energy model, beside the paper's numbers."""
    model = energy.load("nandakumar2020")
    n = 1000
    parts = {k: 1e9 * v / n for k, v in model.training(_PAPER, bipolar=False).items()}
    digital = {k: 1e9 * v / n for k, v in model.digital(_PAPER).items()}
    passes = sum(v for k, v in parts.items() if k.startswith(("forward", "backward")))
    whole, other = sum(parts.values()), sum(digital.values())
    rows = [
        ("MCA, an image", whole, "nJ", "83.2, verified"),
        ("  forward and backward", passes, "nJ", "21.4, recalled"),
        ("  update, pulses, refresh", whole - passes, "nJ", "61.8, recalled"),
        ("32-bit digital design", other, "nJ", "14350, verified"),
        ("digital : MCA", other / whole, "", "172, verified"),
        (
            "3.4 M devices, RPU",
            model.operations_per_second(3_400_000) / 1e12,
            "TOPS",
            "85, verified",
        ),
    ]
    said = [f"{model.name}: {model.title}", f"publication: {model.publication}"]
    said += [f"note: {model.note}", "", "784-250-10, batch 1, MNIST; paper's value"]
    said += [
        f"{name:28} {decimal(value):>10} {unit:5} {paper}" for name, value, unit, paper in rows
    ]
    said += ["", "by part [nJ an image]"]
    said += [f"{name:28} {value:10.4g}" for name, value in parts.items()]
    said += ["", "operations"]
    for q in model.quantities:
        said += [
            f"{q.name:16} {q.value:>10g} {q.unit:6} {q.status:9} {q.about}",
            f"{'':36}{q.source}",
        ]
    return said


def results_in_words(folder: Path) -> list[str]:
    """Return the table of a run or comparison folder. Raises InputError where it has none."""
    results = load_results(folder)
    section = energy_section(group_runs(results))
    if section is None:
        raise InputError(
            f"{folder}: no finished run here tells its energy: finish it with --resume, or train "
            "again if it is of an older version"
        )
    said = [f"energy model {section.model}; training only"]
    for _, row in section.rows:
        said += ["", row[0]]
        said += [
            f"  {name:34} {cell:>16}"
            for name, cell in zip(section.columns[1:], row[1:], strict=True)
        ]
    notes = [*chips_in_words(results), *section.wear]
    return [*said, "", *notes] if notes else said
