"""A comparison: its entries, its refusals, several processes, and what a kill leaves of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import devicemodels
from mcatrain.tasks.mlp import MLPTask

pytestmark = pytest.mark.usefixtures("no_report")

FOUR = "fp32,mca,rpu,rpu@gokmen2016"
COUNTS = ("set_pulses", "reset_pulses", "refreshes")


def body(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "comparison.json").read_text())


def computed(folder: str) -> list[dict[str, Any]]:
    """Return the entries without what differs from run to run."""
    return [{k: v for k, v in e.items() if k != "seconds"} for e in body(folder)["entries"]]


@pytest.fixture
def compare(
    flags: Callable[..., list[str]], command: Callable[..., tuple[int, str, str]]
) -> Callable[..., str]:
    """Return a function that makes a comparison and returns what it printed."""

    def make(out: str, **options: Any) -> str:
        status, said, err = command("compare", *flags(out, **options))
        assert (status, err) == (0, "")
        return said

    return make


def test_entries(compare: Callable[..., str], run: Callable[..., Path]) -> None:
    said = compare("all", rules=FOUR, seeds="0,3", rpu_lr=0.05)
    found = body("all")
    assert found["task"] == "mlp"
    assert found["data"] == "digits"
    assert found["rules"] == FOUR.split(",")
    assert found["seeds"] == [0, 3]
    assert found["command"].startswith("mcatrain compare --train-limit 20")
    wanted = [("fp32", None), ("mca", "nandakumar2018"), ("rpu", "nandakumar2018")]
    wanted.append(("rpu", "gokmen2016"))
    keys = [(e["rule"], e["device_model"], e["seed"]) for e in found["entries"]]
    assert keys == [(*rule, seed) for rule in wanted for seed in (0, 3)]
    for entry in found["entries"]:
        folder = Path("all") / entry["run"]
        result = json.loads((folder / "result.json").read_text())
        assert result["device"] == entry["device_model"]
        assert result["seed"] == entry["seed"]
        for key in ("rule", "metrics", "seconds", *COUNTS):
            assert entry[key] == result[key], key
        assert entry["pulses"] == entry["set_pulses"] + entry["reset_pulses"]
        assert (entry["pulses"] > 0) == (entry["rule"] != "fp32")
        assert f"{entry['metrics']['test_accuracy']:.2%}" in said
        if entry["device_model"]:
            text = devicemodels.load(entry["device_model"]).text
            assert (folder / "device.toml").read_text() == text
    assert len({entry["run"] for entry in found["entries"]}) == 8
    assert "rpu@gokmen2016" in said


@pytest.mark.parametrize(
    ("rule", "single"),
    [
        ("fp32", {"rule": "fp32", "lr": 0.3}),
        ("mca", {"rule": "mca", "lr": 0.3}),
        ("mca@gokmen2016", {"rule": "mca", "device_model": "gokmen2016", "lr": 0.3}),
        ("rpu@gokmen2016", {"rule": "rpu", "device_model": "gokmen2016", "lr": 0.02}),
    ],
)
def test_a_run_in_a_comparison_is_the_run_alone(
    rule: str,
    single: dict[str, Any],
    compare: Callable[..., str],
    run: Callable[..., Path],
    same: Callable[..., bool],
) -> None:
    """--lr is for all, --rpu-lr for RPU; --device-model for a bare rule, @ for that rule."""
    compare("all", rules=rule, seeds="2", lr=0.3, rpu_lr=0.02)
    (entry,) = body("all")["entries"]
    assert same(Path("all") / entry["run"], run("single", **single, seed=2))


def test_bare_rules_take_the_device_model(compare: Callable[..., str]) -> None:
    compare("all", rules="mca,rpu@linear", device_model="gokmen2016", epochs=1)
    assert [e["device_model"] for e in body("all")["entries"]] == ["gokmen2016", "linear"]


def test_base_optimizer_is_for_those_that_have_one(compare: Callable[..., str]) -> None:
    compare("all", rules="fp32,mca,rpu", base_optimizer="adam", lr=0.01, epochs=1)
    configs = [(Path("all") / e["run"] / "config.toml").read_text() for e in computed("all")]
    assert ['base_optimizer = "adam"' in text for text in configs] == [True, True, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rules": "mcaa"}, ("mcaa", "'mca'")),
        ({"rules": "fp32,sgd"}, ("sgd", "fp32, mca, rpu")),
        ({"rules": ""}, ("--rules", "at least one")),
        ({"rules": "mca,mca"}, ("--rules mca,mca", "once")),
        ({"rules": "mca,mca@nandakumar2018"}, ("--rules", "once")),
        ({"rules": "fp32@gokmen2016"}, ("fp32@gokmen2016",)),
        ({"rules": "rpu@"}, ("rpu@",)),
        ({"rules": "rpu@gokmen2061"}, ("gokmen2061", "'gokmen2016'")),
        ({"rules": "mca@nowhere.toml"}, ("nowhere.toml",)),
        ({"seeds": "0,x"}, ("--seeds '0,x'", "0,1,2")),
        ({"seeds": "1.5"}, ("--seeds",)),
        ({"seeds": "0,0"}, ("--seeds 0,0", "once")),
        ({"seeds": ""}, ("--seeds",)),
        ({"jobs": 0}, ("--jobs 0", "1")),
        ({"jobs": "x"}, ("--jobs",)),
        ({"rpu_lr": -1}, ("-1", "lr")),
        ({"without": "drift", "rules": "mca,rpu@gokmen2016"}, ("drift", "gokmen2016")),
        ({"train_limit": 5000}, ("5000", "1437")),
    ],
    ids=str,
)
def test_refused(
    options: dict[str, Any],
    words: tuple[str, ...],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    err = refused("compare", *flags("all", **options))
    for word in words:
        assert word in err


def test_two_device_files_of_one_name(
    flags: Callable[..., list[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """Two runs must not share a folder: they get one each, or are refused before any training."""
    for folder, change in (("a", "0.001"), ("b", "0.002")):
        Path(folder).mkdir()
        text = devicemodels.load("gokmen2016").text
        Path(folder, "mine.toml").write_text(text.replace("value = 0.001", f"value = {change}", 1))
    options = flags("all", rules="mca@a/mine.toml,mca@b/mine.toml", epochs=1)
    status, _, err = command("compare", *options)
    if status == 0:
        assert len({e["run"] for e in body("all")["entries"]}) == 2
    else:
        assert status == 2
        assert err.count("\n") == 1
        assert not Path("all").exists(), "refused only after the first run was made"


def test_folder_in_use(
    compare: Callable[..., str],
    run: Callable[..., Path],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    compare("all", rules="fp32", epochs=1)
    err = refused("compare", *flags("all", rules="fp32", epochs=1))
    assert "another comparison" in err
    assert "--resume" in err
    run("run", rule="fp32")
    assert "single run" in refused("compare", *flags("run", rules="fp32"))
    assert "single run" in refused("compare", *flags("run", rules="fp32", resume=True))
    Path("file").write_text("mine")
    assert "--out file" in refused("compare", *flags("file", rules="fp32"))


def test_resume_with_other_options(
    compare: Callable[..., str], flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    compare("all", rules="fp32,mca", epochs=1)
    for option, value in {"epochs": 2, "lr": 0.1, "hidden": "9", "batch_size": 2}.items():
        options: dict[str, Any] = {"rules": "fp32,mca", "epochs": 1, option: value}
        err = refused("compare", *flags("all", **options, resume=True))
        assert "--" + option.replace("_", "-") in err


def test_resume_of_a_finished_comparison_trains_nothing(
    compare: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare("all", rules="fp32,mca", epochs=1)
    before = body("all")["entries"]

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(MLPTask, "loss", never)
    assert compare("all", rules="fp32,mca", epochs=1, resume=True) == first
    assert body("all")["entries"] == before


def test_resume_adds_seeds_and_rules(compare: Callable[..., str]) -> None:
    compare("all", rules="mca", seeds="0", epochs=1)
    kept = body("all")["entries"][0]
    compare("all", rules="fp32,mca", seeds="0,1", epochs=1, resume=True)
    entries = body("all")["entries"]
    assert len(entries) == 4
    assert kept in entries


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_then_resume(
    number: signal.Signals,
    compare: Callable[..., str],
    flags: Callable[..., list[str]],
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compare("whole", rules="fp32,mca,rpu")
    inner, calls = MLPTask.loss, [0]

    def loss(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 42 + 30:  # fp32 is done, mca in its second epoch
            os.kill(os.getpid(), number)
        return inner(*arguments)

    kept = signal.getsignal(signal.SIGTERM)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(MLPTask, "loss", loss)
            status, out, err = command("compare", *flags("all", rules="fp32,mca,rpu"))
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert (status, out) == (1, "")
    assert err.startswith("mcatrain: interrupted")
    assert err.count("\n") == 1
    assert "--resume" in err
    assert not Path("all/comparison.json").exists()
    assert Path("all/runs/fp32-seed0/result.json").exists()
    assert Path("all/runs/mca@nandakumar2018-seed0/checkpoint.json").exists()
    compare("all", rules="fp32,mca,rpu", resume=True)
    assert computed("all") == computed("whole")


def start(options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mcatrain.cli", "compare", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(process: subprocess.Popen[str], *paths: Path) -> None:
    limit = time.monotonic() + 600
    while not all(path.exists() for path in paths):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, f"{paths} did not come"
        time.sleep(0.005)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a comparison with its workers."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.communicate()


@pytest.mark.slow
def test_kill_of_the_whole_then_resume(
    compare: Callable[..., str], flags: Callable[..., list[str]]
) -> None:
    options: dict[str, Any] = {"rules": "mca,fp32,rpu@gokmen2016", "train_limit": 150}
    runs = Path("all/runs")
    process = start(flags("all", **options, checkpoint_every=0.0))
    try:
        done = runs / "mca@nandakumar2018-seed0/result.json"
        wait_for(process, done, runs / "fp32-seed0/checkpoint.json")
    finally:
        end(process)
    assert process.returncode == -signal.SIGKILL
    assert not Path("all/comparison.json").exists()
    before = done.read_bytes(), done.stat().st_mtime_ns
    compare("all", **options, resume=True)
    assert (done.read_bytes(), done.stat().st_mtime_ns) == before
    compare("whole", **options)
    assert computed("all") == computed("whole")


def test_jobs_compute_the_same(compare: Callable[..., str]) -> None:
    compare("one", rules="fp32,mca", seeds="1", jobs=1)
    compare("two", rules="fp32,mca", seeds="1", jobs=2)
    assert computed("one") == computed("two")


@pytest.mark.slow
def test_bad_input_in_a_job_is_one_line(
    compare: Callable[..., str], flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    """What a worker finds wrong comes back as the same line."""
    compare("all", rules="fp32", epochs=1)
    err = refused("compare", *flags("all", rules="fp32", epochs=2, jobs=2, resume=True))
    assert "--epochs" in err


@pytest.mark.slow
def test_kill_of_jobs_then_resume(
    compare: Callable[..., str], flags: Callable[..., list[str]]
) -> None:
    options: dict[str, Any] = {"rules": "mca,fp32,rpu@gokmen2016", "train_limit": 200, "jobs": 2}
    runs = Path("all/runs")
    process = start(flags("all", **options, checkpoint_every=0.0))
    try:
        wait_for(process, runs / "mca@nandakumar2018-seed0/checkpoint.json")
    finally:
        end(process)
    assert not Path("all/comparison.json").exists()
    compare("all", **options, resume=True)
    compare("whole", **options | {"jobs": 1})
    assert computed("all") == computed("whole")


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True], ids=["parent", "group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_stops_jobs_soon(
    number: signal.Signals, whole_group: bool, flags: Callable[..., list[str]]
) -> None:
    """Runs that would take hours leave a checkpoint at once, not when they are done."""
    options = flags("all", rules="mca,rpu", epochs=100000, train_limit=200, jobs=2)
    runs = Path("all/runs")
    process = start(options)
    try:
        pointers = [
            runs / f"{rule}@nandakumar2018-seed0/checkpoint.json" for rule in ("mca", "rpu")
        ]
        wait_for(process, *pointers)
        before = [pointer.stat().st_mtime_ns for pointer in pointers]
        (os.killpg if whole_group else os.kill)(process.pid, number)
        try:
            out, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            pytest.fail("the comparison goes on 30 s after the signal")
        assert (process.returncode, out) == (1, "")
        assert err.startswith("mcatrain: interrupted")
        assert err.count("\n") == 1
        assert "--resume" in err
        for pointer, at in zip(pointers, before, strict=True):
            assert pointer.stat().st_mtime_ns > at
    finally:
        end(process)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_while_workers_start(
    number: signal.Signals, flags: Callable[..., list[str]]
) -> None:
    """A terminal signals the whole group, workers that still import included: no hang."""
    process = start(flags("all", rules="mca,rpu", epochs=100000, jobs=2))
    try:
        workers: list[str] = []
        while not any("multiprocessing.spawn" in worker for worker in workers):
            assert process.poll() is None
            time.sleep(0.01)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            workers = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
        time.sleep(0.3)
        os.killpg(process.pid, number)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            pytest.fail("the comparison hangs after the signal")
        assert (process.returncode, out) == (1, "")
        assert err.startswith("mcatrain: interrupted")
        assert err.count("\n") == 1
    finally:
        end(process)
