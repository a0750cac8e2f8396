"""Time of 16 chips that train together, beside that of 16 runs of one chip each.

    OMP_NUM_THREADS=1 python -m benchmarks.chips [--train-limit 6000] [--data mnist]

Whole commands: `mcatrain train --chips 16` between two halves of the 16 single runs, each a process
of its own that starts, reads the data, trains, evaluates and writes its report. Steps: of single
runs and of all chips alternate in one process. Every chip's result must be its single run's.
MCA on the PCM pair with everything on, 784-250-10, batches of 10. Writes results/chips.md
and results/chips.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

import mcatrain
from benchmarks.machine import cpu
from mcatrain.run import lockstep, loop
from mcatrain.run.config import TrainConfig
from mcatrain.run.single import Run
from mcatrain.tasks import make_task

RESULTS = Path(__file__).parent / "results"
_SIDE = 4  # chips in a row of the square share a seed each with those of its column


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is timed."""

    chips: int = _SIDE**2
    """A square number."""
    data: str = "mnist"
    train_limit: int = 6000
    """Training examples of the whole commands, one epoch."""
    rounds: int = 150
    """Steps of which a median is taken, after 50 others."""


def _command(settings: Settings, out: Path, *options: str) -> float:
    """Make a run by its command; return how long it took [s]."""
    start = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "mcatrain.cli", "train", "--data", settings.data),
            *("--train-limit", str(settings.train_limit), "--batch-size", "10", "--epochs", "1"),
            *("--out", str(out), *options),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return time.perf_counter() - start


def commands(settings: Settings, folder: Path) -> dict[str, float]:
    """Return the seconds of all single runs and of the chips, by the clock and in their steps."""
    side = int(settings.chips**0.5)
    wall = []

    def single(chip: int) -> None:
        seeds = ("--seed", str(chip % side), "--device-seed", str(chip))
        wall.append(_command(settings, folder / f"single-{chip}", *seeds))

    half = settings.chips // 2
    for chip in range(half):
        single(chip)
    together = _command(settings, folder / "chips", "--chips", str(settings.chips))
    for chip in range(half, settings.chips):
        single(chip)
    found = json.loads((folder / "chips" / "result.json").read_text())
    steps = 0.0
    for chip, entry in enumerate(found["entries"]):
        alone = json.loads((folder / f"single-{chip}" / "result.json").read_text())
        steps += alone["seconds"]
        same = all(entry[key] == alone[key] for key in ("metrics", "set_pulses", "refreshes"))
        assert same, f"chip {chip} is not its single run"
    return {
        "runs_s": sum(wall),
        "chips_s": together,
        "runs_steps_s": steps,
        "chips_steps_s": found["seconds"],
    }


def steps(settings: Settings, folder: Path) -> dict[str, float]:
    """Return the median time of a step of one chip [ms], alone and with all others."""
    config = TrainConfig(out=str(folder / "steps"), data=settings.data, batch_size=10)
    task = make_task(config, torch.device("cpu"))

    def begin(name: str, chip: int) -> Run:
        own = replace(config, seed=chip % _SIDE, device_seed=chip, out=f"{config.out}/{name}{chip}")
        run = loop._begin(own, task, [])
        run.begin_epoch()
        return run

    one, all_ = begin("one", 0), [begin("chip", chip) for chip in range(settings.chips)]
    alone, together = loop._alone(one), lockstep.stepper(all_)
    times: dict[str, list[float]] = {"run_ms": [], "chip_ms": []}
    for number in range(50 + settings.rounds):
        found = _timed([one], alone), _timed(all_, together)
        if number >= 50:
            for values, seconds in zip(times.values(), found, strict=True):
                values.append(1e3 * seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def _timed(runs: list[Run], step: Callable[[], list[tuple[float, int]]]) -> float:
    """Do a step; return the processor's seconds for each run."""
    start = time.thread_time()
    for run in runs:
        run.set_rate()
    for run, (loss, examples) in zip(runs, step(), strict=True):
        run.count(loss, examples)
    return (time.thread_time() - start) / len(runs)


def table(settings: Settings, found: dict[str, float]) -> str:
    """Return the figures as Markdown."""
    k = settings.chips
    rows = [
        f"| | {k} runs | {k} chips together | ratio |",
        "|---|---|---|---|",
    ]
    for title, a, b, unit in (
        ("whole commands", "runs_s", "chips_s", "s"),
        ("their training steps", "runs_steps_s", "chips_steps_s", "s"),
        ("a step of one chip, alternating", "run_ms", "chip_ms", "ms"),
    ):
        one, other = found[a], found[b]
        rows.append(f"| {title} | {one:.3g} {unit} | {other:.3g} {unit} | {other / one:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, print, and write the table."""
    settings = tyro.cli(Settings)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = steps(settings, Path(folder)) | commands(settings, Path(folder))
    setting = (
        f"1 thread, {cpu()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"mcatrain {mcatrain.__version__}, {time.strftime('%Y-%m-%d')}; {settings.data}, "
        f"{settings.train_limit:,} examples, one epoch, batches of 10, MCA on the PCM pair"
    )
    text = f"# Chips that train together\n\n{setting}\n\n`python -m benchmarks.chips`\n\n"
    text += table(settings, found) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "chips.md").write_text(text)
    body: dict[str, Any] = {"setting": setting, "found": found}
    (RESULTS / "chips.json").write_text(json.dumps(body, indent=1))


if __name__ == "__main__":
    main()
