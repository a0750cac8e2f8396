"""What the chips of one training spent: all together, and each in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from mcatrain.ledger import total

#: Of an energy section: what can be added up over chips [J].
_SUMS = ("parts", "digital")


def together(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sections ledger, energy, and budget if there was one, of all chips.

    results: the result.json of each. ledger: sums by name, and of wear the mean over all devices.
    energy: sums [J] and what follows from them for an example of a chip; per_epoch is a chip's
    mean, as an epoch is one chip's; chip: mean and sd over chips of a chip's total and
    per_example [J]. budget: amount of each chip, and the means of what chips spent; used_up:
    whether all used theirs.
    """
    found = {"ledger": _ledger([r["ledger"] for r in results]), "energy": _energy(results)}
    if "budget" in results[0]:
        found["budget"] = _budget([r["budget"] for r in results])
    return found


def _ledger(parts: list[dict[str, Any]]) -> dict[str, Any]:
    layers = parts[0]["layers"]
    found = {
        "total": total(part["total"] for part in parts),
        "layers": {layer: total(part["layers"][layer] for part in parts) for layer in layers},
    }
    if "wear" in parts[0]:
        tables = [part["wear"]["layers"] for part in parts]
        found["wear"] = {
            "endurance": parts[0]["wear"]["endurance"],
            "layers": {layer: wear_of_all([table[layer] for table in tables]) for layer in layers},
        }
    return found


def wear_of_all(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the wear of one layer over the devices of several chips."""
    devices = sum(table["devices"] for table in tables)
    found = {"devices": devices, "most": max(table["most"] for table in tables)}
    for name in ("mean", "share_above"):
        if name in tables[0]:
            found[name] = sum(table[name] * table["devices"] for table in tables) / devices
    return found


def _energy(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    parts = [result["energy"] for result in results]
    examples = [result["examples"] for result in results]
    sums = {key: {n: sum(part[key][n] for part in parts) for n in parts[0][key]} for key in _SUMS}
    whole, every = sum(part["total"] for part in parts), sum(examples)
    digital = sums["digital"]
    digital["per_example"] = digital["total"] / every

    def of_example(key: str) -> float:
        return sum(part[key] * n for part, n in zip(parts, examples, strict=True)) / every

    return {
        "model": parts[0]["model"],
        **sums,
        "total": whole,
        "per_example": whole / every,
        "per_epoch": mean(part["per_epoch"] for part in parts),
        "seconds_per_example": of_example("seconds_per_example"),
        "digital_seconds_per_example": of_example("digital_seconds_per_example"),
        "ratio": digital["total"] / whole if whole else None,
        "chip": {key: _spread([part[key] for part in parts]) for key in ("total", "per_example")},
    }


def _budget(budgets: list[dict[str, Any]]) -> dict[str, Any]:
    spreads = {key: _spread([budget[key] for budget in budgets]) for key in ("spent", "epochs")}
    return {
        "kind": budgets[0]["kind"],
        "amount": budgets[0]["amount"],
        **{key: spread["mean"] for key, spread in spreads.items()},
        "used_up": all(budget["used_up"] for budget in budgets),
        "sd": {key: spread["sd"] for key, spread in spreads.items()},
    }


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None}
