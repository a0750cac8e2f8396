"""Energy and time in tables: of the report, and of 'mcatrain energy'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devicemodels.errors import InputError
from devicemodels.quantities import Quantity
from mcatrain import energy
from mcatrain.report.summary import Group, budget_in_words, decimal, group_runs, significant
from mcatrain.run.records import load_results, number

#: The paper's network, and what our own run of it sent: 1.1 pulses an image.
_PAPER = energy.mlp_image((784, 250, 10), pulses=1100, examples=1000, refresh_every=100)
#: Columns of the table and the parts that they sum.
_COLUMNS = {
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
    """Return the energy of the first finished run of every group; None where none tells it."""
    rows, models, wear = [], [], []
    for group in groups:
        found = next(
            (r.outcome for r in group.runs if isinstance(r.outcome.get("energy"), dict)), None
        )
        if found is None:
            continue
        rows.append((group.rule, [group.label, *_cells(found["energy"])]))
        models.append(str(found["energy"].get("model")))
        wear += [f"{group.label}: {line}" for line in _wear(found)]
    if not rows:
        return None
    columns = (
        "rule", *(f"{name} [nJ]" for name in _COLUMNS), "an example [nJ]", "an epoch [mJ]",
        "digital design, an example [nJ]", "digital : this", "time an example [µs]",
    )  # fmt: skip
    try:
        model = energy.load(models[0])
        note, parameters = model.note, model.quantities
    except InputError:  # a file of the user's that is no longer there
        note, parameters = "", ()
    return EnergySection(columns, tuple(rows), models[0], note, parameters, tuple(wear))


def _cells(found: dict[str, Any]) -> list[str]:
    """Return the cells of one row; parts are for an example."""
    whole, each = number(found.get("total")), number(found.get("per_example"))
    scale = 1e9 * each / whole if whole and each is not None else 0.0
    parts = found.get("parts") or {}
    cells = []
    for names in _COLUMNS.values():
        known = [parts[name] for name in names if name in parts]
        cells.append(significant(scale * sum(known)) if known else "—")
    per_epoch, ratio = number(found.get("per_epoch")), number(found.get("ratio"))
    digital = number((found.get("digital") or {}).get("per_example"))
    seconds = number(found.get("seconds_per_example"))
    cells += [significant(None if each is None else 1e9 * each)]
    cells += [significant(None if per_epoch is None else 1e3 * per_epoch)]
    cells += [significant(None if digital is None else 1e9 * digital), significant(ratio)]
    return [*cells, significant(None if seconds is None else 1e6 * seconds)]


def _wear(outcome: dict[str, Any]) -> list[str]:
    table = (outcome.get("ledger") or {}).get("wear") or {}
    said = []
    for layer, found in (table.get("layers") or {}).items():
        line = f"layer {layer}: {found['mean']:.3g} pulses a device, {found['most']:,} at most"
        if table.get("endurance") is not None:
            line += f"; {found['share_above']:.2%} of devices had more than {table['endurance']:g}"
        said.append(line + ".")
    return said


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
    section = energy_section(group_runs(load_results(folder)))
    if section is None:
        raise InputError(
            f"{folder}: no finished run here tells its energy: finish it with --resume, or train "
            "again if it is of an older version"
        )
    said = [f"energy model {section.model}; training only"]
    for _, row in section.rows:
        said += ["", row[0]]
        said += [
            f"  {name:34} {cell:>12}"
            for name, cell in zip(section.columns[1:], row[1:], strict=True)
        ]
    return [*said, "", *section.wear] if section.wear else said
