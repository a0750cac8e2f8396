"""The command line: exit statuses, one line for a mistake, and options that do what they say."""

from __future__ import annotations

import gzip
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import devicemodels

Command = Callable[..., tuple[int, str, str]]


# --- mistakes --------------------------------------------------------------------------------

#: Arguments of 'mcatrain train --out x ...', and what the line must say.
MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown option": ("--lrr 1", ("--lrr", "--lr")),
    "mistyped option": ("--epoch 1", ("--epoch", "--epochs")),
    "stray word": ("now", ("now",)),
    "missing value": ("--epochs", ("--epochs",)),
    "rule": ("--rule mcaa", ("'mcaa'", "--rule", "mca", "rpu", "fp32")),
    "task": ("--task mlpp", ("'mlpp'", "--task", "mlp")),
    "data": ("--data mnits", ("'mnits'", "--data", "mnist", "digits")),
    "loss": ("--loss l2", ("'l2'", "--loss", "mse", "cross-entropy")),
    "base optimizer": ("--base-optimizer sgdd", ("'sgdd'", "--base-optimizer", "momentum")),
    "schedule": ("--lr-schedule halves", ("'halves'", "--lr-schedule", "thirds", "constant")),
    "torch device": ("--torch-device gpu", ("'gpu'", "--torch-device", "cuda", "cpu", "auto")),
    "epochs a word": ("--epochs many", ("--epochs", "'many'")),
    "epochs 0": ("--epochs 0", ("--epochs 0", "1")),
    "epochs 1.5": ("--epochs 1.5", ("--epochs", "'1.5'")),
    "seed a word": ("--seed x", ("--seed", "'x'")),
    "batch size": ("--batch-size 0", ("--batch-size 0", "1")),
    "epsilon 0": ("--epsilon 0", ("--epsilon 0", "positive")),
    "epsilon -1": ("--epsilon -1", ("--epsilon -1", "positive")),
    "epsilon nan": ("--epsilon nan", ("--epsilon nan", "positive")),
    "epsilon inf": ("--epsilon inf", ("--epsilon inf", "positive")),
    "train limit 0": ("--train-limit 0", ("--train-limit 0", "1")),
    "train limit -5": ("--train-limit -5", ("--train-limit -5", "1")),
    "train limit too large": ("--train-limit 1438", ("--train-limit 1438", "1437")),
    "hidden a word": ("--hidden x", ("--hidden 'x'", "250")),
    "hidden 0": ("--hidden 0", ("--hidden '0'", "250")),
    "hidden negative": ("--hidden 8,-3", ("--hidden '8,-3'",)),
    "hidden 1.5": ("--hidden 1.5", ("--hidden '1.5'",)),
    "lr nan": ("--lr nan", ("--lr nan", "0")),
    "lr -1": ("--lr -1", ("--lr -1", "0")),
    "lr inf": ("--lr inf", ("--lr inf",)),
    "refresh": ("--refresh-every -1", ("--refresh-every -1", "0")),
    "pulse length": ("--rule rpu --pulse-length 0", ("--pulse-length 0", "1")),
    "seconds": ("--seconds-per-example -1", ("--seconds-per-example -1", "0")),
    "seconds nan": ("--seconds-per-example nan", ("--seconds-per-example nan",)),
    "checkpoints": ("--checkpoint-every -1", ("--checkpoint-every -1",)),
    "threads": ("--threads 0", ("--threads 0", "1")),
    "device model": (
        "--device-model nandakumar2081", ("'nandakumar2081'", "'nandakumar2018'", "gokmen2016"),
    ),
    "device file": ("--device-model no/where.toml", ("no/where.toml", "cannot read")),
    "without": ("--without drfit", ("--without 'drfit'", "'drift'", "read-noise")),
    "without, second": ("--without drift,reed-noise", ("'reed-noise'", "'read-noise'")),
    "without, step device": (
        "--without drift --device-model gokmen2016", ("drift", "gokmen2016", "PCM"),
    ),
    "periphery": ("--periphery mcaa", ("'mcaa'", "'mca'", "ideal", "rpu2016")),
    "adam with rpu": ("--rule rpu --base-optimizer adam", ("--base-optimizer adam", "rpu")),
    "data dir": ("--data mnist --data-dir nowhere", ("nowhere/mnist", "--data-dir")),
    "hidden empty": ("--hidden ,", ("--hidden ','", "250")),
    "hidden of the cnn": ("--task cnn --hidden 8", ("--hidden '8'", "cnn", "leave it out")),
    "mse of the lstm": ("--task lstm --loss mse", ("--loss mse", "lstm", "cross-entropy")),
    "mse of the gan": ("--task gan --loss mse", ("--loss mse", "gan", "cross-entropy")),
    "data of another task": ("--task cnn --data ptb", ("--data 'ptb'", "cnn", "cifar10", "digits")),
    "data of the gan": ("--task gan --data cifar10", ("--data 'cifar10'", "gan", "mnist")),
    "sample of the mlp": ("--sample 5", ("--sample 5", "lstm", "leave it out")),
    "sample of the gan": ("--task gan --sample 5", ("--sample 5", "lstm")),
    "sample -1": ("--task lstm --sample -1", ("--sample -1", "0")),
    "dropout of the mlp": ("--dropout 0.5", ("--dropout 0.5", "lstm", "cifar10")),
    "dropout 1": ("--task lstm --dropout 1", ("--dropout 1.0", "below 1")),
    "sequence of the mlp": ("--sequence 50", ("--sequence 50", "lstm")),
    "sequence 0": ("--task lstm --sequence 0", ("--sequence 0", "1")),
    "array size": ("--array-size 512", ("--array-size '512'", "512x512")),
    "array size 0": ("--array-size 0x5", ("--array-size '0x5'", "ROWSxCOLUMNS")),
    "devices of no number": ("--devices-per-weight 0=", ("--devices-per-weight '0='", "LAYER=N")),
    "devices of no layer": ("--devices-per-weight =3", ("--devices-per-weight '=3'", "LAYER=N")),
    "devices 0": ("--devices-per-weight 0", ("--devices-per-weight '0'", "give N")),
    "devices twice": ("--devices-per-weight 0=2,0=3", ("'0=2,0=3'", "once")),
    "devices of an unknown layer": (
        "--task cnn --data digits --devices-per-weight conv9=3",
        ("--devices-per-weight 'conv9=3'", "'conv9'", "conv2", "fc1"),
    ),
    "devices of a layer without weights": (
        "--task cnn --data digits --devices-per-weight tanh1=3", ("'tanh1'", "conv1"),
    ),
    "vary an unknown constant": ("--vary nu_meen=0", ("--vary", "'nu_meen'", "'nu_mean'")),
    "vary one of another device": ("--vary dw_min=0.1", ("--vary", "'dw_min'", "known: ")),
    "vary no number": ("--vary nu_mean", ("--vary", "'nu_mean'", "NAME=NUMBER")),
    "vary the impossible": ("--vary nu_mean=-1", ("--vary", "nu_mean = -1", "0 to 1")),
    "beta a word": ("--beta x", ("--beta 'x'", "3.5sd", "file")),
    "beta of no number": ("--beta xsd", ("--beta 'xsd'", "3.5sd")),
    "beta 0": ("--beta 0", ("--beta '0'", "conductance")),
    "zero shift of pairs": ("--zero-shift 5", ("zero_shift", "nandakumar2018")),
    "zero shift -1": ("--zero-shift -1", ("--zero-shift -1", "0")),
    "input bits": ("--input-bits 1", ("--input-bits 1", "2 to 24", "0")),
    "rounding": ("--input-rounding up", ("'up'", "--input-rounding", "stochastic")),
    "switch": ("--noise-management yes", ("'yes'", "--noise-management", "preset")),
    "sequential": ("--sequential yes", ("'yes'", "--sequential", "default")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line(mistake: str, refused: Callable[..., str]) -> None:
    arguments, words = MISTAKES[mistake]
    err = refused("train", "--out", "x", *arguments.split())
    for word in words:
        assert word in err
    assert len(err) < 600


def test_out_is_required(refused: Callable[..., str]) -> None:
    for name in ("train", "compare"):
        err = refused(name)
        assert "--out" in err
        assert f"mcatrain {name} --help" in err


def test_commands_are_checked(refused: Callable[..., str]) -> None:
    assert "'train'" in refused("trian")
    assert "known: compare, devices, energy, evaluate, fit, report, train" in refused("xyz")
    assert "--out" in refused("--out", "x")


def test_no_command_is_bad_usage(command: Command) -> None:
    status, out, err = command()
    assert status == 2
    assert "mcatrain train" in out + err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none(refused: Callable[..., str]) -> None:
    err = refused("train", "--out", "x", "--torch-device", "cuda")
    assert "--torch-device cuda" in err
    assert "cpu" in err


def test_a_long_path_is_named_whole(refused: Callable[..., str], tmp_path: Path) -> None:
    """The parser frames its errors in a narrow box; a path must come out of it unbroken."""
    folder = tmp_path / "a-folder-with-quite-a-long-name" / "and-another-one-within-it" / "models"
    folder.mkdir(parents=True)
    path = folder / "a-device-model-of-our-own.toml"
    path.write_text(devicemodels.load("gokmen2016").text.replace("dw_min ", "dw_mini "))
    assert str(path) in refused("train", "--out", "x", "--device-model", str(path))
    path.unlink()
    assert str(path) in refused("train", "--out", "x", "--device-model", str(path))


#: Edits of nandakumar2018.toml, and what the line must say.
BAD_FILES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown key": ("c1   ", "c9   ", ("c9", "[device]")),
    "unknown section": ("[synapse]", "[synapses]", ("synapses", "'synapse'")),
    "unknown header": ("title =", "titel =", ("title", "missing")),
    "missing unit": ('value = 0.88, unit = "uS", ', "value = 0.88, ", ("c1", "unit")),
    "wrong unit": ('value = 0.88, unit = "uS"', 'value = 0.88, unit = "S"', ("c1", "'S'", "'uS'")),
    "bare value": (
        '{ value = -0.084, unit = "1", range = [-0.5, 0.1], status = "verified", '
        'source = "J. Appl. Phys. 124, 152135 (2018), mean SET step" }',
        "-0.084",
        ("m1", "unit"),
    ),
    "impossible value": ("value = 0.04,", "value = -0.04,", ("nu_mean", "-0.04", "0.2")),
    "out of its range": ("value = 0.04,", "value = 0.3,", ("nu_mean", "0.3", "0.2")),
    "a word for a value": ("value = 0.04,", 'value = "0.04",', ("nu_mean", "number")),
    "nan": ("value = 0.04,", "value = nan,", ("nu_mean", "nan")),
    "device type": ('device_type = "pcm"', 'device_type = "pcn"', ("'pcn'", "'pcm'")),
    "g_min above g_max": ("value = 0.1, unit = \"uS\", range = [0.0, 1.0]",
                          "value = 13.0, unit = \"uS\", range = [0.0, 20.0]", ("g_min", "g_max")),
    "broken TOML": ("[device]", "[device", ("TOML",)),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_parameter_file(bad: str, refused: Callable[..., str]) -> None:
    old, new, words = BAD_FILES[bad]
    text = devicemodels.load("nandakumar2018").text
    assert old in text
    Path("mine.toml").write_text(text.replace(old, new, 1))
    err = refused("train", "--out", "x", "--device-model", "mine.toml")
    for word in ("mine.toml", *words):
        assert word in err


def test_parameter_file_that_is_no_text(refused: Callable[..., str]) -> None:
    Path("mine.toml").write_bytes(b"\xff\xfe\x00\x01")
    assert "mine.toml" in refused("train", "--out", "x", "--device-model", "mine.toml")
    Path("folder.toml").mkdir()
    assert "folder.toml" in refused("train", "--out", "x", "--device-model", "folder.toml")


def idx(shape: tuple[int, ...], values: bytes) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape) + values


@pytest.fixture
def mnist() -> Path:
    """A data folder with an MNIST of 30 training and 12 test images."""
    folder = Path("data/mnist")
    folder.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 12)):
        pixels = bytes((7 * k) % 256 for k in range(count * 784))
        images, labels = idx((count, 28, 28), pixels), bytes(k % 10 for k in range(count))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx((count,), labels))
    return folder


def test_data_dir(mnist: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    named = run("named", data="mnist", data_dir="data", rule="fp32")
    monkeypatch.setenv("MCATRAIN_DATA", "data")
    by_environment = run("environment", data="mnist", rule="fp32")
    metrics = [json.loads((f / "result.json").read_text()) for f in (named, by_environment)]
    assert metrics[0]["metrics"] == metrics[1]["metrics"]
    assert metrics[0]["data"] == "mnist"


def test_damaged_data(mnist: Path, refused: Callable[..., str]) -> None:
    arguments = ("train", "--out", "x", "--data", "mnist", "--data-dir", "data")
    images = mnist / "train-images-idx3-ubyte.gz"
    labels = mnist / "t10k-labels-idx1-ubyte"
    whole = images.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\x1f\x8b nothing", whole[:-4] + b"abcd"):
        images.write_bytes(damaged)
        assert images.name in refused(*arguments)
    images.write_bytes(whole)
    labels.write_bytes(labels.read_bytes()[:-2])
    assert labels.name in refused(*arguments)
    labels.unlink()
    assert labels.name in refused(*arguments)


def test_more_examples_than_there_are(mnist: Path, refused: Callable[..., str]) -> None:
    err = refused("train", "--out=x", "--data=mnist", "--data-dir=data", "--train-limit=31")
    assert "--train-limit 31" in err
    assert "30" in err


# --- what the commands print -----------------------------------------------------------------


def test_train_and_report(flags: Callable[..., list[str]], command: Command) -> None:
    status, out, err = command("train", *flags("run", rule="mca", epochs=1))
    assert (status, err) == (0, ""), "no progress where stderr is not a terminal"
    accuracy = json.loads(Path("run/result.json").read_text())["metrics"]["test_accuracy"]
    assert f"test accuracy {accuracy:.2%}" in out
    assert out.endswith("report: run/report.html\n")
    page = Path("run/report.html")
    text = page.read_text()
    page.unlink()
    assert command("report", "run") == (0, "report: run/report.html\n", "")
    assert page.read_text() == text


def test_compare_and_report(flags: Callable[..., list[str]], command: Command) -> None:
    status, out, err = command("compare", *flags("all", rules="fp32,mca", epochs=1))
    assert (status, err) == (0, "")
    assert out.endswith("report: all/report.html\n")
    page = Path("all/report.html")
    page.unlink()
    assert command("report", "all")[0] == 0
    assert page.exists()


def test_report_of_nothing(refused: Callable[..., str]) -> None:
    Path("empty").mkdir()
    assert "empty" in refused("report", "empty")
    assert "nowhere" in refused("report", "nowhere")
    assert "mcatrain report DIR" in refused("report")
    assert "mcatrain report DIR" in refused("report", "one", "two")
    Path("file").write_text("mine")
    assert "file" in refused("report", "file")


def test_devices(command: Command, refused: Callable[..., str]) -> None:
    status, out, err = command("devices")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == devicemodels.available()
    for name in devicemodels.available():
        status, out, err = command("devices", name)
        model = devicemodels.load(name)
        assert (status, err) == (0, "")
        assert model.title in out
        assert model.publication in out
        assert model.note in out
        for quantity in model.quantities:
            assert f"\n{quantity.name} " in out
            assert f"{quantity.value:g} {quantity.unit} " in out
            assert quantity.status in out
            assert quantity.source in out
    Path("mine.toml").write_text(devicemodels.load("gokmen2016").text)
    assert "mine" in command("devices", "mine.toml")[1]
    assert "'gokmen2016'" in refused("devices", "gokmen2061")
    assert "mcatrain devices [NAME]" in refused("devices", "a", "b")
    assert "mcatrain devices [NAME]" in refused("devices", "--all")


def test_help(command: Command) -> None:
    for arguments in (("--help",), ("-h",), ("help",)):
        status, out, err = command(*arguments)
        assert (status, err) == (0, "")
        for name in ("train", "compare", "devices", "report"):
            assert f"mcatrain {name}" in out
    for name in ("devices", "report"):
        status, out, err = command(name, "--help")
        assert (status, err) == (0, "")
        assert f"usage: mcatrain {name}" in out


SHARED = (
    "--task --data --data-dir --train-limit --device-model --without --periphery --hidden --loss "
    "--epochs --batch-size --lr --lr-schedule --base-optimizer --epsilon --refresh-every "
    "--pulse-length --seconds-per-example --torch-device --out --resume --sequential --vary "
    "--input-bits --input-rounding --noise-management --bound-management --beta --array-size "
    "--devices-per-weight --zero-shift --dropout --sequence --sample"
)


@pytest.mark.parametrize(
    ("name", "own"), [("train", "--rule --seed"), ("compare", "--rules --seeds --jobs --rpu-lr")]
)
def test_help_lists_the_options(name: str, own: str, command: Command) -> None:
    status, out, err = command(name, "--help")
    assert (status, err) == (0, "")
    words = out.replace(",", " ").split()
    for option in f"{SHARED} {own}".split():
        assert option in words
    assert "--no-update-management" in out
    assert f"mcatrain {name}" in out


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcatrain", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_status_of_the_process() -> None:
    done = python("train", "--out", "x", "--epsilon", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mcatrain: --epsilon 0.0: give a positive")
    assert done.stderr.count("\n") == 1
    assert not Path("x").exists()


@pytest.mark.slow
def test_process_of_a_run_prints_no_progress(flags: Callable[..., list[str]]) -> None:
    done = python("train", *flags("run", rule="mca", train_limit=300))
    assert (done.returncode, done.stderr) == (0, "")
    assert "report: run/report.html" in done.stdout
    assert python("devices").returncode == 0
    assert python("--help").returncode == 0
    assert python().returncode == 2


# --- options do what they say ----------------------------------------------------------------

BUSY = {"rule": "mca", "epsilon": 0.01, "refresh_every": 5, "seconds_per_example": 40.0}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def differ(one: Path, two: Path) -> bool:
    return result(one)["metrics"] != result(two)["metrics"]


@pytest.mark.parametrize("name", devicemodels.NONIDEALITIES)
def test_without(
    name: str, run: Callable[..., Path], tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    ideal, real = run("ideal", **BUSY, without=name), run("real", **BUSY)
    assert differ(ideal, real)
    saved = tensors(ideal)
    if name == "drift":
        assert not saved["model.0.tile.synapse.devices.exponent"].any()
        assert tensors(real)["model.0.tile.synapse.devices.exponent"].any()
    if name == "read-noise":
        assert "model.0.tile.synapse.variance" not in saved
        assert "model.0.tile.synapse.variance" in tensors(real)


def test_without_several(run: Callable[..., Path]) -> None:
    """With nothing random left but the start, only what is named may differ."""
    both = run("both", **BUSY, without="read-noise,drift")
    spaced = run("spaced", **BUSY, without=" drift , read-noise")
    assert not differ(both, spaced)
    for name in ("read-noise", "drift"):
        assert differ(both, run(name, **BUSY, without=name))


def test_refresh_every(run: Callable[..., Path]) -> None:
    often, never = run("often", **BUSY), run("never", **{**BUSY, "refresh_every": 0})
    assert result(often)["refreshes"] > 0
    assert result(never)["refreshes"] == result(never)["reset_pulses"] == 0
    assert result(never)["set_pulses"] > 0
    assert all(row["refreshes"] == 0 for row in rows(never))


def test_batch_size(run: Callable[..., Path]) -> None:
    steps = {size: rows(run(f"b{size}", batch_size=size))[-1]["step"] for size in (1, 3, 20, 64)}
    assert steps == {1: 40, 3: 14, 20: 2, 64: 2}
    assert differ(Path("b1"), Path("b3"))


def test_lr_schedule(run: Callable[..., Path]) -> None:
    options = {"rule": "fp32", "epochs": 3, "lr": 0.4}
    runs = [run("thirds", **options), run("constant", **options, lr_schedule="constant")]
    groups = [json.loads((f / "checkpoint.json").read_text())["groups"][0] for f in runs]
    assert [group["lr"] for group in groups] == [0.1, 0.4]
    one, two = (rows(folder) for folder in runs)
    assert one[0]["test_loss"] == two[0]["test_loss"]  # the first third is the same
    assert one[1]["test_loss"] != two[1]["test_loss"]
    last = json.loads((run("l", **options, lr_schedule="linear") / "checkpoint.json").read_text())
    assert last["groups"][0]["lr"] == pytest.approx(0.4 / last["progress"]["step"])


def test_pulse_length(run: Callable[..., Path]) -> None:
    options = {"rule": "rpu", "device_model": "gokmen2016", "lr": 0.1}
    runs = {n: result(run(f"p{n}", **options, pulse_length=n)) for n in (1, 10, 60)}
    pulses = {n: found["set_pulses"] + found["reset_pulses"] for n, found in runs.items()}
    # One slot clips the probabilities at 1; a weight gets one pulse an example at the most.
    assert 0 < pulses[1] < pulses[10]
    assert pulses[1] <= 40 * (8 * 65 + 10 * 9)
    assert len({found["metrics"]["train_loss"] for found in runs.values()}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"sequential": "off"},
        {"update_management": False},
        {"bl_management": True, "pulse_length": 100},
    ],
    ids=str,
)
def test_options_of_rpu(change: dict[str, Any], run: Callable[..., Path]) -> None:
    options = {"rule": "rpu", "device_model": "gokmen2016", "lr": 0.05, "batch_size": 4}
    same = {key: value for key, value in change.items() if key == "pulse_length"}
    assert differ(run("plain", **options, **same), run("changed", **options, **change))


def test_sequential_is_nothing_for_single_examples(
    run: Callable[..., Path], same: Callable[..., bool]
) -> None:
    """One example has no order, and exact devices see only the sum of pulses."""
    options = {"rule": "rpu", "device_model": "ideal", "lr": 0.05}
    assert same(run("one", **options), run("two", **options, sequential="off"))


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1000.0])
def test_seconds_per_example(
    seconds: float, run: Callable[..., Path], tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    folder = run("run", seconds_per_example=seconds, batch_size=3)
    now = tensors(folder)["model.0.tile.now_s"]
    assert now.dtype == torch.float64
    assert now.item() == pytest.approx(40 * seconds, rel=1e-12)
    assert int(tensors(folder)["model.0.tile.clock_examples"]) == 40


def test_time_makes_devices_drift(run: Callable[..., Path]) -> None:
    options = {**BUSY, "without": "read-noise"}
    runs = [run(f"s{s}", **{**options, "seconds_per_example": s}) for s in (0.0, 1e6)]
    assert differ(*runs)
    runs = [
        run(f"n{s}", **{**options, "seconds_per_example": s, "without": "read-noise,drift"})
        for s in (0.0, 1e6)
    ]
    assert not differ(*runs)


def test_epsilon(run: Callable[..., Path]) -> None:
    pulses = [
        result(run(f"e{e}", epsilon=e, refresh_every=0))["set_pulses"] for e in (0.01, 0.1, 1e6)
    ]
    assert pulses[0] > 3 * pulses[1] > 0
    assert pulses[2] == 0


def test_epsilon_left_out_is_the_granularity(run: Callable[..., Path]) -> None:
    left_out, given = run("left-out"), run("given", epsilon=0.77 / 8.02)
    assert not differ(left_out, given)


CHANGES: list[dict[str, Any]] = [
    {"loss": "cross-entropy"},
    {"lr": 0.2},
    {"base_optimizer": "momentum"},
    {"base_optimizer": "adam"},
    {"train_limit": 19},
    {"hidden": "8,8"},
    {"seed": 1},
]
OF_ARRAYS: list[dict[str, Any]] = [{"periphery": "ideal"}, {"device_model": "gokmen2016"}]


@pytest.mark.parametrize(
    ("rule", "change"),
    [("fp32", change) for change in CHANGES] + [("mca", change) for change in CHANGES + OF_ARRAYS],
    ids=str,
)
def test_option_changes_the_run(
    rule: str, change: dict[str, Any], run: Callable[..., Path]
) -> None:
    assert differ(run("plain", rule=rule), run("changed", rule=rule, **change))


def test_hidden_layers(
    run: Callable[..., Path], tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    saved = tensors(run("run", rule="fp32", hidden="12, 7"))
    shapes = [tuple(saved[f"model.{k}.weight"].shape) for k in (0, 2, 4)]
    assert shapes == [(12, 64), (7, 12), (10, 7)]


def test_lr_0_trains_nothing(
    run: Callable[..., Path], tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    for rule in ("mca", "rpu"):
        found = result(run(rule, rule=rule, lr=0.0, refresh_every=0))
        assert found["set_pulses"] == found["reset_pulses"] == 0
    one = tensors(run("fp32", rule="fp32", lr=0.0))
    two = tensors(run("longer", rule="fp32", lr=0.0, epochs=3))
    assert torch.equal(one["model.0.weight"], two["model.0.weight"])


def test_losses_are_in_their_units(run: Callable[..., Path]) -> None:
    """Cross-entropy of ten classes is near ln 10 nats before anything is learnt."""
    folder = run("run", rule="fp32", loss="cross-entropy", lr=0.0, epochs=1)
    row = rows(folder)[0]
    assert row["train_loss"] == pytest.approx(math.log(10), rel=0.1)
    assert row["test_loss"] == pytest.approx(math.log(10), rel=0.1)


def test_flags_reach_the_run(
    flags: Callable[..., list[str]], command: Command, no_report: None
) -> None:
    """The words of the command line, not only the fields behind them."""
    more = ["--no-update-management", "--bl-management"]
    options = flags(
        "run", rule="rpu", without="drift,read-noise", lr_schedule="constant", pulse_length=7,
        batch_size=5, seconds_per_example=2.5, refresh_every=0, seed=4, epsilon=0.2,
        sequential="off", vary="nu_std=0", input_bits=6, input_rounding="stochastic",
        noise_management="off", bound_management="on", beta="7.5", array_size="40x30",
        devices_per_weight="0=2", threads=1,
    )  # fmt: skip
    assert command("train", *options, *more)[0] == 0
    config = Path("run/config.toml").read_text().splitlines()
    for line in (
        'sequential = "off"', "update_management = false", "bl_management = true",
        'vary = "nu_std=0"', "input_bits = 6", 'input_rounding = "stochastic"',
        'noise_management = "off"', 'bound_management = "on"', 'beta = "7.5"',
        'array_size = "40x30"', 'devices_per_weight = "0=2"',
        'without = "drift,read-noise"', 'lr_schedule = "constant"', "pulse_length = 7",
        "batch_size = 5", "seconds_per_example = 2.5", "refresh_every = 0", "seed = 4",
        "epsilon = 0.2", "train_limit = 20", 'hidden = "8"', "epochs = 2",
    ):  # fmt: skip
        assert line in config
