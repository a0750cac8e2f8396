"""The report: what it states, that it stands alone, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import devicemodels
from devicemodels import InputError
from mcatrain.report import build_report
from mcatrain.report.plots import Curve, Painter, rule_colour
from mcatrain.report.response import set_response, up_down_response

PCM, STEP = "nandakumar2018", "gokmen2016"
FOUR = (("fp32", PCM), ("mca", PCM), ("rpu", PCM), ("rpu", STEP))


#: Builds the report of a folder, checks what holds for every one, and returns it parsed.
Report = Callable[[Path], Any]


@pytest.fixture
def compared(make_comparison: Any, report: Report) -> tuple[Path, Any]:
    folder = make_comparison(FOUR, (0, 1))
    return folder, report(folder)


def test_comparison_states_every_number(compared: tuple[Path, Any]) -> None:
    folder, page = compared
    entries = json.loads((folder / "comparison.json").read_text())["entries"]
    accuracy: dict[Any, list[float]] = {}
    for entry in entries:
        key = entry["rule"], entry["device_model"]
        accuracy.setdefault(key, []).append(100 * entry["metrics"]["test_accuracy"])
    mean = {key: sum(both) / 2 for key, both in accuracy.items()}
    names = {
        "float32": ("fp32", None), "MCA on nandakumar2018": ("mca", PCM),
        "RPU on nandakumar2018": ("rpu", PCM), "RPU on gokmen2016": ("rpu", STEP),
    }  # fmt: skip
    head = page.tables["summary"][0]
    assert head[:4] == ["rule", "seeds", "test accuracy [%]", "test error [%]"]
    for name, key in names.items():
        row = page.row("summary", name)
        sd = abs(accuracy[key][0] - accuracy[key][1]) / 2**0.5
        assert row[1:3] == ["2", f"{mean[key]:.2f} ± {sd:.2f}"]
        assert float(row[3]) == pytest.approx(100 - mean[key], abs=0.006)
        if key[0] != "fp32":
            gap = float(row[4].replace("−", "-"))
            assert gap == pytest.approx(mean[key] - mean["fp32", None], abs=0.006)
    pulses = [e["pulses"] / 7500 for e in entries if e["rule"] == "mca"]
    assert float(page.row("summary", "MCA on nandakumar2018")[7]) == pytest.approx(
        sum(pulses) / 2, rel=0.005
    )
    gap = mean["mca", PCM] - mean["rpu", PCM]
    assert f"On the same PCM pair ({PCM}) RPU is {gap:.1f} points below MCA" in page.text
    gap = mean["fp32", None] - mean["rpu", STEP]
    assert f"RPU on gokmen2016 is {gap:.1f} points below float32" in page.text


def test_comparison_shows_pictures_devices_and_command(compared: tuple[Path, Any]) -> None:
    _, page = compared
    for title in (
        "Test accuracy by epoch", "Test loss by epoch", "Train loss by epoch", "Pulses per epoch",
        "Refreshes per epoch", "Conductances G+ and G−", "Weights", "Accumulated changes χ",
        "SET response", "Up and down response",
    ):  # fmt: skip
        assert title + "." in page.text, title
    # 6 by epoch; 2 devices; of each of 2 seeds histograms of 2 layers (fp32 1, mca 3, rpu 2 and
    # 2 kinds) and small curves (quality and loss; pulses, refreshes of those that have them)
    assert len(page.alts) == 6 + 2 + 2 * (2 * (1 + 3 + 2 + 2) + (2 + 4 + 4 + 3))
    assert "nandakumar2018 (used by MCA, RPU)" in page.text
    assert "Front. Neurosci. 10:333 (2016), RPU baseline" in page.text
    assert page.row("parameters", "beta")[4] == "recalled"
    assert "mcatrain compare --task mlp --seeds 0,1" in page.text
    assert page.row("options", "hidden") == ["hidden", "250"]
    assert page.row("options", "device_model")[1:] == ["—", PCM, PCM, STEP]
    assert page.row("options", "rule") == ["rule", "fp32", "mca", "rpu", "rpu"]


def test_one_seed_has_no_spread_and_unshared_devices_no_sentence(
    make_comparison: Any, report: Report
) -> None:
    page = report(make_comparison((("fp32", PCM), ("mca", PCM)), (3,)))
    assert "±" not in page.row("summary", "float32")[2]
    assert "On the same" not in page.text
    assert "MCA on nandakumar2018 is" in page.text


def test_remarks_name_rule_and_seed(make_comparison: Any, report: Report) -> None:
    folder = make_comparison((("mca", PCM),), (0, 1), remarks=("Collapsed without refresh.",))
    assert "MCA on nandakumar2018, seeds 0, 1: Collapsed without refresh." in report(folder).text


def test_single_pcm_run(make_run: Any, report: Report) -> None:
    folder = make_run("mca", remarks=("Training collapsed <without> refresh.",))
    page = report(folder)
    accuracy = json.loads((folder / "result.json").read_text())["metrics"]["test_accuracy"]
    assert page.row("summary", "MCA on nandakumar2018")[2] == f"{100 * accuracy:.2f}"
    assert "Training collapsed <without> refresh." in page.text
    assert "mcatrain train --task mlp --rule mca --seed 0 --out 'runs/<x> & y'" in page.text
    model = devicemodels.load(PCM)
    assert model.publication in page.text
    for quantity in model.quantities:
        row = page.row("parameters", quantity.name)
        assert float(row[1].replace("−", "-")) == quantity.value
        assert row[4] == quantity.status
        assert row[5].replace("µ", "u") == quantity.source
    unsure = sum(q.status in ("recalled", "assumed") for q in model.quantities)
    assert f"{unsure} of {len(model.quantities)} values" in page.text


@pytest.mark.parametrize("form", [["drift", "write-noise"], "drift,write-noise"])
def test_switched_off_values_are_marked(make_run: Any, form: Any, report: Report) -> None:
    folder = make_run("mca", without=("drift", "write-noise"))
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(
        re.sub("without = .*", f"without = {json.dumps(form)}", config)
    )
    page = report(folder)
    assert page.row("parameters", "nu_mean")[1] == "0.04 → 0 in this run"
    assert page.row("parameters", "m1")[1] == "−0.084"
    assert "Switched off: drift, write-noise." in page.text


def test_float32_run_has_no_device(make_run: Any, report: Report) -> None:
    page = report(make_run("fp32"))
    assert page.row("summary", "float32")[-3:-1] == ["—", "—"]
    assert "Devices" not in page.text
    assert "Pulses per epoch" not in page.text
    assert "Weights." in page.text


def test_bipolar_run(make_run: Any, report: Report) -> None:
    page = report(make_run("rpu", STEP))
    assert "Device states w." in page.text
    assert "900 up pulses" in page.text
    assert "Refreshes per epoch" not in page.text


def test_unfinished_run_shows_what_there_is(make_run: Any, report: Report) -> None:
    folder = make_run("mca", finished=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4500, "epo')  # killed while writing
    page = report(folder)
    assert "has not finished" in page.text
    assert "ends at epoch 2 of 5" in page.text
    assert "recorded when the run finishes" in page.text
    assert "SET response" in page.text


def test_run_without_any_evaluation(make_run: Any, report: Report) -> None:
    folder = make_run("mca", finished=False)
    (folder / "metrics.jsonl").unlink()
    assert "no evaluation to show yet" in report(folder).text


def test_diverged_run_is_named_and_shows_no_nan(make_run: Any, report: Report) -> None:
    folder = make_run("mca")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9000, "epoch": 6, "train_loss": NaN, "test_loss": Infinity}\n')
    result = json.loads((folder / "result.json").read_text())
    result["metrics"]["test_loss"] = float("nan")
    (folder / "result.json").write_text(json.dumps(result))
    page = report(folder)
    assert "this training diverged" in page.text
    assert "—" in page.row("summary", "MCA on nandakumar2018")


def test_same_files_give_the_same_page(make_run: Any) -> None:
    folder = make_run("mca")
    first = build_report(folder).read_bytes()
    assert build_report(folder).read_bytes() == first


def test_devices_in_files_of_one_name_stay_apart(make_comparison: Any, report: Report) -> None:
    folder = make_comparison((("mca", PCM), ("rpu", PCM)), (0,))
    for rule, place in (("mca", "a/fit.toml"), ("rpu", "b/fit.toml")):
        path = folder / f"runs/{rule}-{PCM}-0/config.toml"
        path.write_text(path.read_text().replace(f'"{PCM}"', f'"{place}"'))
    page = report(folder)
    assert page.row("summary", "MCA on a/fit.toml")
    assert "On the same" not in page.text


def _broken(folder: Path, name: str, text: str | None) -> str:
    """Break one file and return the message of the refusal, one line."""
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    with pytest.raises(InputError) as error:
        build_report(folder)
    assert "\n" not in str(error.value)
    assert not (folder / "report.html").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("config.toml", None, "neither config.toml nor comparison.json"),
        ("config.toml", "rule = ", "not valid TOML"),
        ("config.toml", "seed = 1", "rule is missing"),
        ("metrics.jsonl", None, "the file is missing"),
        ("metrics.jsonl", '{"epoch": 1}\n{"epo\n{"epoch": 3}\n', "line 2 is not valid JSON"),
        ("metrics.jsonl", '{"step": 1}\n', "line 1 has no epoch"),
        ("result.json", "{", "not valid JSON (line 1"),
        ("result.json", "[]", "not a JSON object"),
        ("device.toml", None, "the file is missing"),
        ("samples.png", "no picture", "not a whole PNG"),
        ("device.toml", "x = 1", "device_type is missing"),
        ("histograms.json", "{}", "not a JSON object"),
        (
            "histograms.json",
            '{"layers": {"h": {"G+": {"edges": [0, 1], "counts": [1, 2]}}}}',
            "G+ of layer 'h' is not a histogram",
        ),
    ],
)
def test_broken_files_are_refused(make_run: Any, name: str, text: str | None, says: str) -> None:
    folder = make_run("mca")
    message = _broken(folder, name, text)
    assert says in message
    assert str(folder) in message


def test_broken_comparisons_are_refused(make_comparison: Any, tmp_path: Path) -> None:
    folder = make_comparison((("mca", PCM),), (0,))
    (folder / f"runs/mca-{PCM}-0").rename(folder / "runs/elsewhere")
    table = (folder / "comparison.json").read_text()
    assert "config.toml: the file is missing" in _broken(folder, "comparison.json", table)
    assert "lists no entries" in _broken(folder, "comparison.json", '{"entries": []}')
    assert "names no run" in _broken(folder, "comparison.json", '{"entries": [{"rule": "mca"}]}')
    with pytest.raises(InputError, match="no such folder"):
        build_report(tmp_path / "nothing")


def test_set_response_is_the_published_one() -> None:
    """Means of 4,000 devices against an independent Monte Carlo with the clip at 12 µS.

    Pulse 20 there is 8.91 ± 1.97 µS, so the mean here has a standard error of 0.031 µS; a false
    alarm at 0.15 µS (over 4 standard errors) has a probability below 1e-5.
    """
    model = devicemodels.load(PCM)
    response = set_response(model.device)  # type: ignore[arg-type]
    assert response.pulse.tolist() == list(range(21))
    assert response.values[20].mean() == pytest.approx(8.91, abs=0.15)
    assert response.values[20].std() == pytest.approx(1.97, abs=0.15)
    quiet = set_response(model.without("write-noise").device)  # type: ignore[arg-type]
    assert quiet.values[20].std() < 1e-5


def test_up_down_response_returns_and_stays_in_bounds() -> None:
    ideal = up_down_response(devicemodels.load("ideal"))
    assert ideal.values[20].max() == pytest.approx(0.02)
    assert abs(ideal.values[-1]).max() < 1e-6
    step = up_down_response(devicemodels.load(STEP))
    top = step.values.mean(axis=1).argmax()
    assert step.pulse[top] == pytest.approx(900, abs=20)


def test_pictures_follow_the_scheme_and_keep_one_colour_a_rule() -> None:
    curve = Curve("MCA", rule_colour("mca"), (((1.0, 0.0), (2.0, 900.0)), ((1.0, 3.0),)))
    picture = Painter().lines([curve], "pulses per epoch", 'with "quotes" & <tags>', axis="counts")
    assert picture is not None
    assert "var(--mca)" in picture
    assert not re.search(r"#[0-9a-f]{6}", picture), "a colour that no scheme can change"
    assert 'aria-label="with &#34;quotes&#34; &amp; &lt;tags&gt;"' in picture
    assert len({rule_colour(rule) for rule in ("fp32", "mca", "rpu")}) == 3
    assert Painter().lines([Curve("empty", "#000000", ())], "y", "none") is None


def test_every_run_has_its_own_page_and_numbers(compared: tuple[Path, Any]) -> None:
    folder, page = compared
    entries = json.loads((folder / "comparison.json").read_text())["entries"]
    names = [row[0].strip() for row in page.tables["runs"][1:]]
    assert len(names) == len(entries) == 8
    for entry in entries:
        name = {"fp32": "float32", "mca": "MCA", "rpu": "RPU"}[entry["rule"]]
        name += f" on {entry['device_model']}" if entry["device_model"] else ""
        row = page.row("runs", f"{name}, seed {entry['seed']}")
        assert row[1] == f"{100 * entry['metrics']['test_accuracy']:.2f}"
        pulses = [f"{entry[key]:,}" for key in ("set_pulses", "reset_pulses")]
        assert row[5:7] == (["—", "—"] if entry["rule"] == "fp32" else pulses)
    ids = [name for name in page.ids if name.startswith("run-")]
    assert "run-mca-on-nandakumar2018-seed-1" in ids
    assert [f"#{name}" in page.references for name in ids] == [True] * 8
    devices = {"#device-1", "#device-2"}
    assert devices <= set(page.references)
    assert page.tables["own"].count(["seed", "1"]) == 4


def test_a_single_run_is_one_page_with_its_ledger(make_run: Any, report: Report) -> None:
    folder = make_run("mca")
    path = folder / "result.json"
    layer = {"weights": 10, "devices": 20, "forward_reads": 1500, "forward_adc": 7,
             "backward_adc": 5, "slots": 0, "set_pulses": 1234, "chi_entries": 3}  # fmt: skip
    layers = {"hidden": layer, "output": layer | {"set_pulses": 1}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ledger": {"layers": layers}}))
    page = report(folder)
    assert not [name for name in page.ids if name.startswith("run-")]
    head = page.tables["ledger"][0]
    hidden, both = (page.row("ledger", name) for name in ("hidden", "all layers"))
    cells = dict(zip(head, zip(hidden, both, strict=True), strict=True))
    assert cells["ADC conversions"] == ("12", "24")
    assert cells["SET or up pulses"] == ("1,234", "1,235")
    assert "slots of bit streams" not in cells
    assert "refreshes" not in cells


def test_a_large_comparison_stays_small(make_comparison: Any, report: Report) -> None:
    """Twelve runs of six layers, each with a sheet."""
    layers = dict.fromkeys([f"generator.{k}" for k in range(6)], 30_000)
    gan = {"task": "gan", "data": "mnist"}
    page = report(
        make_comparison(
            FOUR, (0, 1, 2), layers=layers, options=gan, images=True, sheet_bytes=60_000
        )
    )  # sheets as large as those of MNIST are
    assert len(page.images) == 12
    assert len(page.alts) > 12 * 6
    assert page.size < 3e6


def test_of_many_runs_the_first_of_each_rule_have_pictures(
    make_comparison: Any, report: Report
) -> None:
    page = report(make_comparison((("fp32", PCM), ("mca", PCM)), tuple(range(40))))
    assert page.size < 3e6
    for name in ("float32", "MCA on nandakumar2018"):
        drawn = {k for k in range(40) if any(f"{name}, seed {k}:" in alt for alt in page.alts)}
        assert drawn == set(range(12))
    assert page.text.count("Pictures and options are those of the first runs") == 80 - 24
    assert len([name for name in page.ids if name.startswith("run-")]) == 80
