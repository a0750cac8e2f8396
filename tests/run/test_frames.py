"""Runs as frames: every folder, finished or not, with the numbers of its files and their types."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import mcatrain
from devicemodels.errors import InputError
from mcatrain.run.chips import train_chips
from mcatrain.run.compare import CompareConfig, compare
from mcatrain.run.config import TrainConfig
from mcatrain.run.evaluate import evaluate
from mcatrain.run.evaluate_options import EvaluateConfig

SMALL: dict[str, Any] = {"train_limit": 20, "hidden": "8", "epochs": 2}
COMMAND = ["mcatrain", "test"]


@pytest.fixture
def folder(run: Callable[..., Path], killed_run: Callable[..., None]) -> Path:
    """One folder with a run, a comparison, chips, and a run killed in its second epoch."""
    run("all/one", rule="mca", epsilon=0.005)
    compare(CompareConfig(**SMALL, out="all/both", rules="fp32,rpu@gokmen2016"), COMMAND)
    train_chips(TrainConfig(**SMALL, out="all/chips", rule="mca", chips=2), COMMAND)
    killed_run("all/killed", rule="mca")
    path = Path("all/killed/metrics.jsonl")
    path.write_text(path.read_text().splitlines()[0] + "\n")
    return Path("all")


def test_every_run_of_a_folder(folder: Path) -> None:
    found = mcatrain.load_runs(folder)
    names = [
        "both/runs/fp32-seed0", "both/runs/rpu@gokmen2016-seed0", "chips/chips/0", "chips/chips/1",
        "killed", "one",
    ]  # fmt: skip
    runs = found.runs.set_index("run")
    assert list(runs.index) == names
    assert runs["finished"].dtype == bool
    assert list(runs.index[~runs["finished"]]) == ["killed"]
    assert runs.loc[names[0], "rule"] == "fp32"
    assert runs["train_limit"].dtype == runs["set_pulses"].dtype == "int64"
    assert runs["epsilon"].dtype == runs["metrics.test_accuracy"].dtype == "float64"
    assert runs.loc["one", "epsilon"] == 0.005
    assert math.isnan(runs.loc["killed", "epsilon"])
    for name in names:
        place = folder / name
        rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        spent = [json.loads(line) for line in (place / "ledger.jsonl").read_text().splitlines()]
        mine = found.metrics[found.metrics["run"] == name]
        for key in rows[0]:
            assert mine[key].tolist() == [row[key] for row in rows]
        assert mine["energy_j"].tolist() == [row["energy"] for row in spent[: len(rows)]]
        assert runs.loc[name, "metrics.test_accuracy"] == rows[-1]["test_accuracy"]
        pulses = rows[-1]["set_pulses"] + rows[-1]["reset_pulses"]
        assert runs.loc[name, "pulses"] == pulses
        ledger = found.ledger[found.ledger["run"] == name]
        for row in spent:
            at = ledger[(ledger["step"] == row["step"]) & (ledger["layer"] == "total")]
            counts = dict(zip(at["operation"], at["count"], strict=True))
            assert counts == {k: v for k, v in row.items() if k not in ("step", "epoch", "energy")}
    assert found.metrics["step"].dtype == found.ledger["count"].dtype == "int64"
    layers = found.ledger[(found.ledger["run"] == "one") & (found.ledger["operation"] == "weights")]
    at_end = layers[layers["step"] == 40].set_index("layer")["count"]
    assert at_end.to_dict() == {"total": 8 * 65 + 10 * 9, "0": 8 * 65, "2": 10 * 9}
    assert found.evaluations.empty
    assert found.evaluations["time_s"].dtype == "float64"


def test_a_run_itself_with_readings_after_training(run: Callable[..., Path]) -> None:
    folder = run("run", rule="mca", epsilon=0.005)
    options = {"times": "1s,1d", "compensation": "none,global", "chips": 2}
    body = evaluate(EvaluateConfig(run=str(folder), **options), COMMAND)  # type: ignore[arg-type]
    found = mcatrain.load_runs(str(folder))
    assert found.runs["run"].tolist() == ["."]
    assert len(found.evaluations) == len(body["entries"])
    for row, entry in zip(found.evaluations.to_dict("records"), body["entries"], strict=True):
        for key in ("device", "programming", "time_s", "compensation", "mean", "sd", "chips"):
            assert row[key] == entry[key]
        assert (row["run"], row["metric"]) == (".", "test_accuracy")


def test_overflow_is_nan(run: Callable[..., Path]) -> None:
    folder = run("run", rule="fp32")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"test_loss": None})
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    found = mcatrain.load_runs(folder).metrics
    assert found["test_loss"].isna().tolist() == [True, False]
    assert found["test_loss"].dtype == "float64"


def test_no_evaluation_yet(run: Callable[..., Path]) -> None:
    folder = run("run", rule="mca")
    for name in ("metrics.jsonl", "ledger.jsonl", "result.json", "histograms.json"):
        (folder / name).unlink()
    found = mcatrain.load_runs(folder)
    assert not found.runs["finished"].any()
    assert found.metrics.empty
    assert found.metrics["step"].dtype == "int64"
    assert isinstance(found.ledger, pd.DataFrame)


BROKEN = {
    "result.json": "{", "config.toml": "rule =", "metrics.jsonl": "{}\n",
    "ledger.jsonl": "nothing\n", "histograms.json": "[]",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_in_one_line(name: str, run: Callable[..., Path]) -> None:
    folder = run("run", rule="mca")
    (folder / name).write_text(BROKEN[name])
    with pytest.raises(InputError) as caught:
        mcatrain.load_runs(Path())
    message = str(caught.value)
    assert message.startswith(f"run/{name}: ")
    assert "restore the file or train again" in message
    assert "\n" not in message


def test_a_folder_without_runs(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"give (a folder|one) that mcatrain"):
            mcatrain.load_runs(folder)


def test_pandas_waits_until_it_is_asked_for() -> None:
    code = (
        "import sys, mcatrain; assert not {'pandas', 'sklearn', 'matplotlib'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
