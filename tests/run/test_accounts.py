"""Ledger, energy, wear, log and budgets of runs: resumed exactly, or refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from markupsafe import Markup
from safetensors.torch import load_file

from devicemodels.state import derive_seed
from mcatrain import energy
from mcatrain.pulselog import replay
from mcatrain.report.energy import COLUMNS
from mcatrain.report.metrics import METRICS
from mcatrain.report.plots import Curve, Painter
from mcatrain.report.spending import spending_figures
from mcatrain.report.summary import group_runs
from mcatrain.run.accounts import Accounts
from mcatrain.run.config import TrainConfig
from mcatrain.run.records import load_results
from mcatrain.run.rules import prepare
from mcatrain.tasks import make_task
from mcatrain.tasks.mlp import MLPTask

pytestmark = pytest.mark.usefixtures("no_report")

BUSY = {"epsilon": 0.005, "refresh_every": 4}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", ["mlp", "cnn"])
def test_fp32_does_the_work_that_the_ledger_says_a_digital_design_does(
    task: str, run: Callable[..., Path]
) -> None:
    """The same network digitally and on arrays: the same products and moved words, both counted."""
    options = {
        "task": task,
        "data": "digits",
        "batch_size": 3,
        "hidden": "8" if task == "mlp" else "",
    }
    plain, mca = (run(rule, rule=rule, **options) for rule in ("fp32", "mca"))
    one, other = result(plain)["ledger"]["total"], result(mca)["ledger"]["total"]
    assert {name: other[name] for name in one} == one
    energy_of = result(plain)["energy"]
    assert energy_of["total"] == pytest.approx(result(mca)["energy"]["digital"]["total"])
    assert energy_of["ratio"] == 1


@pytest.mark.parametrize("rule", ["fp32", "mca", "rpu"])
def test_rows_and_result_agree(rule: str, run: Callable[..., Path]) -> None:
    folder = run("run", rule=rule)
    found, (first, last) = result(folder), rows(folder)
    work = found["ledger"]["total"]
    assert last == {"step": 40, "epoch": 2, "energy": last["energy"], **work}
    assert first.keys() == last.keys()
    assert last["energy"] == found["energy"]["total"] > first["energy"] > 0
    assert found["energy"]["per_example"] * 40 == pytest.approx(last["energy"])
    if rule == "fp32":
        return
    layers = found["ledger"]["layers"]
    assert set(layers) == {"0", "2"}
    for name, value in work.items():
        assert sum(layer[name] for layer in layers.values()) == value, name
    for name in ("set_pulses", "reset_pulses", "refreshes"):
        assert work[name] == found[name]
    assert work["forward_reads"] - work["forward_repeats"] == 2 * 40
    costs = energy.load("nandakumar2020")
    assert found["energy"]["parts"] == costs.training(work, bipolar=False)


@pytest.mark.parametrize(
    ("rule", "device"),
    [("fp32", "nandakumar2018"), ("mca", "nandakumar2018"), ("rpu", "gokmen2016")],
)
def test_curves_of_the_report_add_up_to_the_result(
    rule: str, device: str, run: Callable[..., Path]
) -> None:
    """The parts of all epochs are the energy of the run; the last evaluation stands at it."""
    folder = run("run", rule=rule, device_model=device, epochs=3, **BUSY)
    spent = result(folder)["energy"]
    drawn = Drawn()
    groups = group_runs(load_results(folder))
    spending_figures(drawn, groups, METRICS[0], "seed")
    (course,), parts = drawn.curves[0], drawn.curves[1]
    measured = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert course.seeds[0] == tuple(
        (row["energy"], 100 * at["test_accuracy"])
        for row, at in zip(rows(folder), measured, strict=True)
    )
    assert course.seeds[0][-1][0] == spent["total"]
    assert all(x in (1, 2, 3) for part in parts for x, _ in part.seeds[0])
    whole = sum(y for part in parts for y in part.points())
    assert whole == pytest.approx(spent["total"])
    ends = {part.label: sum(part.points()) for part in parts}
    for column, names in COLUMNS.items():
        wanted = sum(spent["parts"].get(name, 0.0) for name in names)
        assert ends.get(column, 0.0) == pytest.approx(wanted), column


class Drawn(Painter):
    """Keeps the curves that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.curves: list[Sequence[Curve]] = []

    def lines(self, curves: Sequence[Curve], *rest: Any, **options: Any) -> Markup | None:
        self.curves.append(curves)
        return super().lines(curves, *rest, **options)


class Stop(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("rule", ["fp32", "mca", "rpu"])
def test_killed_and_resumed(
    rule: str,
    run: Callable[..., Path],
    same: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counts, wear, log and budget are those of the unbroken run, wherever it broke."""
    options: dict[str, Any] = {"rule": rule, "budget": "energy", "budget_amount": 4e-8}
    if rule == "fp32":
        options["budget_amount"] = 1.2e-6
    else:
        options |= {"wear": True, "endurance": 2, "pulse_log": True, **BUSY}
    whole = run("whole", **options)
    assert result(whole)["budget"]["used_up"]
    assert 5 < result(whole)["examples"] < 40
    loss, calls = MLPTask.loss, 0

    def fuse(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            calls = 0
            raise Stop
        return loss(*arguments)

    monkeypatch.setattr(MLPTask, "loss", fuse)
    for _ in range(20):
        try:
            run("broken", **options, checkpoint_every=0.0, resume=True)
        except Stop:
            continue
        break
    assert same(Path("broken"), whole)
    if rule != "fp32":
        logs = [pq.read_table(f / "pulses").to_pandas() for f in (whole, Path("broken"))]
        assert logs[0].equals(logs[1])
        assert len(logs[0]) > 20


def test_log_of_a_run_replays(run: Callable[..., Path], same: Callable[..., bool]) -> None:
    options = {"rule": "mca", "pulse_log": True, "wear": False, **BUSY}
    folder = run("run", **options)
    assert same(folder, run("plain", **options | {"pulse_log": False}))
    config = TrainConfig(out="again", train_limit=20, hidden="8", epochs=2, **options)
    torch.manual_seed(derive_seed(config.seed, "torch"))
    model, _ = prepare(config, make_task(config, torch.device("cpu")).model())
    replay(folder / "pulses", model)
    pointer = json.loads((folder / "checkpoint.json").read_text())
    saved = load_file(folder / pointer["tensors"])
    compared = 0
    for name, value in model.state_dict().items():
        if ".devices." in name or name.endswith(("_pulses", "refreshes")):
            assert torch.equal(value, saved[f"model.{name}"]), name
            compared += 1
    assert compared == 2 * 7
    assert result(folder)["refreshes"] > 0


def test_wear_in_the_files(run: Callable[..., Path]) -> None:
    folder = run("run", rule="mca", wear=True, endurance=1, **BUSY)
    found = result(folder)["ledger"]["wear"]
    assert found["endurance"] == 1
    histograms = json.loads((folder / "histograms.json").read_text())["layers"]
    for layer, table in found["layers"].items():
        assert 0 < table["share_above"] < 1
        assert sum(histograms[layer]["set"]["counts"]) == table["devices"]
        assert table["mean"] * table["devices"] == pytest.approx(
            sum(result(folder)["ledger"]["layers"][layer][f"{k}_pulses"] for k in ("set", "reset"))
        )
    assert "wear" not in result(run("plain", rule="mca"))["ledger"]


@pytest.mark.parametrize("rule", ["mca", "rpu"])
def test_budget_of_pulses_ends_at_the_step_that_spends_it(
    rule: str, run: Callable[..., Path]
) -> None:
    whole = result(run("whole", rule=rule, epochs=3, **BUSY))
    amount = (whole["set_pulses"] + whole["reset_pulses"]) // 2
    budget: dict[str, Any] = {"budget": "pulses", "budget_amount": amount}
    folder = run("cut", rule=rule, epochs=3, **BUSY, **budget)
    cut = result(folder)
    spent = cut["set_pulses"] + cut["reset_pulses"]
    assert cut["budget"] == {
        "kind": "pulses", "amount": amount, "spent": spent, "used_up": True,
        "epochs": pytest.approx(cut["examples"] / 20),
    }  # fmt: skip
    assert amount <= spent < amount + 2 * whole["set_pulses"] // 10
    assert rows(folder)[-1]["step"] == cut["examples"] < 60
    # The step before had not spent it.
    before = {"budget": "examples", "budget_amount": cut["examples"] - 1}
    earlier = result(run("before", rule=rule, epochs=3, **BUSY, **before))
    assert earlier["examples"] == cut["examples"] - 1
    assert earlier["set_pulses"] + earlier["reset_pulses"] < amount


@pytest.mark.parametrize(
    ("rule", "device"),
    [
        ("fp32", "nandakumar2018"), ("mca", "nandakumar2018"), ("rpu", "nandakumar2018"),
        ("rpu", "gokmen2016"), ("mca", "gokmen2016"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("several", ["1", "2"])
def test_estimate_of_a_budget_is_what_is_spent(
    rule: str, device: str, several: str, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every counter has its price: reads again, chi, streams, checks, pulses and refreshes."""
    compared: list[tuple[float, float]] = []
    used_up = Accounts.used_up

    def look(self: Accounts, examples: int, steps: int) -> bool:
        compared.append((self._estimate(examples, steps), self.spent(examples, steps)))
        return used_up(self, examples, steps)

    monkeypatch.setattr(Accounts, "used_up", look)
    options = {"budget": "energy", "budget_amount": 1.0, "devices_per_weight": several}
    folder = run("run", rule=rule, device_model=device, batch_size=3, **options, **BUSY)
    assert len(compared) > 13
    assert compared[-1][1] == result(folder)["energy"]["total"] > 0
    for estimate, spent in compared:
        assert estimate == pytest.approx(spent, rel=1e-9)


def test_budget_that_is_not_spent(run: Callable[..., Path], same: Any) -> None:
    found = result(run("run", rule="mca", budget="pulses", budget_amount=1e9))
    assert not found["budget"]["used_up"]
    assert found["budget"]["epochs"] == 2
    assert found["examples"] == 40


@pytest.mark.parametrize("kind", ["energy", "pulses", "examples"])
def test_compare_at_equal_budgets(
    kind: str, flags: Callable[..., list[str]], command: Callable[..., tuple[int, str, str]]
) -> None:
    amount = {"energy": 3e-8, "pulses": 40, "examples": 13}[kind]
    rules = "mca,rpu,rpu@gokmen2016" + ("" if kind == "pulses" else ",fp32")
    options = {"rules": rules, "seeds": "0,1", "budget": kind, "budget_amount": amount}
    status, said, err = command("compare", *flags("all", **options))
    assert (status, err) == (0, "")
    entries = json.loads(Path("all/comparison.json").read_text())["entries"]
    assert len(entries) == 2 * len(rules.split(","))
    for entry in entries:
        assert entry["budget"]["used_up"], entry["rule"]
        assert entry["budget"]["spent"] >= amount
        assert entry["energy"]["total"] > 0
        spent = {"energy": entry["energy"]["total"], "pulses": entry["pulses"]}.get(kind, amount)
        assert entry["budget"]["spent"] == spent
    assert said.count("epochs") >= len(entries)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": "pulses"}, ("--budget pulses", "--budget-amount")),
        ({"budget": "energy"}, ("--budget energy", "joules")),
        ({"budget": "pulses", "budget_amount": 0}, ("--budget-amount 0", "positive")),
        ({"budget_amount": "nan"}, ("--budget-amount", "positive")),
        ({"budget": "pulses", "budget_amount": 9, "rule": "fp32"}, ("fp32", "no pulses")),
        ({"budget": "time", "budget_amount": 9}, ("time", "examples")),
        ({"endurance": 5}, ("--endurance", "--wear")),
        ({"energy_model": "nandakumar2200"}, ("nandakumar2200", "nandakumar2020")),
        ({"energy_model": "none.toml"}, ("none.toml", "cannot read")),
    ],
)
def test_refused(
    options: dict[str, Any],
    words: tuple[str, ...],
    flags: Callable[..., list[str]],
    refused: Callable[..., str],
) -> None:
    said = refused("train", *flags("run", **options))
    for word in words:
        assert word in said


def test_compare_refuses_pulses_for_fp32(
    flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    options = {"rules": "mca,fp32", "budget": "pulses", "budget_amount": 100}
    said = refused("compare", *flags("all", **options))
    assert "fp32 sends no pulses" in said
    assert "--budget energy" in said


@pytest.mark.parametrize("option", ["--wear", "--pulse-log"])
def test_fp32_has_no_devices(
    option: str, flags: Callable[..., list[str]], refused: Callable[..., str]
) -> None:
    said = refused("train", *flags("run", rule="fp32"), option)
    assert option in said
    assert "no devices" in said
