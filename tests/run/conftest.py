"""Tiny runs on digits, what of a run must be the same, and the command line called in-process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mcatrain.report
from mcatrain.cli import main
from mcatrain.run.config import TrainConfig
from mcatrain.run.loop import train
from mcatrain.run.single import Run

#: 7 steps an epoch with batches of 3, the last of 2. Refreshes come by the many pulses.
TINY: dict[str, Any] = {"train_limit": 20, "hidden": "8", "epochs": 2, "checkpoint_every": 1e9}


@pytest.fixture(autouse=True)
def desk(empty_desk: None) -> None:
    """Every test here works on an empty desk."""


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report out: it takes longer than a tiny run."""
    monkeypatch.setattr(mcatrain.report, "build_report", lambda folder: folder / "report.html")


@pytest.fixture
def run() -> Callable[..., Path]:
    """Return a function that makes a tiny run and returns its folder."""

    def make(out: str, **options: Any) -> Path:
        train(TrainConfig(out=out, **{**TINY, **options}), ["mcatrain", "train", "--out", out])
        return Path(out)

    return make


@pytest.fixture
def killed_run(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes a run which is killed before it saves its state at step 40."""
    save = Run.save

    def killed(self: Run) -> None:
        if self.step == 40:
            raise KeyboardInterrupt
        save(self)

    def make(out: str, **options: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Run, "save", killed)
            with pytest.raises(KeyboardInterrupt):
                run(out, **options)

    return make


#: Every one of the 50 characters of the Penn Treebank.
ALPHABET = " #$&'*-./0123456789<>N\\abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def ptb(tmp_path: Path) -> Path:
    """A data folder, ``data``, with a tiny Penn Treebank: 510 training, 153 test characters."""
    folder = tmp_path / "data" / "ptb"
    folder.mkdir(parents=True)
    for part, lines in (("train", 10), ("test", 3)):
        turned = [ALPHABET[k:] + ALPHABET[:k] for k in range(1, lines + 1)]
        words = "".join(
            f"{line.strip() + '-' * (len(line) - len(line.strip()))}\n" for line in turned
        )
        (folder / f"ptb.{part}.txt").write_text(words)
    return folder


@pytest.fixture
def flags() -> Callable[..., list[str]]:
    """Return a function that writes the options of a tiny run as command line arguments."""

    def write(out: str, **options: Any) -> list[str]:
        given = {**TINY, **options, "out": out}
        resume = ["--resume"] if given.pop("resume", False) else []
        pairs = [("--" + key.replace("_", "-"), str(value)) for key, value in given.items()]
        return [part for pair in pairs for part in pair] + resume

    return write


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command and returns (exit status, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(list(arguments))
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def refused(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., str]:
    """Return a function: the command must end in one line, status 2, and leave all as it was."""

    def check(*arguments: str) -> str:
        before = content(tmp_path), sorted(tmp_path.rglob("*"))
        status, out, err = command(*arguments)
        assert status == 2
        assert out == ""
        assert err.startswith("mcatrain: ")
        assert err.count("\n") == 1, err
        assert err.endswith("\n")
        assert "Traceback" not in err
        assert (content(tmp_path), sorted(tmp_path.rglob("*"))) == before
        return err

    return check


@pytest.fixture
def tensors() -> Callable[[Path], dict[str, Tensor]]:
    """Return a function that reads the tensors of a run's checkpoint."""

    def read(folder: Path) -> dict[str, Tensor]:
        return load_file(folder / json.loads((folder / "checkpoint.json").read_text())["tensors"])

    return read


@pytest.fixture
def same(tensors: Callable[[Path], dict[str, Tensor]]) -> Callable[..., bool]:
    """Return a function: did two finished runs compute the same, bit for bit?

    Metrics but for the seconds they took; the optimizer's groups and state; every tensor
    (weights, conductances, pulse counts, random states); the result's counts. With
    ``evaluated=False``, but for how often arrays were read in evaluation.
    """

    def outcome(folder: Path, evaluated: bool) -> dict[str, Any]:
        result = json.loads((folder / "result.json").read_text())
        saved = json.loads((folder / "checkpoint.json").read_text())
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for timed in (*rows, result, saved["progress"]):
            timed.pop("seconds")
        del result["command"]
        histograms = json.loads((folder / "histograms.json").read_text())
        rows += map(json.loads, (folder / "ledger.jsonl").read_text().splitlines())
        if not evaluated:
            kept = [*rows, result["ledger"]["total"], *result["ledger"]["layers"].values()]
            for counted in kept:
                for name in [name for name in counted if name.startswith("evaluation_")]:
                    del counted[name]
        return {"rows": rows, "result": result, "saved": saved, "histograms": histograms}

    def compare(one: Path, two: Path, *, evaluated: bool = True) -> bool:
        a, b = tensors(one), tensors(two)
        if not evaluated:
            for key, value in [*a.items(), *b.items()]:
                if key.endswith(".ledger"):
                    value[4:8] = 0
        return (
            outcome(one, evaluated) == outcome(two, evaluated)
            and a.keys() == b.keys()
            and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)
        )

    return compare
