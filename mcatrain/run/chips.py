"""One training on many chips: each its own devices, and of a fitted model its own draw of it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from devicemodels.errors import InputError
from devicemodels.posterior import PosteriorFile
from devicemodels.state import derive_seed
from mcatrain.run.config import TrainConfig
from mcatrain.run.folder import begin_run, check_run, read_result, write_json
from mcatrain.run.lockstep import serves
from mcatrain.run.processes import run_all, run_together
from mcatrain.run.spread import components
from mcatrain.run.sums import together
from mcatrain.run.writing import write_text

#: Fewer chips share no seed that could be told from their devices.
LEAST = 4
#: What the spread over chips is made of.
SEED, DRAW, DEVICES = "seed", "parameters", "devices"


def train_chips(config: TrainConfig, command: list[str]) -> dict[str, Any]:
    """Train ``config.chips`` chips, each a run of its own; return what result.json holds.

    Chips in a row of s = floor(sqrt(chips)) have the seeds (initial weights, order of examples)
    s0 ... s0 + s - 1 and share a draw of the posterior, if the parameter file has one; no two
    share devices or noise. What is common to a column or a row tells seed and parameters apart
    from the devices. Raises InputError for bad input, Interrupted after a signal.
    """
    folder = check_run(config)
    done = folder / "result.json"
    if done.exists():
        return read_result(done)
    assert config.chips
    posterior = config.load_device_model().posterior
    side = math.isqrt(config.chips)
    seeds = [config.seed + chip % side for chip in range(config.chips)]
    rows = [chip // side for chip in range(config.chips)]
    draws = _draws(posterior, config, rows[-1] + 1) if posterior else None
    begin_run(config)
    models = [config.device_model] * config.chips
    if posterior and draws:
        models = [_drawn(config, posterior, draws[row]) for row in rows]
    runs = [
        replace(
            config, chips=None, jobs=1, resume=True, seed=seed, device_seed=config.seed + chip,
            device_model=model, out=str(folder / "chips" / str(chip)),
        )
        for chip, (seed, model) in enumerate(zip(seeds, models, strict=True))
    ]  # fmt: skip
    results = (run_together if serves(config) else run_all)(runs, config.jobs)
    levels = {SEED: seeds} | ({DRAW: [draws[row] for row in rows]} if draws else {})
    body = _summary(config, results, levels, command)
    for chip, (entry, run) in enumerate(zip(body["entries"], runs, strict=True)):
        entry["device_seed"], entry["run"] = run.device_seed, f"chips/{chip}"
    write_json(done, body)
    return body


def _draws(posterior: PosteriorFile, config: TrainConfig, rows: int) -> list[int]:
    """Return which draws of the posterior the rows of chips take, none twice."""
    if len(posterior) < rows:
        raise InputError(
            f"--chips {config.chips}: takes {rows} draws and {posterior.path} has "
            f"{len(posterior)}: fit with more --draws"
        )
    chance = torch.Generator().manual_seed(derive_seed(config.seed, "posterior draws"))
    return torch.randperm(len(posterior), generator=chance)[:rows].tolist()


def _drawn(config: TrainConfig, posterior: PosteriorFile, draw: int) -> str:
    """Write the parameter file of a draw, once; return its path."""
    path = Path(config.out) / "draws" / f"{Path(config.device_model).stem}-{draw}.toml"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        text = (Path(config.out) / "device.toml").read_text(encoding="utf-8")
        write_text(path, posterior.text(text, draw))
    return str(path)


def _summary(
    config: TrainConfig,
    results: list[dict[str, Any]],
    levels: dict[str, list[int]],
    command: list[str],
) -> dict[str, Any]:
    kept = ("seed", "metrics", "set_pulses", "reset_pulses", "refreshes", "examples")
    entries = [
        {key: result[key] for key in kept}
        | {key: result[key] for key in ("energy", "budget") if key in result}
        | {"draw": levels[DRAW][chip] if DRAW in levels else None}
        for chip, result in enumerate(results)
    ]
    names = list(results[0]["metrics"])
    measured = {name: [result["metrics"][name] for result in results] for name in names}
    first = results[0]
    sums = ("set_pulses", "reset_pulses", "refreshes", "seconds", "examples")
    return {
        **{key: first[key] for key in ("task", "rule", "data", "epochs")},
        "device": config.device_model,
        "seed": config.seed,
        "chips": config.chips,
        "metrics": {name: _mean(values) for name, values in measured.items()},
        "spread": {name: _spread(values, levels) for name, values in measured.items()},
        **{key: sum(result[key] for result in results) for key in sums},
        **together(results),
        "remarks": list(dict.fromkeys(text for r in results for text in r["remarks"])),
        "entries": entries,
        "options": asdict(config),
        "command": shlex.join(["mcatrain", *command[1:]]),
        "versions": first["versions"],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def _spread(values: Sequence[float | None], levels: dict[str, list[int]]) -> dict[str, Any] | None:
    """Return the standard deviation over chips and its parts; None where a chip has no number."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 2:
        return None
    found: dict[str, Any] = {"sd": stdev(known)}
    if len(known) >= LEAST:
        parts = components(known, levels, DEVICES)
        found["parts"] = {name: asdict(part) for name, part in parts.items()}
    return found
