"""Time of 16 chips that train together, beside that of 16 runs of one chip each.

Whole commands: `mcatrain train --chips 16` between two halves of the 16 single runs, each a process
of its own that starts, reads the data, trains, evaluates and writes its report. Steps: of single
runs and of all chips alternate in one process. Every chip's result must be its single run's.
MCA on the PCM pair with everything on, 784-250-10, batches of 10.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from benchmarks.part import Effort, Part, Table
from benchmarks.timing import Clock
from devicemodels.errors import InputError
from mcatrain.data import load_images
from mcatrain.run import lockstep, loop
from mcatrain.run.config import TrainConfig
from mcatrain.run.single import Run
from mcatrain.tasks import make_task

_SIDE = 4  # chips in a row of the square share a seed each with those of its column


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is timed."""

    chips: int = _SIDE**2
    """A square number."""
    data: Literal["mnist", "digits"] = "mnist"
    train_limit: int = 60_000
    """Training examples of the whole commands, one epoch."""
    rounds: int = 150
    """Steps of which a median is taken, after 50 others; fewer where an epoch ends before."""


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


def steps(settings: Settings, folder: Path, clock: Clock) -> dict[str, float]:
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
    # An epoch at most: nothing here begins another one.
    for number in range(min(50 + settings.rounds, task.examples // config.batch_size)):
        found = _timed([one], alone, clock), _timed(all_, together, clock)
        if number >= 50:
            for values, seconds in zip(times.values(), found, strict=True):
                values.append(1e3 * seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def _timed(runs: list[Run], step: Callable[[], list[tuple[float, int]]], clock: Clock) -> float:
    """Do a step; return the seconds for each run."""
    start = clock()
    for run in runs:
        run.begin_step()
    for run, (loss, examples) in zip(runs, step(), strict=True):
        run.count(loss, examples)
    return (clock() - start) / len(runs)


def measure(effort: Effort) -> Part:
    """Time steps, then whole commands."""
    settings = Settings(data=_data())
    if effort.smoke:
        settings = Settings(chips=4, data="digits", train_limit=100)
    settings = replace(settings, rounds=effort.of(settings.rounds))
    with tempfile.TemporaryDirectory() as folder:
        found = steps(settings, Path(folder), effort.clock) | commands(settings, Path(folder))
    rows = []
    for title, a, b, unit in (
        ("whole commands", "runs_s", "chips_s", "s"),
        ("their training steps", "runs_steps_s", "chips_steps_s", "s"),
        ("a step of one chip, alternating", "run_ms", "chip_ms", "ms"),
    ):
        one, other = found[a], found[b]
        rows.append([title, f"{one:.3g} {unit}", f"{other:.3g} {unit}", f"{other / one:.2f}"])
    table = Table(
        f"{settings.chips} chips, {settings.data}, {settings.train_limit:,} examples",
        "One epoch, batches of 10, MCA on the PCM pair; the bar is a third. Each chip's metrics "
        "and pulses were those of its single run.",
        ["", f"{settings.chips} runs", f"{settings.chips} chips together", "ratio"],
        rows,
    )
    return Part("Chips that train together", [table], asdict(settings) | found)


def _data() -> Literal["mnist", "digits"]:
    """MNIST where it is at hand or can be fetched."""
    try:
        load_images("mnist", None, 1)
    except InputError:
        return "digits"
    return "mnist"
