"""Chips: each a run of its own devices, of a fitted device its own draw; killed and resumed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest

import devicemodels
import mcatrain.run.processes
from devicemodels.errors import InputError
from mcatrain.run.chips import train_chips
from mcatrain.run.config import TrainConfig

COMMAND = ["mcatrain", "train"]
TINY: dict[str, Any] = {"train_limit": 20, "hidden": "8", "epochs": 1, "checkpoint_every": 1e9}


def chips(out: str, **options: Any) -> dict[str, Any]:
    return train_chips(TrainConfig(out=out, **{**TINY, **options}), COMMAND)


@pytest.fixture
def fitted(tmp_path: Path) -> str:
    """A parameter file whose posterior has 20 draws of the SET steps' offset c1, far apart."""
    with h5netcdf.File(tmp_path / "mine.posterior.nc", "w") as file:
        group = file.create_group("device")
        group.dimensions = {"draw": 20}
        group.create_variable("c1", ("draw",), data=np.linspace(0.5, 1.5, 20))
    sha256 = hashlib.sha256((tmp_path / "mine.posterior.nc").read_bytes()).hexdigest()
    text = devicemodels.load("nandakumar2018").text
    link = f'\n[posterior]\nfile = "mine.posterior.nc"\nsha256 = "{sha256}"\n'
    (tmp_path / "mine.toml").write_text(text + link)
    return str(tmp_path / "mine.toml")


def test_chips_share_seeds_but_no_devices() -> None:
    body = chips("out", chips=6, seed=3)
    assert [entry["seed"] for entry in body["entries"]] == [3, 4, 3, 4, 3, 4]
    assert [entry["device_seed"] for entry in body["entries"]] == [3, 4, 5, 6, 7, 8]
    assert {entry["draw"] for entry in body["entries"]} == {None}
    accuracy = [entry["metrics"]["test_accuracy"] for entry in body["entries"]]
    assert body["metrics"]["test_accuracy"] == pytest.approx(np.mean(accuracy))
    assert body["spread"]["test_accuracy"]["sd"] == pytest.approx(np.std(accuracy, ddof=1))
    assert set(body["spread"]["test_accuracy"]["parts"]) == {"seed", "devices"}
    assert body["set_pulses"] == sum(entry["set_pulses"] for entry in body["entries"])
    pulses = {entry["set_pulses"] for entry in body["entries"]}
    assert len(pulses) > 1  # the devices differ
    assert json.loads(Path("out/result.json").read_text()) == body


def test_the_first_chip_is_the_single_run(run: Callable[..., Path]) -> None:
    body = chips("out", chips=2, seed=5)
    alone = json.loads((run("alone", epochs=1, seed=5) / "result.json").read_text())
    assert body["entries"][0]["metrics"] == alone["metrics"]
    alone = json.loads((run("other", epochs=1, seed=5, device_seed=6) / "result.json").read_text())
    assert body["entries"][1]["metrics"] == alone["metrics"]


def test_what_chips_spent_is_summed() -> None:
    """Ledger and energy, from the files of each; a budget of pulses ends every chip apart."""
    options: dict[str, Any] = {"epsilon": 0.005, "refresh_every": 4, "wear": True, "endurance": 2}
    body = chips("out", chips=3, **options)
    each = [json.loads(Path(f"out/chips/{k}/result.json").read_text()) for k in range(3)]
    total = body["ledger"]["total"]
    assert total["set_pulses"] == body["set_pulses"] > 0
    for name, value in total.items():
        assert value == sum(one["ledger"]["total"][name] for one in each), name
        assert value == sum(layer[name] for layer in body["ledger"]["layers"].values()), name
    spent, energies = body["energy"], [one["energy"] for one in each]
    totals = [one["total"] for one in energies]
    assert len(set(totals)) > 1
    assert spent["total"] == pytest.approx(sum(spent["parts"].values()))
    assert spent["total"] == pytest.approx(sum(totals))
    assert spent["per_example"] == pytest.approx(sum(totals) / 60)
    assert spent["per_epoch"] == pytest.approx(np.mean(totals))
    assert spent["ratio"] == pytest.approx(spent["digital"]["per_example"] / spent["per_example"])
    assert spent["chip"]["total"]["mean"] == pytest.approx(np.mean(totals))
    assert spent["chip"]["total"]["sd"] == pytest.approx(np.std(totals, ddof=1))
    assert [entry["energy"] for entry in body["entries"]] == energies
    assert "budget" not in body
    wear = body["ledger"]["wear"]["layers"]["0"]
    tables = [one["ledger"]["wear"]["layers"]["0"] for one in each]
    assert wear["devices"] == sum(table["devices"] for table in tables)
    assert wear["most"] == max(table["most"] for table in tables)
    for name in ("mean", "share_above"):  # layers of chips are alike in size
        assert wear[name] == pytest.approx(np.mean([table[name] for table in tables]))
    pulses = (
        body["ledger"]["layers"]["0"]["set_pulses"] + body["ledger"]["layers"]["0"]["reset_pulses"]
    )
    assert wear["mean"] * wear["devices"] == pytest.approx(pulses)

    cut = chips("cut", chips=3, budget="pulses", budget_amount=total["set_pulses"] // 6, **options)
    budget, budgets = cut["budget"], [entry["budget"] for entry in cut["entries"]]
    assert budget["used_up"]
    assert len({one["spent"] for one in budgets}) > 1
    for name in ("spent", "epochs"):
        values = [one[name] for one in budgets]
        assert budget[name] == pytest.approx(np.mean(values))
        assert budget["sd"][name] == pytest.approx(np.std(values, ddof=1))
    assert cut["examples"] == sum(entry["examples"] for entry in cut["entries"]) < 60


def test_each_row_has_its_own_draw(fitted: str) -> None:
    body = chips("out", chips=4, device_model=fitted)
    draws = [entry["draw"] for entry in body["entries"]]
    assert draws[0] == draws[1] != draws[2] == draws[3]
    assert set(body["spread"]["test_loss"]["parts"]) == {"seed", "parameters", "devices"}
    for entry in body["entries"]:
        model = devicemodels.load(f"out/draws/mine-{entry['draw']}.toml")
        assert model.device.c1 == pytest.approx(np.linspace(0.5, 1.5, 20)[entry["draw"]])  # type: ignore[attr-defined]
        assert model.device.mean_step == devicemodels.load(fitted).device.mean_step  # type: ignore[attr-defined]
        assert model.posterior is None
        own = Path("out", entry["run"], "device.toml").read_text()
        assert own == Path(f"out/draws/mine-{entry['draw']}.toml").read_text()


def test_a_group_that_is_done_is_not_trained_again(
    monkeypatch: pytest.MonkeyPatch, fitted: str
) -> None:
    whole = chips("whole", chips=4, device_model=fitted)
    monkeypatch.setattr(mcatrain.run.processes, "MOST", 2)
    real, made = mcatrain.run.processes.train_together, []

    def breaking(configs: list[TrainConfig]) -> list[dict[str, Any]]:
        if made:
            raise KeyboardInterrupt
        made.append(configs)
        return real(configs)

    with monkeypatch.context() as patch:
        patch.setattr(mcatrain.run.processes, "train_together", breaking)
        with pytest.raises(KeyboardInterrupt):
            chips("broken", chips=4, device_model=fitted)
    assert Path("broken/chips/1/result.json").exists()
    assert not Path("broken/chips/2").exists()
    resumed = chips("broken", chips=4, device_model=fitted, resume=True)
    for entry, other in zip(whole["entries"], resumed["entries"], strict=True):
        assert entry["metrics"] == other["metrics"]
    assert resumed["spread"] == whole["spread"]


@pytest.mark.parametrize(
    ("number", "jobs", "sizes"), [(16, 1, [16]), (17, 1, [9, 8]), (5, 2, [3, 2]), (40, 2, [10] * 4)]
)
def test_groups_are_even(
    monkeypatch: pytest.MonkeyPatch, number: int, jobs: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(mcatrain.run.processes, "_map", lambda make, work, jobs: work)
    runs = [TrainConfig(out=str(k)) for k in range(number)]
    made: list[Any] = mcatrain.run.processes.run_together(runs, jobs)
    assert made == runs
    monkeypatch.setattr(
        mcatrain.run.processes, "_map", lambda make, work, jobs: [[len(w)] for w in work]
    )
    assert mcatrain.run.processes.run_together(runs, jobs) == sizes


@pytest.mark.slow
def test_jobs_compute_the_same() -> None:
    one, two = chips("one", chips=4), chips("two", chips=4, jobs=2)
    assert one["entries"] == two["entries"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chips": 0}, "--chips 0: give at least 1"),
        ({"chips": 2, "rule": "fp32"}, "--chips: fp32 has no devices"),
        ({"device_seed": 2, "rule": "fp32"}, "--device-seed: fp32 has no devices"),
        ({"chips": 2, "device_seed": 2}, "--device-seed: every chip has its own"),
        ({"jobs": 2}, "--jobs 2: chips at a time: give --chips"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        TrainConfig(out="out", **options)


def test_bad_posteriors(fitted: str) -> None:
    with pytest.raises(InputError, match=r"--chips 441: takes 21 draws and .* has 20"):
        chips("out", chips=441, device_model=fitted)
    posterior = Path(fitted).with_name("mine.posterior.nc")
    content = posterior.read_bytes()
    posterior.write_bytes(content + b"x")
    with pytest.raises(InputError, match="is not the posterior that the parameter file"):
        chips("out", chips=4, device_model=fitted)
    posterior.unlink()
    with pytest.raises(InputError, match=r"mine.posterior.nc: the posterior cannot be read"):
        chips("out", chips=4, device_model=fitted)
    assert not Path("out").exists()
    text = Path(fitted).read_text()
    Path(fitted).write_text(text.replace("sha256 = ", "sum = "))
    with pytest.raises(InputError, match=r"\[posterior\] is damaged"):
        TrainConfig(out="out", device_model=fitted)


def test_report(command: Callable[..., tuple[int, str, str]], fitted: str) -> None:
    """The page and the printed lines tell the parts; an unfinished set of chips is named so."""
    options = [
        "--train-limit",
        "20",
        "--hidden",
        "8",
        "--epochs",
        "1",
        "--chips",
        "4",
        "--out",
        "out",
    ]
    code, out, _ = command("train", "--device-model", fitted, *options)
    assert code == 0
    assert "standard deviation over 4 chips" in out
    assert "parameters: what the measurements leave open" in out
    page = Path("out/report.html").read_text()
    assert "Spread over chips" in page
    assert "draw of the parameters" in page
    assert "4 of 4 chips" in page
    spent = json.loads(Path("out/result.json").read_text())["energy"]
    code, said, _ = command("energy", "out")
    assert code == 0
    for text in (page, said):
        assert f"All 4 chips together spent {1e3 * spent['total']:.4g} mJ" in text
    (row,) = [line for line in said.splitlines() if "an example [nJ]" in line][:1]
    mean, sd = (1e9 * spent["chip"]["per_example"][key] for key in ("mean", "sd"))
    assert row.split("[nJ]")[1].strip() == f"{mean:.3g} ± {sd:.2g}"
    Path("out/result.json").unlink()
    Path("out/chips/3/config.toml").unlink()
    assert command("report", "out")[0] == 0
    assert "1 of 4 chips have not begun" in Path("out/report.html").read_text()
