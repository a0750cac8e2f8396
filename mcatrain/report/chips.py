"""The spread over chips: what it is made of, and every chip's own result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcatrain.report.energy import chips_in_words
from mcatrain.report.metrics import METRICS, Metric
from mcatrain.report.summary import decimal, significant
from mcatrain.run.records import Results, number

_SOURCES = {
    "seed": "seed: initial weights, order of examples",
    "parameters": "parameters: what the measurements leave open about the device",
    "devices": "devices: those of the chip, and their noise",
}


@dataclass(frozen=True)
class ChipsSection:
    """Rows of the two tables: (source, sd, interval), and a chip's cells; what all spent."""

    metric: Metric
    parts: tuple[tuple[str, str, str], ...]
    columns: tuple[str, ...]
    chips: tuple[tuple[str, ...], ...]
    has_draws: bool
    spent: tuple[str, ...]


def chips_section(results: Results, metric: Metric) -> ChipsSection | None:
    """Return the section, None for results that are not finished chips of one training."""
    if not results.chips or not results.table:
        return None
    entries = results.table.get("entries") or []
    has_draws = any(entry.get("draw") is not None for entry in entries)
    has_energy = all(isinstance(entry.get("energy"), dict) for entry in entries)
    columns = ["chip", "seed", *(["draw of the parameters"] if has_draws else [])]
    columns += [
        f"{metric.name} [{metric.unit}]",
        "pulses",
        *(["energy [mJ]"] if has_energy else []),
    ]
    chips = []
    for chip, entry in enumerate(entries):
        value = number(entry["metrics"].get(metric.key))
        scaled = None if value is None else metric.scale * value
        draw = [str(entry["draw"])] if has_draws else []
        shown = decimal(scaled, metric.digits)
        pulses = f"{entry['set_pulses'] + entry['reset_pulses']:,}"
        energy = [significant(1e3 * entry["energy"]["total"])] if has_energy else []
        chips.append((str(chip), str(entry["seed"]), *draw, shown, pulses, *energy))
    rows, spent = tuple(_parts(results.table, metric)), tuple(chips_in_words(results))
    return ChipsSection(metric, rows, tuple(columns), tuple(chips), has_draws, spent)


def _parts(result: dict[str, Any], metric: Metric) -> list[tuple[str, str, str]]:
    """Return (source, standard deviation, 90 % interval) of each part of the spread."""
    spread = (result.get("spread") or {}).get(metric.key) or {}
    digits = metric.digits + 1
    rows = []
    for name, part in (spread.get("parts") or {}).items():
        sd, low, high = (decimal(metric.scale * part[key], digits) for key in ("sd", "low", "high"))
        rows.append((_SOURCES.get(name, name), sd, f"{low} to {high}"))
    return rows


def spread_in_words(result: dict[str, Any]) -> list[str]:
    """Return the spread over the chips of a result in lines; none for a single run."""
    metric = next((m for m in METRICS if m.key in (result.get("spread") or {})), None)
    if metric is None or not result["spread"][metric.key]:
        return []
    unit = f"{metric.point}s" if metric.point else metric.unit
    sd = decimal(metric.scale * result["spread"][metric.key]["sd"], metric.digits + 1)
    said = [f"standard deviation over {result['chips']} chips {sd} {unit}"]
    parts = _parts(result, metric)
    said += [f"  {name}: {sd} (90 %: {interval})" for name, sd, interval in parts]
    if not parts:
        said.append("  what it is made of takes 4 chips or more to tell")
    return said
