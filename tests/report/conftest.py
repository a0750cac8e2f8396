"""Synthetic run and comparison folders: the report reads files, so no training is needed."""

from __future__ import annotations

import json
import math
import random
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

_FINAL = {"fp32": 0.98, "mca": 0.97, "rpu": 0.85}
_LAYERS = {"hidden": 250 * 785, "output": 2510}


def write_run(
    folder: Path,
    rule: str = "mca",
    device: str = "nandakumar2018",
    *,
    seed: int = 0,
    epochs: int = 5,
    accuracy: float | None = None,
    finished: bool = True,
    remarks: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write a run folder as mcatrain train leaves it and return its result."""
    folder.mkdir(parents=True)
    final = _FINAL[rule] if accuracy is None else accuracy
    chance = random.Random(f"{rule} {device} {seed}")
    config = {
        "task": "mlp", "rule": rule, "device_model": device, "data": "digits", "epochs": epochs,
        "batch_size": 1, "lr": 0.4, "seed": seed, "hidden": [250], "loss": "mse",
        "periphery": "mca2020", "refresh_every": 100, "without": list(without),
    }  # fmt: skip
    toml = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())
    (folder / "config.toml").write_text(toml)
    history = [
        _evaluation(rule, device, e, final, chance)
        for e in range(0, (epochs if finished else epochs // 2) + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
    if rule != "fp32":
        source = resources.files("devicemodels") / "parameters" / f"{device}.toml"
        (folder / "device.toml").write_text(source.read_text())
    if not finished:
        return {}
    (folder / "histograms.json").write_text(json.dumps({"layers": _histograms(rule, device)}))
    last = history[-1]
    names = ("train_loss", "test_loss", "test_accuracy")
    result = {
        "task": "mlp", "rule": rule, "device": None if rule == "fp32" else device,
        "data": "digits", "seed": seed, "epochs": epochs,
        "metrics": {name: last[name] for name in names},
        "set_pulses": last["set_pulses"], "reset_pulses": last["reset_pulses"],
        "refreshes": last["refreshes"], "seconds": last["seconds"], "examples": 1500 * epochs,
        "command": f"mcatrain train --task mlp --rule {rule} --seed {seed} --out 'runs/<x> & y'",
        "remarks": list(remarks),
        "versions": {"python": "3.11.2", "torch": "2.13.0", "mcatrain": "0.1.0"},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return result


def _evaluation(
    rule: str, device: str, epoch: int, final: float, chance: random.Random
) -> dict[str, Any]:
    accuracy = final - (final - 0.1) * math.exp(-1.6 * epoch)
    noise = 0.003 * chance.gauss(0, 1) if epoch else 0.0
    paired = device == "nandakumar2018"
    pulses = 0 if rule == "fp32" else int(7000 * (1 - math.exp(-epoch)) * (30 - 29 * paired))
    return {
        "step": 1500 * epoch, "epoch": epoch, "seconds": 3.1 * epoch,
        "train_loss": 0.9 * (1 - accuracy) + 0.001, "test_loss": 1 - accuracy + noise / 10,
        "test_accuracy": accuracy + noise if epoch else accuracy,
        "set_pulses": pulses, "reset_pulses": pulses // (10 if paired else 1),
        "refreshes": pulses // 20 if paired else 0,
    }  # fmt: skip


def _histograms(rule: str, device: str) -> dict[str, Any]:
    def bell(low: float, high: float, centre: float, width: float, total: int) -> dict[str, Any]:
        edges = [low + (high - low) * k / 50 for k in range(51)]
        share = [math.exp(-(((e - centre) / width) ** 2) / 2) for e in edges[:-1]]
        return {"edges": edges, "counts": [round(total * s / sum(share)) for s in share]}

    layers: dict[str, Any] = {}
    for name, size in _LAYERS.items():
        layers[name] = {"weight": bell(-1.2, 1.2, 0, 0.25, size)}
        if rule == "fp32":
            continue
        if device == "nandakumar2018":
            layers[name] |= {"G+": bell(0, 12, 2.5, 1.5, size), "G-": bell(0, 12, 3, 1.8, size)}
        else:
            layers[name]["w"] = bell(-0.6, 0.6, 0.05, 0.15, size)
        if rule == "mca":
            layers[name]["chi"] = bell(-0.1, 0.1, 0, 0.05, size)
    return layers


def write_comparison(
    folder: Path, rules: tuple[tuple[str, str], ...], seeds: tuple[int, ...], **options: Any
) -> dict[str, Any]:
    """Write a comparison folder of (rule, device) pairs as mcatrain compare leaves it."""
    entries = []
    for rule, device in rules:
        for seed in seeds:
            place = f"runs/{rule}-{device}-{seed}"
            final = _FINAL[rule] + 0.002 * seed - (0 if device == "nandakumar2018" else 0.02)
            result = write_run(
                folder / place, rule, device, seed=seed, accuracy=final, **options
            )  # fmt: skip
            entry = {
                "rule": rule, "device_model": None if rule == "fp32" else device, "seed": seed,
                "metrics": result["metrics"], "run": place,
                "pulses": result["set_pulses"] + result["reset_pulses"],
            }  # fmt: skip
            kept = ("set_pulses", "reset_pulses", "refreshes", "seconds")
            entries.append(entry | {name: result[name] for name in kept})
    table = {
        "command": "mcatrain compare --task mlp --seeds " + ",".join(map(str, seeds)),
        "task": "mlp", "data": "digits", "rules": [rule for rule, _ in rules],
        "seeds": list(seeds), "entries": entries,
    }  # fmt: skip
    (folder / "comparison.json").write_text(json.dumps(table))
    return table


@pytest.fixture
def make_run(tmp_path: Path) -> Any:
    """Return a function that writes a run folder and returns its path."""

    def make(*args: Any, **options: Any) -> Path:
        write_run(tmp_path / "run", *args, **options)
        return tmp_path / "run"

    return make


@pytest.fixture
def make_comparison(tmp_path: Path) -> Any:
    """Return a function that writes a comparison folder and returns its path."""

    def make(*args: Any, **options: Any) -> Path:
        write_comparison(tmp_path / "comparison", *args, **options)
        return tmp_path / "comparison"

    return make
