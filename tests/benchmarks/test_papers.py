"""Every table of benchmarks/papers at its smoke budget, and the options of the other budgets."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mcatrain.tasks.lstm
from benchmarks.papers import common
from benchmarks.papers.output import figures, markdown
from benchmarks.papers.table import ACCURACY, BUDGETS, Budget, Row, Table
from devicemodels.errors import InputError
from mcatrain.data import Text

SCRIPTS = sorted(Path(common.__file__).parent.glob("*_*.py"))
TABLES: dict[str, Table] = {
    path.stem: importlib.import_module(f"benchmarks.papers.{path.stem}").TABLE
    for path in SCRIPTS
    if path.stem != "__init__"
}
FILES = (".md", ".json", ".png")


@pytest.fixture(autouse=True)
def desk(empty_desk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on an empty desk and write results there."""
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the texts, whose test parts alone take longer than a smoke run should."""

    def load(name: str, data_dir: object, train_limit: int | None) -> Text:
        chance = torch.Generator().manual_seed(0)
        codes = torch.randint(0, 20, ((train_limit or 0) + 1_000,), generator=chance).byte()
        vocabulary = ("\n", *map(chr, range(97, 116)))
        return Text(name, train=codes[1_000:], test=codes[:1_000], vocabulary=vocabulary)

    monkeypatch.setattr(mcatrain.tasks.lstm, "load_text", load)


@pytest.mark.usefixtures("text")
@pytest.mark.parametrize("name", TABLES)
def test_smoke_budget_writes_every_row(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = TABLES[name]
    assert common.main(table, ["--budget", "smoke"]) == 0
    results = {suffix: Path(f"results/{name}-smoke{suffix}").read_bytes() for suffix in FILES}
    assert results[".png"].startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == results[".md"].decode().strip()
    body = json.loads(results[".json"])
    assert [row["label"] for row in body["rows"]] == [row.label for row in table.rows_of("smoke")]
    for row in body["rows"]:
        assert row["metrics"].keys() == {metric.name for metric in table.metrics}
        for found in row["metrics"].values():
            assert math.isfinite(found["mean"])
            assert found["values"] == [found["mean"]]
            assert found["sd"] is None
        assert row["seconds"] > 0
        assert (row["pulses_per_example"] > 0) == (row["options"].get("rule") != "fp32")
        assert f"| {row['label']} | {row['paper'] or '–'} | " in results[".md"].decode()
    assert body["seeds"] == [0]
    assert "one seed" in results[".md"].decode()
    assert body["command"].endswith("--budget smoke --seeds 0")


def test_second_call_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TABLES["mca_gan"]
    call = ["--budget", "smoke", "--seeds", "3,4", "--out", "kept"]
    assert common.main(table, call) == 0
    runs = {path: path.stat().st_mtime_ns for path in Path("kept").rglob("*")}
    first = json.loads(Path("results/mca_gan-smoke.json").read_text())
    monkeypatch.setattr("mcatrain.run.loop._Loop.finish", lambda _: pytest.fail("it trains"))
    assert common.main(table, call) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("kept").rglob("*")} == runs
    assert json.loads(Path("results/mca_gan-smoke.json").read_text())["rows"] == first["rows"]
    assert "mean ± sd of 2 seeds (3, 4)" in Path("results/mca_gan-smoke.md").read_text()


def test_processes_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """--jobs hands the runs to the comparison's workers; a stand-in keeps the test short."""
    asked: list[int] = []

    def workers(runs: list[Any], jobs: int) -> list[dict[str, Any]]:
        asked.append(jobs)
        return [common.train(run) for run in runs]

    monkeypatch.setattr(common, "run_all", workers)
    table = TABLES["rpu_stress_test"]
    assert common.main(table, ["--budget", "smoke", "--jobs", "2", "--seeds", "0,1"]) == 0
    assert asked == [2]
    shown = json.loads(Path("results/rpu_stress_test-smoke.json").read_text())["rows"]
    for row, entry in zip(table.rows_of("smoke"), shown, strict=True):
        for seed, value in zip((0, 1), entry["metrics"]["test error [%]"]["values"], strict=True):
            run = Path(f"paper-runs/rpu_stress_test-smoke/{row.folder}-seed{seed}/result.json")
            accuracy = json.loads(run.read_text())["metrics"]["test_accuracy"]
            assert value == pytest.approx(100 - 100 * accuracy)


@pytest.mark.parametrize(
    ("name", "call", "said"),
    [
        ("mca_gan", ["--budget", "day"], "--budget 'day': known: full, hour, smoke"),
        ("mca_gan", [], "--budget"),
        ("mca_gan", ["--budget", "smoke", "--seeds", "0,x"], "--seeds '0,x'"),
        ("mca_gan", ["--budget", "smoke", "--seeds", "1,1"], "--seeds '1,1'"),
        ("mca_gan", ["--budget", "smoke", "--seeds", ""], "--seeds ''"),
        ("mca_gan", ["--budget", "smoke", "--seeds=-1"], "--seeds '-1'"),
        ("mca_gan", ["--budget", "smoke", "--jobs", "0"], "--jobs 0"),
        ("mca_gan", ["--budget", "smoke", "--jobs", "two"], "--jobs"),
        ("mca_gan", ["--budget", "smoke", "--speed", "2"], "--speed"),
        ("mca_cnn", ["--budget", "full", "--data-dir", "empty"], "empty/cifar10"),
        ("mca_gan", ["--budget", "hour", "--data-dir", "empty"], "empty/mnist"),
        ("rpu_lstm_input", ["--budget", "smoke", "--data-dir", "empty"], "empty/charlm"),
    ],
)
def test_bad_input_is_one_line(
    name: str, call: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert common.main(TABLES[name], call) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("paper-runs/")]
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith(f"{name}: ")
    assert said in lines[0]
    assert not list(tmp_path.iterdir())


def test_other_runs_in_the_folder_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    table = TABLES["mca_refresh"]
    configs = table.runs("hour", (0,), Path("kept"))[table.rows[0]]
    folder = Path(configs[0].out)
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('task = "cnn"\n')
    assert common.main(table, ["--budget", "smoke", "--out", "kept"]) == 2
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", TABLES)
def test_options_of_every_row_are_valid(name: str, budget: str) -> None:
    table = TABLES[name]
    assert table.name == name
    runs = table.runs(budget, (0, 1), Path("out"))
    assert len(runs) >= 2
    folders = [config.out for configs in runs.values() for config in configs]
    assert len(set(folders)) == 2 * len(runs)
    made = [(c.table() | {"out": ""}) for configs in runs.values() for c in configs]
    assert all(one != two for k, one in enumerate(made) for two in made[:k]), "two rows are equal"
    assert table.budget(budget).minutes > 0
    assert table.budget(budget).seeds


@pytest.mark.parametrize("name", TABLES)
def test_numbers_of_the_papers_bear_a_mark(name: str) -> None:
    for row in TABLES[name].rows:
        for part in row.paper.split(";") if row.paper else ():
            assert re.search(r"\((verified|recalled|simulated)\)$", part), row.paper


@pytest.fixture
def result() -> Callable[..., dict[str, Any]]:
    def make(accuracy: float | None) -> dict[str, Any]:
        counted = {"set_pulses": 60, "reset_pulses": 40, "refreshes": 20, "examples": 50}
        return {"metrics": {"test_accuracy": accuracy}, **counted, "seconds": 2.0, "remarks": []}

    return make


def test_mean_spread_and_gap(result: Callable[..., dict[str, Any]]) -> None:
    one, two, three = (Row(label, {}) for label in ("one", "two", "three"))
    budget = Budget(options={}, minutes=1, note="")
    table = Table(
        name="t",
        title="T",
        paper="P",
        metrics=(ACCURACY,),
        rows=(one, two, three),
        budgets={"smoke": budget},
    )
    found = {
        one: [result(0.5), result(0.7)],
        two: [result(0.9), result(0.9)],
        three: [result(0.9), result(None)],
    }
    shown = figures(table, "smoke", found)
    assert markdown(table, shown).splitlines()[2:] == [
        "| one | – | 60.00 ± 14.14 |  | 2 | 20 | 2 |",
        "| two | – | 90.00 ± 0.00 | +30.00 | 2 | 20 | 2 |",
        "| three | – | overflowed |  | 2 | 20 | 2 |",
    ]


def test_gap_is_to_the_first_row_on_the_same_data() -> None:
    table = TABLES["mca_lstm"]
    rows = table.rows_of("full")
    treebank, warpeace = rows[:2], rows[2:]
    assert len({row.panel for row in treebank}) == len({row.panel for row in warpeace}) == 1
    for part in (treebank, warpeace):
        assert {table.reference(row, "full").label for row in part} == {part[0].label}


def test_unknown_budget_of_a_table() -> None:
    with pytest.raises(InputError, match="did you mean 'full'"):
        TABLES["mca_cnn"].budget("ful")
