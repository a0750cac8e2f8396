"""mcatrain fit: the files it leaves, what it trains on, and one line for a user's mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import devicemodels
from calibration import command
from calibration.fit import Posterior
from calibration.measurements import table, write
from calibration.synthetic import measure
from mcatrain.cli import main

OPTIONS = ["--model", "set-response", "--steps", "40", "--draws", "100", "--compare", "none"]


@pytest.fixture
def desk(empty_desk: None, tmp_path: Path) -> Path:
    write(measure(devicemodels.load("nandakumar2018"), 30, 8), tmp_path / "reads.csv")
    return tmp_path


def test_from_table_to_training(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import arviz

    assert main(["fit", "reads.csv", "--out", "mine.toml", *OPTIONS]) == 0
    said = capsys.readouterr().out
    assert "parameters: mine.toml" in said
    model = devicemodels.load("mine.toml")
    stated = {q.name: q for q in model.quantities}
    assert stated["m1"].status == "fitted"
    assert stated["nu_mean"].source.startswith("not measured here: as nandakumar2018")
    assert stated["c1"].source.count("sha256") == 1
    assert 0.3 < stated["c1"].value < 2
    assert 0.4 < stated["mean_step"].value < 1.2
    draws = arviz.from_netcdf(str(desk / "mine.posterior.nc"))
    assert draws.posterior["m1"].shape == (1, 100)
    assert float(draws.posterior["m1"].mean()) == pytest.approx(stated["m1"].value, rel=1e-6)
    assert draws.posterior.attrs["command"].startswith("mcatrain fit reads.csv")
    page = (desk / "mine.report.html").read_text()
    assert page.count("data:image/png;base64") == 5
    assert "Not asked for: --compare auto or all." in page
    assert '<th scope="row">A1</th>' in page
    assert "<td>µS</td>" in page
    assert "://" not in page
    train = ["train", "--rule", "mca", "--data", "digits", "--device-model", "mine.toml"]
    assert main([*train, "--train-limit", "20", "--epochs", "1", "--out", "run"]) == 0
    assert json.loads((desk / "run" / "result.json").read_text())["device"] == "mine.toml"
    assert not list(desk.glob("*.part"))


def test_a_fit_that_has_not_converged(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner: Callable[..., Posterior] = command.fit

    def stray(*arguments: object, **options: object) -> Posterior:
        found = inner(*arguments, **options)
        return Posterior(found.method, found.draws, ("the mode was not found",))

    monkeypatch.setattr(command, "fit", stray)
    assert main(["fit", "reads.csv", "--out", "mine.toml", *OPTIONS]) == 1
    assert "not converged: the mode was not found" in capsys.readouterr().err
    assert not (desk / "mine.toml").exists()
    assert "Not converged." in (desk / "mine.report.html").read_text()
    assert main(["fit", "reads.csv", "--out", "mine.toml", *OPTIONS, "--force"]) == 0
    assert (desk / "mine.toml").exists()


def alone(devices: int, times: list[float]) -> pd.DataFrame:
    """Return reads of programmed devices that nothing disturbs."""
    chance, n = np.random.default_rng(0), len(times)
    level = chance.uniform(5, 20, (devices, 1)) * (np.array(times) + 1) ** -0.05
    return pd.DataFrame(
        {
            "device": np.repeat(np.arange(devices), n),
            "step": np.tile(np.arange(n), devices),
            "pulse": np.tile(["set", *["read"] * (n - 1)], devices),
            "time_s": np.tile(times, devices),
            "conductance_us": (level * (1 + 0.01 * chance.normal(size=level.shape))).ravel(),
        }
    )


@pytest.mark.parametrize(
    ("model", "device_type", "fitted"),
    [
        ("drift", "pcm", {"nu_mean", "nu_std"}),
        ("read-noise", "pcm", {"m3", "c3"}),
        ("relaxation", "", set()),
        ("step-response --response linear", "linear-step", {"dw_min", "dw_min_std", "up_down"}),
    ],
)
def test_every_model_leaves_its_file(
    model: str, device_type: str, fitted: set[str], desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if model.startswith("step"):
        write(measure(devicemodels.load("softbounds"), 6, 15), desk / "m.csv")
    else:
        write(table(alone(15, [0.0, 40.0, 100.0, 1e3, 1e4]), "alone"), desk / "m.csv")
    options = ["--steps", "20", "--draws", "50", "--out", "m.toml", "--compare", "none", "--model"]
    options += model.split()
    assert main(["fit", "m.csv", *options]) == 0
    assert (desk / "m.posterior.nc").exists()
    assert (desk / "m.report.html").exists()
    if not device_type:
        assert "no device model holds the constants of relaxation" in capsys.readouterr().out
        assert not (desk / "m.toml").exists()
        return
    found = devicemodels.load("m.toml")
    assert found.device_type == device_type
    stated = {q.name for q in found.quantities if q.status == "fitted"}
    assert fitted <= stated


def test_rivals_are_compared(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drift and relaxation of 15 devices: a line each, the best first, and the report's table."""
    write(table(alone(15, [0.0, 40.0, 100.0, 1e3, 1e4]), "alone"), desk / "m.csv")
    options = ["--steps", "40", "--draws", "200", "--out", "m.toml", "--model", "drift"]
    assert main(["fit", "m.csv", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(k for k, line in enumerate(lines) if line.startswith("compared on 60 reads"))
    order = [line.split("  ")[0].strip() for line in lines[begin + 1 : begin + 4]]
    assert set(order) == {"drift", "relaxation", "mean curve"}
    scores = [float(line.split(" +- ")[0].split()[-1]) for line in lines[begin + 1 : begin + 4]]
    assert scores == sorted(scores, reverse=True)
    page = (desk / "m.report.html").read_text()
    rows = page.split("<h2>Models compared</h2>")[1].split("</table>")[0]
    places = [rows.index(f'<th scope="row">{name}</th>') for name in order]
    assert places == sorted(places)
    assert "Pareto k up to" in rows
    assert "What the priors alone would give" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: measurements"),
        (["reads.csv", "--model", "set-respons", "--out", "a.toml"], "did you mean 'set-response'"),
        (["none.csv", "--model", "set-response", "--out", "a.toml"], "none.csv: cannot read"),
        (["reads.csv", "--model", "set-response", "--out", "a.txt"], "PARAMS.toml"),
        (["reads.csv", "--model", "set-response", "--out", "no/a.toml"], "no folder no"),
        (["reads.csv", *OPTIONS, "--out", "a.toml", "--method", "mcmc"], "known: nuts, svi"),
        (["reads.csv", *OPTIONS, "--out", "a.toml", "--draws", "1"], "--draws 1: give at least 10"),
        (["reads.csv", *OPTIONS, "--out", "a.toml", "--seed", "x"], "--seed"),
        (["reads.csv", *OPTIONS, "--out", "a.toml", "--response", "linear"], "no such option"),
        (["reads.csv", *OPTIONS, "--out", "a.toml", "--base", "gokmen2016"], "give a pcm file"),
        (["reads.csv", "--model", "drift", "--out", "a.toml"], "time_s"),
        (["reads.csv", *OPTIONS[:-1], "set-respons", "--out", "a.toml"], "did you mean 'set-"),
        (["reads.csv", *OPTIONS[:-1], "drift", "--out", "a.toml"], "drift: describes other reads"),
        (["reads.csv", *OPTIONS[:-1], "step-response:linear", "--out", "a.toml"], "knows up, down"),
    ],
)
def test_mistakes(
    desk: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(desk.iterdir())
    assert main(["fit", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert sorted(desk.iterdir()) == before
