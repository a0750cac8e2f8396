"""Checkpoints: tensors in safetensors, the rest in JSON; a kill leaves one of them whole."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from devicemodels.errors import InputError
from mcatrain.run.writing import write_text
from mcatrain.tasks.base import Task

_POINTER = "checkpoint.json"
_FORMAT = 5


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    task: Task,
) -> None:
    """Save model, optimizer, task, torch's own random state and ``progress`` (JSON values).

    The tensors get a file of their own name; the pointer file, replaced last, decides.
    """
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"task.{key}": value for key, value in task.state().items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if task.device.type == "cuda":  # dropout draws there
        tensors["rng.cuda"] = torch.cuda.get_rng_state(task.device)
    state = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    name = _name(progress)
    part = folder / f"{name}.part"
    # One storage may sit under several names (a layer used twice); each gets its own copy.
    copies = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    save_file(copies, part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, folder / name)
    body = {
        "format": _FORMAT,
        "tensors": name,
        "groups": state["param_groups"],
        "state": plain,
        "progress": progress,
        "facts": task.facts(),
    }
    write_text(folder / _POINTER, json.dumps(body))
    remove_others(folder, progress)


def _name(progress: dict[str, Any]) -> str:
    # Of a step there may be one before its evaluation and one after, which must not replace it
    # until the pointer says so.
    return f"checkpoint-{progress['step']}-{progress.get('evaluations', 0)}.safetensors"


def remove_others(folder: Path, progress: dict[str, Any]) -> None:
    """Remove the tensors of all checkpoints but the one of ``progress``."""
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != _name(progress):
            old.unlink()


def load(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    wanted: Collection[str],
    task: Task,
    or_else: str = "choose another --out",
) -> dict[str, Any] | None:
    """Restore what `save` saved; return its progress, or None when there is no checkpoint.

    wanted: the keys that its progress must have. or_else: what the user can do, in errors.
    Raises InputError for a damaged checkpoint, for one of another model, and for one of a task
    whose facts (say, a vocabulary) have changed.
    """
    pointer = folder / _POINTER
    if not pointer.exists():
        return None
    try:
        body = json.loads(pointer.read_text(encoding="utf-8"))
        if body["format"] != _FORMAT:
            raise InputError(
                f"{pointer}: format {body['format']} of another mcatrain version; this one reads "
                f"{_FORMAT}: use that version, or {or_else}"
            )
        tensors = load_file(folder / body["tensors"])
        progress, groups, plain = body["progress"], body["groups"], body["state"]
        facts = dict(body["facts"])
        if missing := set(wanted) - progress.keys():
            raise KeyError(*missing)
        kinds = [sorted(group) for group in groups]
        entries = {int(index): dict(values) for index, values in plain.items()}
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError
    ) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{pointer}: the checkpoint is damaged ({error}): restore it from a copy, or {or_else}"
        ) from None
    for name, value in task.facts().items():
        if facts.get(name) != value:
            raise InputError(
                f"{pointer}: the run was made with another {name.replace('_', ' ')}: the data or "
                f"the program changed since; restore it, or {or_else}"
            )
    _load_model(pointer, model, tensors, or_else)
    if kinds != [sorted(group) for group in optimizer.param_groups]:
        raise InputError(
            f"{pointer}: is of another optimizer: resume with the options of that run, or {or_else}"
        )
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            index, name = key.removeprefix("optimizer.").split(".", 1)
            entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    task.restore({k.removeprefix("task."): v for k, v in tensors.items() if k.startswith("task.")})
    torch.set_rng_state(tensors["rng.cpu"])
    if task.device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"], task.device)
    return progress


def _load_model(pointer: Path, model: nn.Module, tensors: dict[str, Tensor], or_else: str) -> None:
    saved = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    mine = model.state_dict()
    for key in sorted(saved.keys() | mine.keys()):
        a, b = saved.get(key), mine.get(key)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            found, wanted = (_describe(t) for t in (a, b))
            raise InputError(
                f"{pointer}: is of another model: {key} is {found} there and {wanted} here: "
                f"resume with the options of that run, or {or_else}"
            )
    model.load_state_dict(saved)


def _describe(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
