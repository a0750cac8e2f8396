"""Chips that train together: each is, bit for bit, the run that it would be alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from devicemodels.errors import InputError
from mcatrain.kernels.cpu.together import Converter
from mcatrain.nn import together
from mcatrain.run import lockstep, loop
from mcatrain.run.chips import train_chips
from mcatrain.run.config import TrainConfig
from mcatrain.run.loop import Interrupted, train
from mcatrain.tasks.mlp import MLPTask

COMMAND = ["mcatrain", "train"]
#: 7 steps an epoch with batches of 3, the last of 2.
TINY: dict[str, Any] = {
    "train_limit": 20, "hidden": "8", "epochs": 2, "batch_size": 3, "checkpoint_every": 1e9
}  # fmt: skip
#: Small epsilon: many pulses, refreshes and saturated pairs.
BUSY: dict[str, Any] = {"rule": "mca", "epsilon": 0.005, "refresh_every": 4}
STEP_DEVICE: dict[str, Any] = {"device_model": "gokmen2016", "lr": 0.05}
CASES: dict[str, dict[str, Any]] = {
    "mca": BUSY,
    "mca-one-by-one": {**BUSY, "batch_size": 1},
    "mca-last-of-one": {**BUSY, "train_limit": 19},
    "mca-deep": {**BUSY, "hidden": "16,40", "loss": "cross-entropy", "lr": 0.1},
    "mca-wide": {**BUSY, "hidden": "250", "batch_size": 10},
    "mca-odd": {**BUSY, "hidden": "13", "train_limit": 40, "batch_size": 17},
    "mca-without-read-noise": {**BUSY, "without": "read-noise"},
    "mca-drifting": {**BUSY, "seconds_per_example": 40.0},
    "mca-stochastic": {**BUSY, "input_rounding": "stochastic"},
    "mca-clipping": {**BUSY, "beta": "0.6", "epsilon": 0.1, "lr": 0.01},
    "mca-unmanaged": {**BUSY, "bound_management": "off", "noise_management": "off"},
    "mca-ideal-converters": {**BUSY, "periphery": "ideal"},
    "mca-digital-bias": {**BUSY, "bias": "digital"},
    "mca-split": {**BUSY, "array_size": "5x30"},
    "mca-several-devices": {**BUSY, "devices_per_weight": "3"},
    "mca-wear": {**BUSY, "wear": True, "endurance": 2},
    "mca-momentum": {**BUSY, "base_optimizer": "momentum", "lr": 0.1},
    "mca-adam": {"rule": "mca", "base_optimizer": "adam", "lr": 0.01},
    "mca-step-device": {"rule": "mca", **STEP_DEVICE},
    "rpu": {"rule": "rpu", **STEP_DEVICE},
    "rpu-pair": {"rule": "rpu", "refresh_every": 3},
    "rpu-sums": {"rule": "rpu", "refresh_every": 3, "sequential": "off"},
}
Same = Callable[[Path, Path], bool]


def chips(out: str, number: int = 3, **options: Any) -> dict[str, Any]:
    return train_chips(TrainConfig(out=out, chips=number, **{**TINY, **options}), COMMAND)


def alone(out: str, chip: int, **options: Any) -> Path:
    """Make the run that chip ``chip`` of 3 is: all have the seed 0."""
    train(TrainConfig(out=out, device_seed=chip, **{**TINY, **options}), COMMAND)
    return Path(out)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of chips of the groups that steps are made for."""
    sizes: list[int] = []
    real = lockstep.stepper

    def counting(runs: Any) -> lockstep.Stepper:
        sizes.append(len(runs))
        return real(runs)

    monkeypatch.setattr(lockstep, "stepper", counting)
    return sizes


@pytest.mark.parametrize("name", CASES)
def test_each_chip_is_the_single_run(name: str, same: Same, steps: list[int]) -> None:
    chips("out", **CASES[name])
    assert steps == [3, 3]  # together, in both epochs
    for chip in range(3):
        assert same(Path(f"out/chips/{chip}"), alone(f"alone{chip}", chip, **CASES[name])), chip


def test_cases_are_busy() -> None:
    """The cases above would prove little without pulses, refreshes and outputs at their bounds."""
    result = chips("out", **CASES["mca"])
    assert result["refreshes"] > 0
    assert result["set_pulses"] > 600


def test_outputs_reach_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []
    real = Converter.__call__

    def counting(*arguments: Any) -> list[int]:
        found = real(*arguments)
        met.append(len(found))
        return found

    monkeypatch.setattr(Converter, "__call__", counting)
    chips("out", **CASES["mca-clipping"])
    assert len(met) == 2 * 7 * 3  # two layers forward and one backward, 14 steps
    assert sum(met) > 0


def test_chips_share_no_random_numbers(
    monkeypatch: pytest.MonkeyPatch, same: Same, tensors: Callable[[Path], dict[str, Tensor]]
) -> None:
    """Same seed, same images: all that differs are devices and noise, and all of it does.

    One stream for all chips would not pass the test of single runs.
    """
    chips("out", **BUSY)
    found = [tensors(Path(f"out/chips/{chip}")) for chip in range(3)]
    for name in ("exponent", "conductance_us"):
        a, b, c = (t[f"model.0.tile.synapse.devices.{name}"] for t in found)
        assert not ((a == b) & (b == c)).any()
    states = {bytes(t["model.0.tile.chance.seeds"].numpy()) for t in found}
    assert len(states) == 3

    real = together._matvec

    def shared(
        x: Any, weights: Any, variances: Any, c: Any, chances: Any, convert: Any, reads: Any
    ) -> Tensor:
        return real(x, weights, variances, c, [chances[0]] * len(chances), convert, reads)

    monkeypatch.setattr(together, "_matvec", shared)
    chips("shared", **BUSY)
    assert not same(Path("shared/chips/0"), Path("out/chips/0"))


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the run may catch it."""


class Counter:
    """Counts calls of ``inner`` and does something before one of them."""

    def __init__(self, inner: Callable[..., Any], act: Callable[[], None] | None = None) -> None:
        self.inner, self.act = inner, act or self.explode
        self.calls, self.at = 0, -1

    def set(self, at: int) -> None:
        self.calls, self.at = 0, at

    def explode(self) -> None:
        raise Killed

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            self.act()
        return self.inner(*arguments)


@pytest.mark.parametrize("often", [0.0, 1e9], ids=["every-step", "every-epoch"])
@pytest.mark.parametrize("name", ["mca", "rpu-pair"])
def test_killed_around_writes_and_resumed(
    name: str, often: float, same: Same, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the checkpoints of two chips leaves one ahead; the others catch up."""
    options = {**CASES[name], "checkpoint_every": often}
    replace = Counter(os.replace)
    monkeypatch.setattr(os, "replace", replace)
    chips("whole", **options)
    behind, total = 0, replace.calls
    for write in range(9, total, 4 if often else 16):
        replace.set(write)
        with pytest.raises(Killed):
            chips("broken", **options)
        replace.set(-1)
        steps.clear()
        chips("broken", **options, resume=True)
        behind += steps[:1] not in ([3], [])
        for chip in range(3):
            assert same(Path(f"broken/chips/{chip}"), Path(f"whole/chips/{chip}")), (write, chip)
        shutil.rmtree("broken")
    assert behind > 0


def test_a_signal_leaves_checkpoints_of_all(same: Same, monkeypatch: pytest.MonkeyPatch) -> None:
    chips("whole", **BUSY)
    loss = Counter(MLPTask.loss, lambda: os.kill(os.getpid(), signal.SIGTERM))
    loss.set(13)
    with monkeypatch.context() as patch:
        patch.setattr(MLPTask, "loss", lambda *arguments: loss(*arguments))
        said = r"interrupted after 5 steps; the checkpoint is in .*chips: go on with --resume"
        with pytest.raises(Interrupted, match=said):
            chips("broken", **BUSY)
    for chip in range(3):
        saved = json.loads(Path(f"broken/chips/{chip}/checkpoint.json").read_text())
        assert saved["progress"]["step"] == 5
    chips("broken", **BUSY, resume=True)
    for chip in range(3):
        assert same(Path(f"broken/chips/{chip}"), Path(f"whole/chips/{chip}"))


def test_seconds_are_shared() -> None:
    """The chips' own times add up to that of their steps, which no other clock exceeds."""
    body = chips("out", **BUSY)
    rows = [json.loads(Path(f"out/chips/{chip}/result.json").read_text()) for chip in range(3)]
    assert body["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert len({row["seconds"] for row in rows}) == 1


@pytest.mark.parametrize("rule", ["mca", "rpu"])
def test_what_diverges_is_named(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As alone: which step, of which chip, before any device of it is touched."""
    real = MLPTask.summed_loss

    def steep(task: MLPTask, output: Tensor, target: Tensor) -> Tensor:
        loss = real(task, output, target)
        if len(output) == 9:  # all three chips: make one gradient of the second infinite
            loss = loss + (output[4] * float("inf")).sum().clamp(max=0)
        return loss

    monkeypatch.setattr(MLPTask, "summed_loss", steep)
    said = r"step 1: gradient of layer '.*' is not finite after 0 examples.*out/chips/[01]"
    with pytest.raises(InputError, match=said):
        chips("out", rule=rule)


def test_other_tasks_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(loop._Loop, "finish", lambda self: made.append(len(self.runs)))
    monkeypatch.setattr(loop.Run, "result", lambda self: {})
    options = {"task": "cnn", "data": "digits", "train_limit": 4, "chips": 2, "epochs": 1}
    with pytest.raises(KeyError):  # there are no metrics to sum up
        train_chips(TrainConfig(out="out", **options), COMMAND)
    assert made == [1, 1]
    assert not lockstep.serves(TrainConfig(out="out", **options))


def test_what_has_its_own_end_goes_alone(same: Same, steps: list[int]) -> None:
    options = {**BUSY, "budget": "pulses", "budget_amount": 150}
    chips("out", **options)
    assert steps == []
    for chip in range(3):
        assert same(Path(f"out/chips/{chip}"), alone(f"alone{chip}", chip, **options)), chip


def test_logs_of_chips_are_those_of_their_runs(same: Same, steps: list[int]) -> None:
    chips("out", **BUSY, pulse_log=True)
    assert set(steps) == {3}
    for chip in range(3):
        one = alone(f"alone{chip}", chip, **BUSY, pulse_log=True)
        assert same(Path(f"out/chips/{chip}"), one), chip
        logs = [pq.read_table(f / "pulses").to_pandas() for f in (one, Path(f"out/chips/{chip}"))]
        assert len(logs[0]) > 20
        assert logs[0].equals(logs[1])


def test_memory_of_chips_is_aligned() -> None:
    """Products of rows at other places in a line of the cache may round in another way."""
    made = together.Matrices(3, 5, 7)
    assert made.stacked.shape == (3, 5, 7)
    for k, matrix in enumerate(made.each):
        assert matrix.data_ptr() % 64 == 0
        matrix.fill_(k)
    assert torch.equal(made.stacked[:, 0, 0], torch.tensor([0.0, 1.0, 2.0]))
    assert made.all[:, 35:].abs().sum() == 0


def test_help_says_which_are_batched(command: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = command("train", "--help")
    assert re.search(r"step by step\s+together", re.sub(r"[│\s]+", " ", out))
