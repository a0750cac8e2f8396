"""Trackers are told every number of a run, change nothing of it, and cannot end it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devicemodels.errors import InputError
from mcatrain.run import trackers
from mcatrain.run.chips import train_chips
from mcatrain.run.config import TrainConfig

MINE = f"{__name__}:Csv"
RULES: dict[str, dict[str, Any]] = {
    "mca": {"rule": "mca", "epsilon": 0.005, "refresh_every": 4, "seconds_per_example": 40.0},
    "rpu": {"rule": "rpu", "device_model": "gokmen2016", "lr": 0.05},
    "fp32": {"rule": "fp32"},
    "gan": {"rule": "mca", "task": "gan", "data": "digits", "batch_size": 5, "epsilon": 0.005},
}


class Csv:
    """A tracker of one's own, as a user would write it: a table of all numbers."""

    failing: str | None = None

    def __init__(self, folder: Path) -> None:
        self.path = folder / "told.csv"

    def start(self, options: Any, step: int) -> None:
        self._note("start", step, options["seed"])

    def log(self, step: int, numbers: Any, histograms: Any) -> None:
        for name, value in numbers.items():
            self._note(name, step, value)
        for layer, found in histograms.items():
            self._note(f"devices of {layer}", step, sum(next(iter(found.values()))["counts"]))

    def finish(self, result: Any) -> None:
        self._note("finish", 0, result["metrics"]["test_accuracy"])

    def close(self) -> None:
        self._note("close", 0, 0)

    def _note(self, name: str, step: int, value: float) -> None:
        if name == self.failing:
            raise OSError("the network is down")
        with self.path.open("a") as file:
            csv.writer(file).writerow([name, step, value])


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest may import this file under a name that Python does not find again."""
    mine = ModuleType(__name__)
    mine.Csv = Csv  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, __name__, mine)


def told(folder: Path) -> list[list[str]]:
    with (folder / "told.csv").open() as file:
        return list(csv.reader(file))


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), {"histograms": 0})
    found.Reload()
    return found


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.parametrize("name", RULES)
def test_bits_do_not_depend_on_a_tracker(
    name: str, run: Callable[..., Path], same: Callable[..., bool]
) -> None:
    one = run("without", **RULES[name])
    two = run("with", **RULES[name], tracker="tensorboard")
    assert same(one, two)


def test_tensorboard_has_every_number(run: Callable[..., Path]) -> None:
    folder = run("run", **RULES["mca"], tracker="tensorboard")
    found = events(folder)
    tags = found.Tags()
    for prefix, file in (("", "metrics.jsonl"), ("ledger/", "ledger.jsonl")):
        written = rows(folder, file)
        for name in written[0]:
            points = found.Scalars(prefix + name)
            assert [point.step for point in points] == [20, 40]
            for point, row in zip(points, written, strict=True):
                assert point.value == pytest.approx(row[name], rel=1e-6)
    assert set(tags["histograms"]) == {
        f"{n}/{k}" for n in ("G+", "G-", "weight", "chi") for k in "02"
    }
    held = found.Histograms("G+/0")
    assert [h.step for h in held] == [20, 40]
    assert held[1].histogram_value.num == 8 * 65
    last = json.loads((folder / "histograms.json").read_text())["layers"]["0"]["G+"]
    assert list(held[1].histogram_value.bucket) == last["counts"]
    [accuracy] = found.Scalars("final/test_accuracy")
    assert accuracy.value == pytest.approx(rows(folder)[-1]["test_accuracy"])


def test_own_tracker_is_told_in_order(run: Callable[..., Path]) -> None:
    folder = run("run", **RULES["fp32"], tracker=MINE)
    lines = told(folder)
    assert lines[0] == ["start", "0", "0"]
    accuracies = [(int(step), float(x)) for name, step, x in lines if name == "test_accuracy"]
    assert accuracies == [(row["step"], row["test_accuracy"]) for row in rows(folder)]
    assert ["devices of 0", "20", str(8 * 64)] in lines
    assert [line[0] for line in lines[-2:]] == ["finish", "close"]


def test_a_resumed_run_goes_on_without_doubled_steps(
    run: Callable[..., Path], killed_run: Callable[..., None]
) -> None:
    """Killed between the log of an evaluation and its checkpoint, it evaluates once more."""
    killed_run("run", **RULES["mca"], tracker="tensorboard")
    assert [point.step for point in events(Path("run")).Scalars("test_loss")] == [20, 40]
    run("run", **RULES["mca"], tracker="tensorboard", resume=True)
    assert len(list(Path("run/tensorboard").iterdir())) >= 2
    points = events(Path("run")).Scalars("test_loss")
    assert [point.step for point in points] == [20, 40]


@pytest.mark.parametrize("failing", ["test_accuracy", "finish", "close"])
def test_a_tracker_that_fails_is_warned_of_once(
    failing: str,
    run: Callable[..., Path],
    same: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Csv, "failing", failing)
    with pytest.warns(RuntimeWarning, match="the network is down.*goes on without it") as caught:
        folder = run("run", **RULES["mca"], tracker=MINE)
    assert len(caught) == 1
    assert same(run("without", **RULES["mca"]), folder)


def test_a_tracker_that_cannot_start_is_refused(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Csv, "failing", "start")
    with pytest.raises(InputError, match=r"--tracker .*: cannot start in run .*network is down"):
        run("run", **RULES["fp32"], tracker=MINE)


def test_each_chip_has_its_own(same: Callable[..., bool]) -> None:
    options: dict[str, Any] = {"rule": "mca", "train_limit": 20, "hidden": "8", "epochs": 1}
    for out, tracker in (("with", MINE), ("without", None)):
        train_chips(
            TrainConfig(**options, out=out, chips=2, tracker=tracker), ["mcatrain", "train"]
        )
    for chip in ("0", "1"):
        folder = Path("with/chips") / chip
        accuracies = [float(x) for name, _, x in told(folder) if name == "test_accuracy"]
        assert accuracies == [rows(folder)[0]["test_accuracy"]]
        assert same(folder, Path("without/chips") / chip)


@pytest.mark.usefixtures("no_report")
def test_command_line(
    flags: Callable[..., list[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    arguments = ["--rules", "fp32,mca", "--train-limit", "20", "--hidden", "8", "--epochs", "1"]
    assert command("compare", *arguments, "--tracker", MINE, "--out", "both")[0] == 0
    for name in ("fp32-seed0", "mca@nandakumar2018-seed0"):
        assert told(Path("both/runs") / name)
    assert command("train", *flags("run", rule="fp32", tracker=MINE))[0] == 0
    # Another tracker is no other run.
    assert command("train", *flags("run", rule="fp32", resume=True))[0] == 0


def test_mistakes(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    err = refused("train", "--out", "x", "--tracker", "tensorbord")
    assert "'tensorbord'" in err
    assert "MODULE:CLASS" in err
    assert "no module" in refused("train", "--out", "x", "--tracker", "nowhere:X").lower()
    assert "has no start" in refused("train", "--out", "x", "--tracker", "json:JSONDecoder")
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    for name in ("train", "compare"):
        err = refused(name, "--out", "x", "--tracker", "tensorboard")
        assert "pip install 'mcatrain[tracking]'" in err
