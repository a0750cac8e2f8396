"""What one run asked of each of its arrays: the ledger and the wear, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcatrain.report.summary import significant
from mcatrain.run.records import Run, number

#: Columns of the table and the counters that they sum; those that are 0 everywhere are left out.
_COLUMNS = {
    "weights": ("weights",),
    "devices": ("devices",),
    "reads forward": ("forward_reads",),
    "reads backward": ("backward_reads",),
    "DAC conversions": ("forward_dac", "backward_dac"),
    "ADC conversions": ("forward_adc", "backward_adc"),
    "χ accumulations": ("chi_accumulations",),
    "χ entries at ε": ("chi_entries",),
    "slots of bit streams": ("slots",),
    "SET or up pulses": ("set_pulses",),
    "RESET or down pulses": ("reset_pulses",),
    "refreshes": ("refreshes",),
}


@dataclass(frozen=True)
class LedgerSection:
    """Tables of a run by layer; rows begin with the layer. wear: () where it was not counted."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...]
    wear_columns: tuple[str, ...] = ()
    wear: tuple[tuple[str, ...], ...] = ()


def ledger_section(run: Run) -> LedgerSection | None:
    """Return the tables, None for a run that has no ledger (float32, or not yet finished)."""
    ledger = run.outcome.get("ledger")
    layers = ledger.get("layers") if isinstance(ledger, dict) else None
    wear_columns, wear = _wear(ledger.get("wear") if isinstance(ledger, dict) else None)
    if not isinstance(layers, dict) or not layers:
        return LedgerSection((), (), (), wear_columns, wear) if wear else None
    table = {name: [_sum(counts, keys) for counts in layers.values()]
             for name, keys in _COLUMNS.items()}  # fmt: skip
    shown = {name: values for name, values in table.items() if any(values)}
    rows = tuple(
        (layer, *(f"{values[place]:,}" for values in shown.values()))
        for place, layer in enumerate(layers)
    )
    total = tuple(f"{sum(values):,}" for values in shown.values())
    return LedgerSection(("layer", *shown), rows, ("all layers", *total), wear_columns, wear)


def _sum(counts: Any, keys: tuple[str, ...]) -> int:
    known = [number(counts.get(key)) for key in keys] if isinstance(counts, dict) else []
    return int(sum(value for value in known if value is not None))


def _wear(table: Any) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    layers = table.get("layers") if isinstance(table, dict) else None
    if not isinstance(layers, dict) or not layers:
        return (), ()
    columns: tuple[str, ...] = (
        "layer",
        "devices",
        "pulses a device, mean",
        "pulses a device, most",
    )
    endurance = number(table.get("endurance"))
    if endurance is not None:
        columns += (f"devices above {endurance:,g} pulses [%]",)
    rows = []
    for layer, found in layers.items():
        cells = [significant(number(found.get(key))) for key in ("devices", "mean", "most")]
        if endurance is not None:
            share = number(found.get("share_above"))
            cells.append("—" if share is None else f"{100 * share:.2f}")
        rows.append((layer, *cells))
    return columns, tuple(rows)
