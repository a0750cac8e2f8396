"""A run folder: who may write to it, and the files it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tomli_w

import devicemodels
from devicemodels.errors import InputError
from mcatrain.run.config import TrainConfig, read_config
from mcatrain.run.writing import write_text

_MEND = "restore it from a copy, or start anew in another --out"


def check_run(config: TrainConfig) -> Path:
    """Return the path of the run folder: a new one, or with --resume one with the same run.

    Nothing is written. Raises InputError when it holds another run or other options.
    """
    folder = Path(config.out)
    if (folder / "comparison.json").exists() or (folder / "runs").exists():
        raise InputError(f"--out {folder}: holds a comparison: choose another folder")
    written = folder / "config.toml"
    if written.exists():
        if not config.resume:
            raise InputError(
                f"--out {folder}: holds another run: choose another folder, or add --resume to "
                "go on with it"
            )
        config.require_same(read_config(written), str(written))
        copy, text = folder / "device.toml", _device_text(config)
        if text and not (copy.exists() and copy.read_text(encoding="utf-8") == text):
            raise InputError(
                f"{copy}: is gone or differs from --device-model {config.device_model}, "
                "which was changed since: restore it, or choose another --out"
            )
    return folder


def begin_run(config: TrainConfig) -> None:
    """Make the folder that `check_run` allowed, with the run's options, if it is not there.

    Raises InputError when it cannot be written.
    """
    folder = Path(config.out)
    written = folder / "config.toml"
    if written.exists():
        return
    text = _device_text(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if text:
            write_text(folder / "device.toml", text)
        write_text(written, tomli_w.dumps(config.table()))
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written: {error.strerror}") from None


def _device_text(config: TrainConfig) -> str:
    return "" if config.rule == "fp32" else devicemodels.load(config.device_model).text


class Metrics:
    """A line an evaluation, cut back to a checkpoint's count on resume.

    metrics.jsonl: how good it is; ledger.jsonl: what was spent until then.
    """

    def __init__(self, folder: Path, keep: int, name: str = "metrics.jsonl") -> None:
        self.path = folder / name
        self.rows: list[dict[str, Any]] = []
        try:
            if keep:
                lines = self.path.read_text(encoding="utf-8").splitlines()[:keep]
                self.rows = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: is damaged ({error}): {_MEND}") from None
        if len(self.rows) < keep:
            raise InputError(
                f"{self.path}: holds {len(self.rows)} evaluations and the checkpoint knows of "
                f"{keep}: {_MEND}"
            )
        self._write()

    def append(self, row: dict[str, Any]) -> None:
        """Add one evaluation."""
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        write_text(self.path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows))


def read_result(path: Path) -> dict[str, Any]:
    """Read the result of a finished run."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result, dict):
            raise ValueError("not a table")
        return result
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({error}): {_MEND}") from None


def write_json(path: Path, body: dict[str, Any]) -> None:
    """Write a JSON file that a person can read."""
    write_text(path, json.dumps(body, indent=1, allow_nan=False) + "\n")
