"""A finished run taken from its folder, to be looked at: options, task, model, result."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from devicemodels.errors import InputError
from mcatrain.run import checkpoint
from mcatrain.run.config import TrainConfig, read_config
from mcatrain.run.folder import read_result
from mcatrain.run.loop import pick_device
from mcatrain.run.rules import prepare
from mcatrain.tasks import Task, make_task

_OR_ELSE = "train anew with this one"


@dataclass(frozen=True)
class Trained:
    """A finished run. device: name of its device model, None for fp32. result: its result.json."""

    config: TrainConfig
    task: Task
    model: nn.Module
    device: str | None
    result: dict[str, Any]

    @property
    def metric_at_end(self) -> float | None:
        """The metric at the end of training; None if it overflowed."""
        value: float | None = self.result["metrics"][self.task.metric]
        return value


def load_trained(folder: Path, data_dir: str = "") -> Trained:
    """Load a finished run; nothing in its folder is changed. data_dir: '' for the run's own.

    Raises InputError for what is no folder of one run, for a run that is not finished or has no
    checkpoint, and for one of another version.
    """
    saved = _read(folder)
    where = folder / "config.toml"
    config = _config(saved, folder, where)
    if not (folder / "checkpoint.json").exists():
        raise InputError(
            f"{folder}: has no checkpoint: copy the whole folder, or go on with the run by "
            "mcatrain train --resume"
        )
    if not (folder / "result.json").exists():
        raise InputError(
            f"{folder}: the run is not finished: go on with it by mcatrain train --resume"
        )
    result = read_result(folder / "result.json")
    config = replace(config, data_dir=data_dir or config.data_dir)
    device = pick_device(config)
    torch.set_num_threads(config.threads)
    task = make_task(config, device)
    if not isinstance(result.get("metrics"), dict) or task.metric not in result["metrics"]:
        raise InputError(f"{folder / 'result.json'}: has no {task.metric}: {_OR_ELSE}")
    model, optimizer = prepare(config, task.model())
    model.to(device)
    try:
        checkpoint.load(folder, model, optimizer, (), task, _OR_ELSE)
    except RuntimeError:
        # Random states differ by device; nothing else can differ after the checks of `load`.
        raise InputError(
            f"{folder}: was trained on another kind of device than {device}: evaluate it where "
            "torch finds that one"
        ) from None
    name = None if config.rule == "fp32" else Path(str(saved["device_model"])).stem
    return Trained(config, task, model.eval(), name, result)


def _read(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder: give one that mcatrain train made")
    if (folder / "comparison.json").exists() or (folder / "runs").is_dir():
        runs = sorted(path.parent for path in folder.glob("runs/**/config.toml"))
        hint = f", e.g. {runs[0]}" if runs else ""
        raise InputError(f"{folder}: holds a comparison: give one of its runs{hint}")
    if not (folder / "config.toml").exists():
        raise InputError(
            f"{folder}: is no run folder, it has no config.toml: give one that mcatrain train made"
        )
    saved = read_config(folder / "config.toml")
    if saved.get("chips"):
        raise InputError(
            f"{folder}: holds the training of {saved['chips']} chips: give one of them, e.g. "
            f"{folder / 'chips' / '0'}"
        )
    return saved


def _config(saved: dict[str, Any], folder: Path, where: Path) -> TrainConfig:
    """Return the options of the run, its device model read from its own copy."""
    other = f"{where}: the run is of another mcatrain version"
    known = {item.name for item in fields(TrainConfig)}
    if unknown := sorted(saved.keys() - known):
        raise InputError(f"{other}, with option {unknown[0]}: use that version, or {_OR_ELSE}")
    for name in ("rule", "task", "device_model", "out"):
        if not isinstance(saved.get(name), str):
            raise InputError(f"{other}, without option {name}: use that version, or {_OR_ELSE}")
    changed = {"out": str(folder), "resume": False}
    # Reading costs nothing that is counted, and a file of the user's may be gone.
    changed["energy_model"] = TrainConfig.energy_model
    changed["tracker"] = None
    if saved["rule"] != "fp32":
        if not (folder / "device.toml").exists():
            raise InputError(f"{folder}: device.toml is missing: restore it, or train anew")
        changed["device_model"] = str(folder / "device.toml")
    try:
        config = TrainConfig(**(saved | changed))
        missing = sorted(config.table().keys() - saved.keys())
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{where}: cannot be read as options ({error}): restore it, use the version of "
            f"mcatrain that wrote it, or {_OR_ELSE}"
        ) from None
    if missing:
        raise InputError(f"{other}, without option {missing[0]}: use that version, or {_OR_ELSE}")
    return config
