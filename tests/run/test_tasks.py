"""Runs of the tasks cnn, lstm and gan: the files of the contract, resuming, text on request."""

from __future__ import annotations

import importlib
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

import mcatrain.tasks.base
import mcatrain.tasks.cnn
import mcatrain.tasks.gan
from mcatrain.run.config import TrainConfig
from mcatrain.tasks import make_task

pytestmark = pytest.mark.usefixtures("no_report", "ptb", "small")

#: A few steps: 4 an epoch with the last one short (lstm: 4 windows of 8 characters).
TASKS: dict[str, dict[str, Any]] = {
    "cnn": {"task": "cnn", "data": "digits", "hidden": "", "train_limit": 14, "batch_size": 4},
    "lstm": {
        "task": "lstm", "data": "ptb", "data_dir": "data", "hidden": "6,5", "train_limit": 99,
        "batch_size": 3, "sequence": 8, "dropout": 0.25,
    },
    "gan": {"task": "gan", "data": "digits", "hidden": "9,6", "train_limit": 14, "batch_size": 4},
}  # fmt: skip
#: Small epsilon: many pulses, so that devices move and pairs are refreshed.
RULES: dict[str, dict[str, Any]] = {
    "fp32": {"rule": "fp32"},
    "mca": {"rule": "mca", "epsilon": 0.002, "refresh_every": 8},
    "rpu": {"rule": "rpu", "device_model": "gokmen2016"},
}
BOTH = [(task, rule) for task in TASKS for rule in RULES]
METRIC = {"cnn": "test_accuracy", "lstm": "bits_per_character", "gan": "frechet_distance"}
LAYERS = {
    "cnn": ["conv1", "conv2", "fc1", "fc2"],
    "lstm": ["lstm.0 l0", "lstm.1 l0", "out"],
    "gan": [f"generator.{k}" for k in (0, 3, 6)] + [f"discriminator.{k}" for k in (1, 4, 7)],
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the cnn of digits the dropout of its larger kin, and judge the gan by few images."""
    plain = mcatrain.tasks.cnn._NETWORKS["digits"]

    def dropping(classes: int, dropout: float | None) -> list[tuple[str, nn.Module]]:
        layers = plain(classes, dropout)
        return [*layers[:-1], ("drop", nn.Dropout(0.5)), layers[-1]]

    monkeypatch.setitem(mcatrain.tasks.cnn._NETWORKS, "digits", dropping)
    monkeypatch.setattr(mcatrain.tasks.gan, "_EVALUATED", 400)


def options_of(task: str, rule: str) -> dict[str, Any]:
    return {**TASKS[task], **RULES[rule]}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("task", "rule"), BOTH)
def test_files_of_the_contract(task: str, rule: str, run: Callable[..., Path]) -> None:
    folder = run("run", **options_of(task, rule))
    metric = METRIC[task]
    found = rows(folder)
    assert [(row["epoch"], row["step"]) for row in found] == [(1, 4), (2, 8)]
    for row in found:
        assert set(row) == {
            "step", "epoch", "seconds", "train_loss", "test_loss", metric, "set_pulses",
            "reset_pulses", "refreshes",
        }  # fmt: skip
        for key in ("train_loss", "test_loss", metric):
            assert math.isfinite(row[key])
        assert row["test_loss"] > 0
        if task == "lstm":  # bits, and nats
            assert row[metric] == pytest.approx(row["test_loss"] / math.log(2), rel=1e-12)
            assert 0.5 * math.log2(50) < row[metric] < 3 * math.log2(50)  # a mean, not a sum
        if task == "cnn":  # a fraction of the 360 test images
            assert 0 <= row[metric] <= 1
            assert row[metric] * 360 == pytest.approx(round(row[metric] * 360), abs=1e-9)
        if task == "gan":
            assert row[metric] > 0
    result = read(folder, "result.json")
    assert result["metrics"] == {k: found[-1][k] for k in ("train_loss", "test_loss", metric)}
    assert (result["task"], result["rule"]) == (task, rule)
    assert result["data"] == TASKS[task]["data"]
    assert result["examples"] == 2 * (12 if task == "lstm" else 14)
    if rule != "fp32":
        assert result["set_pulses"] > 0
    if rule == "mca":
        assert result["refreshes"] > 0, "the resumed runs below would prove little of refresh"
    histograms = read(folder, "histograms.json")
    assert list(histograms["layers"]) == LAYERS[task]
    assert list(histograms["pulse"]) == ([] if rule == "fp32" else LAYERS[task])


def test_sheet_of_generated_images(run: Callable[..., Path]) -> None:
    folder = run("run", **options_of("gan", "mca"))
    sheet = imread(folder / "samples.png")
    assert sheet.shape[:2] == (8 * 9 - 1, 8 * 9 - 1)
    assert abs(sheet[8::9, :, :3] - 0.5).max() < 0.01, "lines between the images"
    assert sheet[:8, :8, :3].std() > 0.05
    assert not [p for p in run("cnn", **options_of("cnn", "fp32")).iterdir() if p.suffix == ".png"]


# --- killed and resumed ----------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, bool], None]:
    """Return a function: kill the run of a task around its n-th descent; 0 lets it live.

    A gan descends twice a step.
    """

    def arm(task: str, at: int, after: bool) -> None:
        place = importlib.import_module(f"mcatrain.tasks.{'classify' if task == 'cnn' else task}")
        calls = 0

        def descend(*arguments: Any) -> float:
            nonlocal calls
            calls += 1
            if calls == at and not after:
                raise Killed
            value = mcatrain.tasks.base.descend(*arguments)
            if calls == at:
                raise Killed
            return value

        monkeypatch.setattr(place, "descend", descend)

    return arm


@pytest.mark.parametrize("often", [True, False], ids=["every-step", "every-epoch"])
@pytest.mark.parametrize(("task", "rule"), BOTH)
def test_killed_and_resumed_is_the_unbroken_run(
    task: str,
    rule: str,
    often: bool,
    run: Callable[..., Path],
    same: Callable[..., bool],
    kill: Callable[[str, int, bool], None],
) -> None:
    """Dropout draws from torch's stream, a language model carries its state, a gan draws noise."""
    options = options_of(task, rule)
    whole = run("whole", **options)
    chance = random.Random(f"{task} {rule} {often}")
    steps = 16 if task == "gan" else 8
    options["checkpoint_every"] = 0.0 if often else 1e9
    for part, at in enumerate((chance.randint(2, steps), chance.randint(1, 3), 0)):
        kill(task, at, chance.random() < 0.5)
        try:
            run("broken", **options, resume=part > 0)
        except Killed:
            torch.rand(3)  # what another process would have drawn
    assert same(Path("broken"), whole)


def test_state_is_in_the_checkpoint(
    run: Callable[..., Path],
    tensors: Callable[[Path], dict[str, Tensor]],
    kill: Callable[[str, int, bool], None],
) -> None:
    kill("lstm", 6, False)
    with pytest.raises(Killed):
        run("run", **options_of("lstm", "mca"), checkpoint_every=0.0)
    saved = {k: v for k, v in tensors(Path("run")).items() if k.startswith("task.")}
    assert {k: tuple(v.shape) for k, v in saved.items()} == {
        "task.0.h": (1, 3, 6), "task.0.c": (1, 3, 6), "task.1.h": (1, 3, 5), "task.1.c": (1, 3, 5),
    }  # fmt: skip
    assert all(value.any() for value in saved.values())


@pytest.mark.parametrize("task", TASKS)
def test_evaluating_and_showing_do_not_change_training(
    task: str,
    run: Callable[..., Path],
    same: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    once = run("once", **options_of(task, "mca"))
    kind = type(make_task(_config(task), torch.device("cpu")))
    evaluate, show = kind.evaluate, kind.show

    def twice(task: Any, model: Any) -> dict[str, float]:
        measured = evaluate(task, model)
        evaluate(task, model)
        return measured

    def show_twice(task: Any, model: Any, folder: Path) -> None:
        show(task, model, folder)
        show(task, model, folder)

    monkeypatch.setattr(kind, "evaluate", twice)
    monkeypatch.setattr(kind, "show", show_twice)
    assert same(run("twice", **options_of(task, "mca")), once, evaluated=False)


def _config(task: str) -> TrainConfig:
    return TrainConfig(out="unused", rule="fp32", **TASKS[task])


def test_changed_vocabulary_is_refused(
    ptb: Path,
    run: Callable[..., Path],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
    command: Callable[..., tuple[int, str, str]],
    kill: Callable[[str, int, bool], None],
) -> None:
    """Codes of other characters would go on training nonsense; other text is none of its business.

    50 characters as before, one of them another.
    """
    options = options_of("lstm", "mca")
    kill("lstm", 6, False)
    with pytest.raises(Killed):
        run("run", **options)
    kill("lstm", 0, False)
    kept = {path: path.read_text() for path in ptb.iterdir()}
    for path, text in kept.items():
        path.write_text(text.replace("#", "@"))
    err = refused("train", *flags("run", **options, resume=True))
    assert "vocabulary" in err
    assert "checkpoint.json" in err
    for path, text in kept.items():
        path.write_text(text[::-1].strip() + "\n")
    status, _, err = command("train", *flags("run", **options, resume=True))
    assert (status, err) == (0, "")


# --- text ------------------------------------------------------------------------------------


def test_text_shorter_than_a_sequence(
    ptb: Path, flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    options = options_of("lstm", "mca")
    err = refused("train", *flags("run", **{**options, "train_limit": 26}))
    for part in ("26 characters", "--train-limit", "3 sequences of 8", "at least 27"):
        assert part in err
    assert "too few" in refused("train", *flags("run", **{**options, "train_limit": 2}))
    (ptb / "ptb.test.txt").write_text("a few characters\n")
    err = refused("train", *flags("run", **options))
    assert "test text has 17 characters" in err
    assert "at least 100" in err


@pytest.mark.parametrize("rule", RULES)
def test_sample_is_written_and_printed(
    rule: str,
    run: Callable[..., Path],
    flags: Callable[..., list[str]],
    command: Callable[..., tuple[int, str, str]],
    same: Callable[..., bool],
    ptb: Path,
) -> None:
    options = options_of("lstm", rule)
    status, out, err = command("train", *flags("run", **options, sample=40))
    assert (status, err) == (0, "")
    written = Path("run/sample.txt").read_text()
    assert len(written) == 41
    assert set(written) <= set((ptb / "ptb.train.txt").read_text())
    assert written in out
    # One more, longer, of the finished run: it goes on the same way, and no number changes.
    kept = {p.name: p.read_bytes() for p in Path("run").iterdir() if p.name != "sample.txt"}
    status, out, err = command("train", *flags("run", **options, sample=60, resume=True))
    assert (status, err) == (0, "")
    longer = Path("run/sample.txt").read_text()
    assert len(longer) == 61
    assert longer.startswith(written[:40])
    assert longer in out
    assert {p.name: p.read_bytes() for p in Path("run").iterdir() if p.name in kept} == kept
    # Without --sample nothing is written, and training is the same.
    plain = run("plain", **options)
    assert not (plain / "sample.txt").exists()
    assert same(Path("run"), plain, evaluated=False)
