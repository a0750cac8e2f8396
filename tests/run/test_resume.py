"""A run killed at any instant and resumed is, bit for bit, the run that was never broken."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mcatrain.run import checkpoint
from mcatrain.run.config import TrainConfig
from mcatrain.run.loop import train
from mcatrain.tasks.mlp import MLPTask

pytestmark = pytest.mark.usefixtures("no_report")

STEP_DEVICE = {"device_model": "gokmen2016", "lr": 0.05}
#: Small epsilon: many pulses, so that refreshes and saturated pairs are part of the run.
BUSY = {"epsilon": 0.005, "refresh_every": 4}
RULES: dict[str, dict[str, Any]] = {
    "mca": {"rule": "mca", **BUSY},
    "mca-batch": {"rule": "mca", "batch_size": 3, **BUSY},
    "mca-momentum": {"rule": "mca", "base_optimizer": "momentum", "lr": 0.1, **BUSY},
    "mca-adam": {"rule": "mca", "base_optimizer": "adam", "lr": 0.01, "batch_size": 3},
    "mca-drifting": {"rule": "mca", "seconds_per_example": 40.0, "epsilon": 0.02},
    "mca-step-device": {"rule": "mca", **STEP_DEVICE},
    "rpu-step-device": {"rule": "rpu", **STEP_DEVICE},
    "rpu-pcm-batch": {"rule": "rpu", "batch_size": 3, "refresh_every": 3, "sequential": "off"},
    "fp32": {"rule": "fp32"},
    "fp32-momentum": {"rule": "fp32", "base_optimizer": "momentum", "lr": 0.05},
    "fp32-adam": {"rule": "fp32", "base_optimizer": "adam", "lr": 0.01, "batch_size": 3},
}
#: Files, options of a run long enough to be shot at from outside.
LONG: dict[str, dict[str, Any]] = {
    "mca": {"rule": "mca", "epsilon": 0.01, "refresh_every": 20, "train_limit": 150},
    "rpu": {"rule": "rpu", "train_limit": 100, **STEP_DEVICE},
    "fp32": {"rule": "fp32", "train_limit": 300},
    "adam": {"rule": "mca", "base_optimizer": "adam", "lr": 0.01, "train_limit": 150},
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the run may catch it."""


class Bomb:
    """Counts calls of ``inner`` and does something at one of them."""

    def __init__(self, inner: Callable[..., Any], act: Callable[[], None]) -> None:
        self.inner, self.act = inner, act
        self.calls, self.at, self.after = 0, -1, False

    def set(self, at: int, *, after: bool = False) -> None:
        self.calls, self.at, self.after = 0, at, after

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == self.at and not self.after:
            self.act()
        value = self.inner(*arguments)
        if self.calls == self.at and self.after:
            self.act()
        return value


def explode() -> None:
    raise Killed


@pytest.fixture
def loss_bomb(monkeypatch: pytest.MonkeyPatch) -> Bomb:
    """A bomb on the loss: every training step and every evaluation passes it."""
    bomb = Bomb(MLPTask.loss, explode)
    monkeypatch.setattr(MLPTask, "loss", lambda *arguments: bomb(*arguments))
    return bomb


@pytest.fixture
def write_bomb(monkeypatch: pytest.MonkeyPatch) -> Bomb:
    """A bomb on os.replace: every file of a run gets its name there."""
    bomb = Bomb(os.replace, explode)
    monkeypatch.setattr(os, "replace", bomb)
    return bomb


@pytest.mark.parametrize("often", [True, False], ids=["every-step", "every-epoch"])
@pytest.mark.parametrize("name", RULES)
def test_broken_in_a_step_or_an_evaluation(
    name: str,
    often: bool,
    run: Callable[..., Path],
    same: Callable[..., bool],
    loss_bomb: Bomb,
) -> None:
    whole = run("whole", **RULES[name])
    total = loss_bomb.calls
    chance = random.Random(f"{name} {often}")
    options = {**RULES[name], "checkpoint_every": 0.0 if often else 1e9}
    for kill in range(4):
        loss_bomb.set(total - chance.randrange(total) if kill == 0 else chance.randint(1, 10))
        try:
            run("broken", **options, resume=kill > 0)
        except Killed:
            continue
        break
    loss_bomb.set(-1)
    run("broken", **options, resume=True)
    assert same(Path("broken"), whole)


def test_busy_runs_refresh(run: Callable[..., Path]) -> None:
    """The runs above would prove little of refresh, of drift and of counts without any."""
    for name in ("mca", "mca-batch", "rpu-pcm-batch"):
        result = json.loads((run(name, **RULES[name]) / "result.json").read_text())
        assert result["refreshes"] > 0, name
        assert result["reset_pulses"] == 2 * result["refreshes"]
        assert result["set_pulses"] > 200


@pytest.mark.parametrize(
    ("name", "after"), [("mca-batch", False), ("mca-batch", True), ("fp32-adam", False)]
)
def test_broken_around_every_write_of_a_file(
    name: str,
    after: bool,
    run: Callable[..., Path],
    same: Callable[..., bool],
    write_bomb: Bomb,
) -> None:
    options = {**RULES[name], "train_limit": 5, "checkpoint_every": 0.0}
    whole = run("whole", **options)
    writes = write_bomb.calls
    assert writes > 15
    for write in range(1, writes + 1):
        write_bomb.set(write, after=after)
        with pytest.raises(Killed):
            run("broken", **options)
        write_bomb.set(-1)
        run("broken", **options, resume=True)
        assert same(Path("broken"), whole), f"broken at write {write}"
        left = {p.name for p in Path("broken").iterdir()}
        assert not [n for n in left if n.endswith(".part")], f"write {write} leaves {left}"
        assert len([n for n in left if n.endswith(".safetensors")]) == 1
        shutil.rmtree("broken")


def test_half_written_files_do_not_hurt(
    run: Callable[..., Path], same: Callable[..., bool], loss_bomb: Bomb
) -> None:
    options = {**RULES["mca"], "checkpoint_every": 0.0}
    whole = run("whole", **options)
    loss_bomb.set(13)
    with pytest.raises(Killed):
        run("broken", **options)
    folder = Path("broken")
    (tensors,) = folder.glob("*.safetensors")
    assert tensors.name == "checkpoint-12-0.safetensors"
    half = tensors.read_bytes()[:1000]
    (folder / "checkpoint-13-0.safetensors").write_bytes(half)
    (folder / "checkpoint-14-0.safetensors.part").write_bytes(half)
    for name in ("checkpoint.json", "metrics.jsonl", "result.json", "config.toml"):
        (folder / f"{name}.part").write_text('{"step": 1')
    loss_bomb.set(-1)
    run("broken", **options, resume=True)
    assert same(folder, whole)
    assert len(list(folder.glob("*.safetensors"))) == 1


def test_resume_without_a_checkpoint_starts_at_the_beginning(
    run: Callable[..., Path], same: Callable[..., bool], loss_bomb: Bomb
) -> None:
    whole = run("whole", **RULES["mca"])
    loss_bomb.set(5)
    with pytest.raises(Killed):
        run("broken", **RULES["mca"])
    assert not Path("broken/checkpoint.json").exists()
    loss_bomb.set(-1)
    assert same(run("broken", **RULES["mca"], resume=True), whole)
    assert same(run("never-begun", **RULES["mca"], resume=True), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("name", ["mca", "rpu-step-device", "fp32-momentum"])
def test_a_signal_leaves_a_checkpoint(
    name: str,
    number: signal.Signals,
    run: Callable[..., Path],
    same: Callable[..., bool],
    flags: Callable[..., list[str]],
    command: Callable[..., tuple[int, str, str]],
    loss_bomb: Bomb,
) -> None:
    whole = run("whole", **RULES[name])
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    loss_bomb.act = lambda: os.kill(os.getpid(), number)
    loss_bomb.set(9)
    options = flags("broken", **RULES[name])
    status, out, err = command("train", *options)
    assert (status, out) == (1, "")
    assert err.startswith("mcatrain: interrupted after 9 steps")
    assert err.count("\n") == 1
    assert "--resume" in err
    assert "broken" in err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert json.loads(Path("broken/checkpoint.json").read_text())["progress"]["step"] == 9
    assert not Path("broken/result.json").exists()
    status, out, err = command("train", *options, "--resume")
    assert (status, err) == (0, "")
    assert same(Path("broken"), whole)


def test_a_signal_in_an_evaluation_leaves_a_checkpoint(
    run: Callable[..., Path], same: Callable[..., bool], loss_bomb: Bomb
) -> None:
    whole = run("whole", **RULES["mca"])
    loss_bomb.act = lambda: os.kill(os.getpid(), signal.SIGTERM)
    loss_bomb.set(21)  # 20 steps, then the test set
    with pytest.raises(Exception, match="--resume"):
        run("broken", **RULES["mca"])
    loss_bomb.set(-1)
    assert same(run("broken", **RULES["mca"], resume=True), whole)


@pytest.mark.parametrize("name", ["mca", "mca-adam", "rpu-step-device", "rpu-pcm-batch", "fp32"])
def test_a_seed_is_one_run(name: str, run: Callable[..., Path], same: Callable[..., bool]) -> None:
    torch.manual_seed(1)
    one = run("one", **RULES[name])
    torch.manual_seed(2)  # what others draw from torch must not matter
    assert same(run("two", **RULES[name]), one)
    assert not same(run("other", **RULES[name], seed=1), one)


def test_a_seed_changes_weights_devices_noise_and_order(
    run: Callable[..., Path], tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    one, other = (tensors(run(f"seed{s}", **RULES["mca"], seed=s)) for s in (0, 1))
    for key in ("devices.exponent", "devices.conductance_us", "devices.pulses", "chance.state"):
        for layer in ("0", "2"):
            name = f"model.{layer}.tile.synapse.{key}"
            assert not torch.equal(one[name], other[name])
    assert not torch.equal(one["model.0.tile.chi"], other["model.0.tile.chi"])


@pytest.mark.parametrize("name", RULES)
def test_more_evaluation_does_not_change_training(
    name: str,
    run: Callable[..., Path],
    same: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    once = run("once", **RULES[name])
    evaluate = MLPTask.evaluate

    def thrice(task: MLPTask, model: Any) -> dict[str, float]:
        measured = evaluate(task, model)
        for _ in range(2):
            evaluate(task, model)
        return measured

    monkeypatch.setattr(MLPTask, "evaluate", thrice)
    assert same(run("thrice", **RULES[name]), once, evaluated=False)


@pytest.mark.parametrize("name", RULES)
def test_no_evaluation_does_not_change_training(
    name: str,
    run: Callable[..., Path],
    tensors: Callable[[Path], dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_evaluation = tensors(run("with", **RULES[name]))
    nothing = {"test_loss": 0.0, "test_accuracy": 0.0}
    monkeypatch.setattr(MLPTask, "evaluate", lambda *_: nothing)
    without = tensors(run("without", **RULES[name]))
    assert without.keys() == with_evaluation.keys()
    for key, value in with_evaluation.items():
        # What the last evaluation read of the arrays may lie in their cache, and is counted.
        read = (".weight", ".variance", ".due_s", "_at_s", ".ahead_s", ".ledger")
        if not key.endswith(read) or "fp32" in name:
            assert torch.equal(without[key], value), key


def test_how_often_checkpoints_are_written_changes_nothing(
    run: Callable[..., Path], same: Callable[..., bool]
) -> None:
    one, two = (run(f"every{c}", **RULES["mca"], checkpoint_every=c) for c in (0.0, 1e9))
    assert same(one, two)


def test_progress_in_the_checkpoint_is_exact(run: Callable[..., Path], loss_bomb: Bomb) -> None:
    loss_bomb.set(26)  # 20 steps, evaluation, 4 steps
    with pytest.raises(Killed):
        run("broken", **RULES["mca"], checkpoint_every=0.0)
    progress = json.loads(Path("broken/checkpoint.json").read_text())["progress"]
    assert (progress["epoch"], progress["at"], progress["step"]) == (1, 4, 24)
    assert progress["evaluations"] == 1
    assert progress["seconds"] > 0


def test_optimizer_state_is_in_the_checkpoint(
    run: Callable[..., Path], tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    momentum = tensors(run("momentum", **RULES["mca-momentum"]))
    adam = tensors(run("adam", **RULES["mca-adam"]))
    for layer in ("0", "1"):
        assert momentum[f"optimizer.{layer}.momentum_buffer"].abs().sum() > 0
        assert adam[f"optimizer.{layer}.exp_avg_sq"].abs().sum() > 0
        assert adam[f"optimizer.{layer}.step"] == 14


def launch(options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mcatrain.cli", "train", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def step_of(folder: Path) -> int:
    pointer = folder / "checkpoint.json"
    return json.loads(pointer.read_text())["progress"]["step"] if pointer.exists() else 0


def shoot(
    folder: Path, options: list[str], number: signal.Signals, steps: int, delay_s: float
) -> tuple[int, str]:
    """Start the run in a process, hit it that many steps and seconds on; return status, stderr."""
    begun = step_of(folder)
    process = launch(options)
    try:
        limit = time.monotonic() + 600
        while process.poll() is None and step_of(folder) < begun + steps:
            assert time.monotonic() < limit, "no checkpoint came"
            time.sleep(0.002)
        time.sleep(delay_s)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    return process.returncode, err


def shoot_and_compare(
    name: str,
    shots: list[signal.Signals],
    run: Callable[..., Path],
    flags: Callable[..., list[str]],
    same: Callable[..., bool],
    every: list[float],
) -> None:
    whole, folder = run("whole", **LONG[name]), Path("broken")
    chance = random.Random(name)
    for shot, number in enumerate(shots):
        # checkpoint_every is not part of a run: it may change between its parts
        options = flags(
            "broken", **LONG[name], checkpoint_every=every[shot % len(every)], resume=shot > 0
        )
        status, err = shoot(folder, options, number, chance.randint(2, 25), chance.random() / 20)
        assert not (folder / "result.json").exists(), "the run was over before it was hit"
        if number == signal.SIGKILL:
            assert (status, err) == (-signal.SIGKILL, "")
        else:
            assert status == 1
            assert err.startswith("mcatrain: interrupted after")
            assert err.count("\n") == 1
            assert "--resume" in err
    assert step_of(folder) > 0
    run("broken", **LONG[name], resume=True)
    assert same(folder, whole)


def test_mca_survives_sigkill_and_sigterm(
    run: Callable[..., Path], flags: Callable[..., list[str]], same: Callable[..., bool]
) -> None:
    """Both come while a checkpoint is written at every step."""
    shots = [signal.SIGKILL, signal.SIGTERM]
    shoot_and_compare("mca", shots, run, flags, same, [0.0])


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_every_rule_survives_many_kills(
    name: str,
    run: Callable[..., Path],
    flags: Callable[..., list[str]],
    same: Callable[..., bool],
) -> None:
    shots = [signal.SIGKILL] * 2 + [signal.SIGINT, signal.SIGKILL, signal.SIGTERM]
    shoot_and_compare(name, shots, run, flags, same, [0.0, 0.003])


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_broken_in_every_step(
    name: str, run: Callable[..., Path], same: Callable[..., bool], loss_bomb: Bomb
) -> None:
    whole = run("whole", **RULES[name])
    for at in range(1, loss_bomb.calls + 1):
        loss_bomb.set(at)
        options = {**RULES[name], "checkpoint_every": 0.0 if at % 2 else 1e9}
        with pytest.raises(Killed):
            run("broken", **options)
        loss_bomb.set(-1)
        assert same(run("broken", **options, resume=True), whole), f"broken at {at}"
        shutil.rmtree("broken")


def test_random_state_of_torch_comes_back(tmp_path: Path) -> None:
    """save() and load() keep torch's own generator, for dropout and the like."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    task = MLPTask(TrainConfig(out="run", rule="fp32"), torch.device("cpu"))
    checkpoint.save(tmp_path, model, optimizer, {"step": 1}, task)
    drawn = torch.rand(5)
    torch.manual_seed(0)
    assert checkpoint.load(tmp_path, model, optimizer, ["step"], task) == {"step": 1}
    assert torch.equal(torch.rand(5), drawn)


def test_a_finished_run_is_not_trained_again(run: Callable[..., Path], loss_bomb: Bomb) -> None:
    folder = run("run", **RULES["mca"])
    made = loss_bomb.calls
    before = (folder / "result.json").read_text()
    options = {"train_limit": 20, "hidden": "8", "epochs": 2, **RULES["mca"]}
    result = train(TrainConfig(out="run", resume=True, **options))
    assert result == json.loads(before)
    assert loss_bomb.calls == made
    assert (folder / "result.json").read_text() == before
