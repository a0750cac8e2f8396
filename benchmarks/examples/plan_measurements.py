"""How many devices and pulses must be measured until the forecast of an accuracy is sharp?

    python -m benchmarks.examples.plan_measurements --out plan          about 15 min on one core
    python -m benchmarks.examples.plan_measurements --out plan --smoke  about 1 min

Before a measurement: take a device model that is like what will be measured, simulate experiments
of several sizes on it, fit each as its real table would be, and train chips with draws of each
posterior. What the fit leaves open shows as the part 'parameters' of the accuracy's spread; an
experiment is large enough when that part is small beside the chips' own devices. Every step is a
command that a user would give; its files stay in the folder. Writes plan.md there.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import devicemodels
from calibration import measurements
from calibration.synthetic import measure
from mcatrain.cli import main as mcatrain

_COLUMNS = (
    "devices", "pulses", "c1 ± [%]", "g_max ± [%]", "accuracy [%]", "parameters [points]",
    "devices [points]", "seed [points]",
)  # fmt: skip


@dataclass(frozen=True)
class Design:
    """An experiment: how many devices, and SET pulses on each."""

    devices: int
    pulses: int

    @property
    def name(self) -> str:
        return f"{self.devices}x{self.pulses}"


@dataclass(frozen=True)
class Plan:
    """Experiments to compare, and how the chips of each are trained."""

    designs: tuple[Design, ...]
    training: tuple[str, ...]


FULL = Plan(
    tuple(Design(*size) for size in ((3, 10), (10, 10), (10, 40), (50, 20), (200, 20))),
    ("--data", "digits", "--epochs", "5", "--chips", "16"),
)
SMOKE = Plan(
    (Design(2, 6), Design(6, 10)),
    ("--data", "digits", "--hidden", "16", "--epochs", "1", "--train-limit", "300", "--chips", "4"),
)


def forecast(design: Design, plan: Plan, truth: str, folder: Path, seed: int) -> dict[str, Any]:
    """Simulate an experiment, fit it, train chips of it; return what fit and chips tell."""
    place = folder / design.name
    place.mkdir(parents=True, exist_ok=True)
    table, parameters, chips = place / "measured.csv", place / "device.toml", place / "chips"
    if not table.exists():
        model = devicemodels.load(truth)
        measurements.write(measure(model, design.devices, design.pulses, seed=seed), table)
    if not parameters.exists():
        # A small experiment may not tell every constant: its fit is used as it is.
        _run("fit", str(table), "--model", "set-response", "--base", truth, "--out",
             str(parameters), "--compare", "none", "--force")  # fmt: skip
    _run("train", "--rule", "mca", "--device-model", str(parameters), "--out", str(chips),
         "--seed", str(seed), "--resume", *plan.training)  # fmt: skip
    found: dict[str, Any] = json.loads((chips / "result.json").read_text(encoding="utf-8"))
    posterior = devicemodels.load(parameters).posterior
    assert posterior is not None
    widths = {
        name: 100 * values.std() / abs(values.mean()) for name, values in posterior.draws.items()
    }
    return {"design": design, "widths": widths, "result": found}


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the forecasts as a Markdown table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for row in rows:
        design, spread = row["design"], row["result"]["spread"]["test_accuracy"]
        parts = [
            f"{100 * part['sd']:.2f} ({100 * part['low']:.2f} to {100 * part['high']:.2f})"
            for part in (spread["parts"][name] for name in ("parameters", "devices", "seed"))
        ]
        mean = 100 * row["result"]["metrics"]["test_accuracy"]
        widths = [f"{row['widths'][name]:.1f}" for name in ("c1", "g_max")]
        cells = [str(design.devices), str(design.pulses), *widths, f"{mean:.2f}", *parts]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _run(*arguments: str) -> None:
    if mcatrain(list(arguments)):
        raise SystemExit(f"mcatrain {' '.join(arguments)} failed")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Plan a measurement by its accuracy forecast.")
    parser.add_argument("--out", required=True, help="folder to write; goes on where it stopped")
    parser.add_argument("--truth", default="nandakumar2018", help="PCM model to simulate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="two tiny experiments, one epoch")
    given = parser.parse_args(argv)
    plan, folder = SMOKE if given.smoke else FULL, Path(given.out)
    rows = [forecast(d, plan, given.truth, folder, given.seed) for d in plan.designs]
    text = (
        "# What an experiment tells of the accuracy\n\n"
        f"Synthetic measurements of {given.truth}, fitted by set-response, MCA trained with "
        f"`{' '.join(plan.training)}`, seed {given.seed}. Parts of the spread over chips are "
        "standard deviations with 90 % intervals; c1 and g_max: relative posterior widths.\n\n"
        f"{table_of(rows)}\n"
    )
    (folder / "plan.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
