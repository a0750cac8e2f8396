"""What a run leaves in its folder, and what is refused there, one line each."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import devicemodels
import mcatrain
from mcatrain.run import loop
from mcatrain.run.config import TrainConfig
from mcatrain.run.rules import prepare
from mcatrain.run.summary import remarks
from mcatrain.tasks.mlp import MLPTask
from mcatrain.tile import Tile, tiles

pytestmark = pytest.mark.usefixtures("no_report")

RULES: dict[str, dict[str, Any]] = {
    "mca": {"rule": "mca", "epsilon": 0.005, "refresh_every": 4},
    "mca-adam": {"rule": "mca", "base_optimizer": "adam", "lr": 0.01},
    "rpu": {"rule": "rpu"},
    "rpu-step-device": {"rule": "rpu", "device_model": "gokmen2016", "lr": 0.05},
    "fp32": {"rule": "fp32"},
}
ROW = {
    "step": int, "epoch": int, "seconds": float, "train_loss": float, "test_loss": float,
    "test_accuracy": float, "set_pulses": int, "reset_pulses": int, "refreshes": int,
}  # fmt: skip
RESULT = {
    "task": str, "rule": str, "data": str, "seed": int, "epochs": int, "metrics": dict,
    "set_pulses": int, "reset_pulses": int, "refreshes": int, "seconds": float, "examples": int,
    "remarks": list, "command": str, "versions": dict, "ledger": dict, "energy": dict,
}  # fmt: skip
COUNTS = ("set_pulses", "reset_pulses", "refreshes")


def strict(text: str) -> Any:
    """Read JSON as other programs do: NaN and Infinity are none."""

    def reject(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=reject)


def read(folder: Path, name: str) -> Any:
    return strict((folder / name).read_text())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [strict(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RULES)
def test_files_of_the_contract(
    name: str, run: Callable[..., Path], tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    options = RULES[name]
    folder = run("run", **options, seed=3)
    wanted = {"config.toml", "metrics.jsonl", "result.json", "histograms.json", "checkpoint.json"}
    wanted |= {read(folder, "checkpoint.json")["tensors"], "ledger.jsonl"}
    if options["rule"] != "fp32":
        wanted.add("device.toml")
    assert {p.name for p in folder.iterdir()} == wanted

    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["task"] == "mlp"
    assert config["data"] == "digits"
    assert config["seed"] == 3
    assert config["epochs"] == 2
    assert config["train_limit"] == 20
    assert config["hidden"] == "8"
    assert config["periphery"] == {"fp32": "ideal", "mca": "mca", "rpu": "rpu2016"}[config["rule"]]
    assert options.items() <= config.items()
    known = set(TrainConfig.__dataclass_fields__)
    # To the device, the periphery, the network; --seed; a single chip; no limit; no tracker.
    left = {"epsilon", "input_bits", "dropout", "device_seed", "chips", "budget_amount"}
    left |= {"endurance", "tracker"}
    assert known - config.keys() <= left, "nothing else may be missing"
    assert config.keys() <= known

    found = rows(folder)
    assert [(row["epoch"], row["step"]) for row in found] == [(1, 20), (2, 40)]
    for row in found:
        assert {key: type(value) for key, value in row.items()} == ROW
        assert 0 <= row["test_accuracy"] <= 1
        assert row["train_loss"] > 0
    for key in ("seconds", *COUNTS):
        assert 0 <= found[0][key] <= found[1][key]

    result = read(folder, "result.json")
    kinds = {key: type(value) for key, value in result.items() if key != "device"}
    assert kinds == RESULT
    assert result["rule"] == options["rule"]
    assert (result["task"], result["data"], result["seed"], result["epochs"]) == (
        "mlp", "digits", 3, 2,
    )  # fmt: skip
    model = options.get("device_model", "nandakumar2018")
    assert result["device"] == (None if options["rule"] == "fp32" else model)
    assert result["examples"] == 40
    assert result["seconds"] == found[-1]["seconds"] > 0
    assert result["metrics"] == {
        key: found[-1][key] for key in ("train_loss", "test_loss", "test_accuracy")
    }
    assert {key: result[key] for key in COUNTS} == {key: found[-1][key] for key in COUNTS}
    assert result["command"] == "mcatrain train --out run"
    assert result["versions"]["mcatrain"] == mcatrain.__version__
    assert result["versions"]["torch"] == torch.__version__

    saved = tensors(folder)
    for key in COUNTS:
        total = sum(int(t) for n, t in saved.items() if n.endswith(f"synapse.{key}"))
        assert result[key] == total
    if options["rule"] != "fp32":
        assert result["set_pulses"] > 0
        assert (folder / "device.toml").read_text() == devicemodels.load(model).text
    else:
        assert result["set_pulses"] == result["reset_pulses"] == result["refreshes"] == 0
    assert read(folder, "checkpoint.json")["progress"]["step"] == 40


@pytest.mark.parametrize("name", RULES)
def test_histograms_count_every_device(
    name: str, run: Callable[..., Path], tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    folder = run("run", **RULES[name])
    layers = read(folder, "histograms.json")["layers"]
    saved = tensors(folder)
    if name == "fp32":
        sizes, kinds = {"0": 8 * 64, "2": 10 * 8}, {"weight"}
    else:
        sizes = {"0": 8 * 65, "2": 10 * 9}  # an analog bias is one more column
        kinds = {"weight", "chi"} | ({"w"} if "step" in name else {"G+", "G-"})
    assert layers.keys() == sizes.keys()
    for layer, size in sizes.items():
        assert layers[layer].keys() == kinds
        for histogram in layers[layer].values():
            edges = histogram["edges"]
            assert histogram.keys() == {"edges", "counts"}
            assert len(edges) == len(histogram["counts"]) + 1
            assert all(a < b for a, b in pairwise(edges))
            assert all(type(count) is int for count in histogram["counts"])
            assert sum(histogram["counts"]) == size
        if name != "fp32":
            spread = saved[f"model.{layer}.tile.chi"]
            edges = layers[layer]["chi"]["edges"]
            if spread.min() < spread.max():
                assert edges[0] == pytest.approx(spread.min().item(), abs=1e-6)
                assert edges[-1] == pytest.approx(spread.max().item(), abs=1e-6)


def test_command_is_written_as_typed(
    flags: Callable[..., list[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    assert command("train", *flags("a folder", rule="fp32"))[0] == 0
    line = read(Path("a folder"), "result.json")["command"]
    assert line.startswith("mcatrain train --train-limit 20 --hidden 8")
    assert line.endswith("--rule fp32 --out 'a folder'")


# --- what a folder must not be used for ------------------------------------------------------


@pytest.fixture
def stopped(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a run and leaves it in the second epoch, as a kill would."""

    def make(out: str = "run", **options: Any) -> Path:
        inner, calls = MLPTask.loss, [0]

        def loss(*arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] == 30:
                raise KeyboardInterrupt
            return inner(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(MLPTask, "loss", loss)
            with pytest.raises(KeyboardInterrupt):
                run(out, **options, checkpoint_every=0.0)
        return Path(out)

    return make


def test_folder_holds_another_run(
    run: Callable[..., Path],
    stopped: Callable[..., Path],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    run("done")
    stopped("begun")
    for folder in ("done", "begun"):
        err = refused("train", *flags(folder))
        assert folder in err
        assert "another run" in err
        assert "--resume" in err


def test_folder_holds_a_comparison(
    flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    Path("finished").mkdir()
    Path("finished/comparison.json").write_text("{}")
    Path("unfinished/runs/fp32-seed0").mkdir(parents=True)
    for folder in ("finished", "unfinished"):
        err = refused("train", *flags(folder))
        assert "comparison" in err
        assert folder in err


def test_out_is_a_file_or_below_one(
    flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    Path("file").write_text("mine")
    for out in ("file", "file/run"):
        err = refused("train", *flags(out))
        assert f"--out {out}" in err
    assert Path("file").read_text() == "mine"


CHANGED: dict[str, Any] = {
    "rule": "rpu", "seed": 1, "epochs": 3, "batch_size": 2, "lr": 0.3, "hidden": "9",
    "loss": "cross-entropy", "epsilon": 0.01, "refresh_every": 0, "without": "drift",
    "periphery": "ideal", "train_limit": 30, "base_optimizer": "adam",
    "device_model": "gokmen2016", "seconds_per_example": 1.0, "lr_schedule": "constant",
    "vary": "nu_std=0", "input_bits": 5, "beta": "5.0", "array_size": "9x9",
    "devices_per_weight": "2", "sequential": "off", "bound_management": "off",
}  # fmt: skip


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "stopped"])
def test_resume_with_a_changed_option(
    finished: bool,
    run: Callable[..., Path],
    stopped: Callable[..., Path],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    (run if finished else stopped)("run")
    for option, value in CHANGED.items():
        err = refused("train", *flags("run", **{option: value}, resume=True))
        assert "--" + option.replace("_", "-") in err
        assert str(value) in err
        assert str(Path("run/config.toml")) in err


def test_resume_may_change_where_and_how_often(
    stopped: Callable[..., Path],
    run: Callable[..., Path],
    same: Callable[..., bool],
    flags: Callable[..., list[str]],
    command: Callable[..., tuple[int, str, str]],
) -> None:
    whole = run("whole")
    stopped("run").rename("moved")
    status, _, err = command("train", *flags("moved", resume=True), "--checkpoint-every", "5")
    assert (status, err) == (0, "")
    assert same(Path("moved"), whole)


def device_file(path: str = "mine.toml", name: str = "nandakumar2018") -> Path:
    Path(path).write_text(devicemodels.load(name).text)
    return Path(path)


def test_device_file_changed_since(
    stopped: Callable[..., Path],
    run: Callable[..., Path],
    same: Callable[..., bool],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    path = device_file()
    stopped("run", device_model="mine.toml")
    text = path.read_text()
    assert Path("run/device.toml").read_text() == text
    path.write_text(text.replace("value = -0.084", "value = -0.080"))
    err = refused("train", *flags("run", device_model="mine.toml", resume=True))
    assert "mine.toml" in err
    assert "changed" in err
    path.write_text(text)
    resumed = run("run", device_model="mine.toml", resume=True)
    assert same(resumed, run("whole", device_model="mine.toml"))


def test_device_copy_is_gone(
    stopped: Callable[..., Path], flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    (stopped() / "device.toml").unlink()
    assert "device.toml" in refused("train", *flags("run", resume=True))


def test_checkpoint_of_another_model(
    stopped: Callable[..., Path], flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    folder, other = stopped(), stopped("other", hidden="12")
    replace_checkpoint(folder, other)
    err = refused("train", *flags("run", resume=True))
    assert "another model" in err
    assert "checkpoint.json" in err
    assert "(12, 65)" in err or "(1560,)" in err


@pytest.mark.parametrize(
    "other",
    [
        {"device_model": "gokmen2016", "lr": 0.05},
        {"rule": "fp32"},
        {"hidden": "8,8"},
        {"base_optimizer": "adam", "lr": 0.01},
        {"without": "read-noise"},
    ],
    ids=["device", "rule", "depth", "optimizer", "noise"],
)
def test_checkpoint_of_another_kind(
    other: dict[str, Any],
    stopped: Callable[..., Path],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    """Whatever state it lacks or has too much, it is refused, not half loaded."""
    folder = stopped()
    replace_checkpoint(folder, stopped("other", **other))
    assert "checkpoint.json" in refused("train", *flags("run", resume=True))


def replace_checkpoint(folder: Path, other: Path) -> None:
    for old in folder.glob("checkpoint*"):
        old.unlink()
    for new in other.glob("checkpoint*"):
        shutil.copy(new, folder)


def edit_pointer(folder: Path, **changes: Any) -> None:
    path = folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def tensors_of(folder: Path) -> Path:
    return folder / json.loads((folder / "checkpoint.json").read_text())["tensors"]


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated tensors": lambda folder: truncate(tensors_of(folder)),
    "empty tensors": lambda folder: tensors_of(folder).write_bytes(b""),
    "tensors are gone": lambda folder: tensors_of(folder).unlink(),
    "broken JSON": lambda folder: truncate(folder / "checkpoint.json"),
    "empty JSON": lambda folder: (folder / "checkpoint.json").write_text(""),
    "not text": lambda folder: (folder / "checkpoint.json").write_bytes(b"\xff\xfe\x00{"),
    "a list": lambda folder: (folder / "checkpoint.json").write_text("[1, 2]"),
    "another format": lambda folder: edit_pointer(folder, format=99),
    "no progress": lambda folder: edit_pointer(folder, progress={}),
    "no groups": lambda folder: edit_pointer(folder, groups=[]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint(
    damage: str,
    stopped: Callable[..., Path],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    DAMAGE[damage](stopped())
    err = refused("train", *flags("run", resume=True))
    assert "checkpoint.json" in err
    assert "--out" in err
    if damage == "another format":
        assert "99" in err


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("config.toml", lambda path: path.write_text("seed = ")),
        ("metrics.jsonl", lambda path: path.write_text('{"step": \n')),
        ("metrics.jsonl", lambda path: path.unlink()),
        ("metrics.jsonl", lambda path: path.write_text("")),
        ("ledger.jsonl", lambda path: path.unlink()),
    ],
    ids=["broken config", "broken metrics", "no metrics", "empty metrics", "no ledger"],
)
def test_damaged_file(
    name: str,
    spoil: Callable[[Path], Any],
    stopped: Callable[..., Path],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    """A resumed run must not go on with fewer evaluations than its checkpoint counts."""
    spoil(stopped() / name)
    assert name in refused("train", *flags("run", resume=True))


def test_damaged_result(
    run: Callable[..., Path], flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    truncate(run("run") / "result.json")
    assert "result.json" in refused("train", *flags("run", resume=True))


def test_resume_of_a_finished_run_returns_at_once(
    run: Callable[..., Path],
    flags: Callable[..., list[str]],
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = run("run")
    accuracy = read(folder, "result.json")["metrics"]["test_accuracy"]
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "prepare", never)
    monkeypatch.setattr(MLPTask, "loss", never)
    status, out, err = command("train", *flags("run", resume=True))
    assert (status, err) == (0, "")
    assert f"test accuracy {accuracy:.2%}" in out
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


# --- numbers that are not finite -------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_nan_stops_before_a_device_is_touched(
    name: str,
    run: Callable[..., Path],
    same: Callable[..., bool],
    flags: Callable[..., list[str]],
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {**RULES[name], "checkpoint_every": 0.0}
    whole = run("whole", **options)
    kept: list[nn.Module] = []
    inner, calls = MLPTask.loss, [0]

    def keep(config: TrainConfig, model: nn.Module) -> Any:
        made = prepare(config, model)
        kept.append(made[0])
        return made

    def loss(*arguments: Any) -> Any:
        calls[0] += 1
        return inner(*arguments) * (math.nan if calls[0] == 30 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "prepare", keep)
        patch.setattr(MLPTask, "loss", loss)
        status, out, err = command("train", *flags("run", **options))
    assert (status, out) == (2, "")
    assert err.startswith("mcatrain: ")
    assert err.count("\n") == 1
    assert "not finite" in err
    assert "learning rate" in err
    folder = Path("run")
    assert not (folder / "result.json").exists()
    assert read(folder, "checkpoint.json")["progress"]["step"] == 28
    # The step that met NaN left weights, devices and counts as the checkpoint before has them.
    before = load_file(folder / read(folder, "checkpoint.json")["tensors"])
    for key, value in kept[0].state_dict().items():
        # The forward pass has drawn noise, and is counted.
        if "chance." not in key and not key.endswith("ledger"):
            assert torch.equal(before[f"model.{key}"], value), key
    assert same(run("run", **options, resume=True), whole)


@pytest.mark.parametrize("lr", ["1e12", "1e20", "1e30"])
@pytest.mark.parametrize("device", ["nandakumar2018", "gokmen2016"])
def test_an_absurd_learning_rate_is_one_line(
    lr: str,
    device: str,
    flags: Callable[..., list[str]],
    command: Callable[..., tuple[int, str, str]],
) -> None:
    """chi / epsilon can ask for more pulses than memory, or than an integer, holds."""
    options = flags("run", rule="mca", device_model=device, lr=lr, checkpoint_every=0.0)
    status, out, err = command("train", *options)
    if status == 0:  # bounded devices may just saturate
        assert err == ""
    else:
        assert (status, out) == (2, "")
        assert err.startswith("mcatrain: ")
        assert err.count("\n") == 1
        assert "learning rate" in err or "--lr" in err
    if Path("run/checkpoint.json").exists():
        for key, value in load_file(tensors_of(Path("run"))).items():
            assert not key.endswith("_pulses") or int(value) >= 0, f"{key} ran over: {value}"


def test_fp32_that_diverges_is_one_line(
    flags: Callable[..., list[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    options = {"rule": "fp32", "loss": "cross-entropy", "lr": "3e37"}
    assert command("train", *flags("overflow", **options))[0] == 0
    assert rows(Path("overflow"))[-1]["test_loss"] is None
    options["base_optimizer"] = "momentum"
    status, out, err = command("train", *flags("run", **options, checkpoint_every=0.0))
    assert (status, out) == (2, "")
    assert err.startswith("mcatrain: ")
    assert err.count("\n") == 1
    rows(Path("run"))  # no NaN in a file that other programs read


def test_rpu_probabilities_are_clipped_at_any_learning_rate(run: Callable[..., Path]) -> None:
    result = read(run("run", rule="rpu", lr=1e30), "result.json")
    assert 0 < result["set_pulses"] <= 40 * 10 * (8 * 65 + 10 * 9)


# --- remarks ---------------------------------------------------------------------------------


def model_of(device: str) -> nn.Module:
    model = nn.Sequential(nn.Linear(20, 10))
    return mcatrain.convert(model, device_model=device, initial="devices")


def saturate(model: nn.Module, share: float) -> None:
    (tile,) = tiles(model).values()
    assert isinstance(tile, Tile)
    g = tile.synapse.devices.conductance_us  # type: ignore[union-attr]
    g.fill_(2.0)
    g[: round(share * len(g) / 2)] = 11.0


def test_remark_of_a_collapse_without_refresh() -> None:
    model = model_of("nandakumar2018")
    saturate(model, 0.5)
    (text,) = remarks(model, "test_accuracy", [0.6, 0.92, 0.31], 0)
    assert "without refresh" in text
    assert "31.0%" in text
    assert "92.0%" in text
    assert "50.0% of the pairs" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("device", "refresh_every"), [("nandakumar2018", 100), ("gokmen2016", 0), ("gokmen2016", 100)]
)
def test_remark_of_a_collapse_blames_refresh_only_where_it_is_off(
    device: str, refresh_every: int
) -> None:
    (text,) = remarks(model_of(device), "test_accuracy", [0.6, 0.92, 0.31], refresh_every)
    assert "failed" in text
    assert "refresh" not in text
    assert "31.0%" in text
    assert "92.0%" in text


def test_fp32_that_fails_is_remarked() -> None:
    for course in ([0.1, 0.1], [0.3, 0.39]):
        (text,) = remarks(nn.Linear(2, 2), "test_accuracy", course, 0)
        assert "failed" in text
        assert "refresh" not in text


@pytest.mark.parametrize("metric", ["bits_per_character", "frechet_distance"])
def test_metrics_that_fall_fail_by_rising(metric: str) -> None:
    """They have no level that is bad by itself; to end at 1.5 times the best is to fail."""
    model = nn.Linear(2, 2)
    (text,) = remarks(model, metric, [5.0, 2.0, 3.1], 0)
    name = metric.replace("_", " ").replace("frechet", "Fréchet")
    assert f"its {name} ended at 3.1 (best 2)" in text
    for course in ([9.0, 4.0], [2.0, 2.9], []):
        assert remarks(model, metric, course, 0) == []
    assert "overflowed" in remarks(model, metric, [5.0, None], 0)[0]


@pytest.mark.parametrize("accuracies", [[0.5, 0.9], [0.95, 0.80], [0.3, 0.41], []])
@pytest.mark.parametrize("refresh_every", [0, 100])
def test_no_remark_of_a_good_run(accuracies: list[float], refresh_every: int) -> None:
    model = model_of("nandakumar2018")
    saturate(model, 0.5)
    assert remarks(model, "test_accuracy", accuracies, refresh_every) == []


def test_remarks_reach_the_result_and_the_screen(
    flags: Callable[..., list[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    """Twenty examples teach nothing: the run says so."""
    status, out, _ = command("train", *flags("run", rule="mca", epsilon=0.005, refresh_every=0))
    assert status == 0
    (text,) = read(Path("run"), "result.json")["remarks"]
    assert "without refresh" in text
    assert text in out
