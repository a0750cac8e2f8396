"""Reports of the tasks cnn, lstm and gan, and of devices that a run changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devicemodels import InputError
from mcatrain.report import build_report
from mcatrain.report.plots import Painter

PCM, STEP = "nandakumar2018", "gokmen2016"
TWO = (("fp32", PCM), ("mca", PCM))
#: Builds the report of a folder, checks what holds for every one, and returns it parsed.
Report = Callable[[Path], Any]

LSTM = {
    "task": "lstm", "data": "ptb", "loss": "cross-entropy", "batch_size": 32, "sequence": 100,
    "array_size": "", "devices_per_weight": "1", "hidden": "64,64",
}  # fmt: skip
GAN = {**LSTM, "task": "gan", "data": "mnist", "batch_size": 100, "hidden": "512,256"}


def set_option(folder: Path, **options: Any) -> None:
    path = folder / "config.toml"
    lines = [x for x in path.read_text().splitlines() if x.split(" = ")[0] not in options]
    lines += [f"{key} = {json.dumps(value)}" for key, value in options.items() if value is not None]
    path.write_text("\n".join(lines) + "\n")


def test_bits_head_the_report_with_nats_beside(make_comparison: Any, report: Report) -> None:
    folder = make_comparison(TWO, (0,), options=LSTM)
    path = folder / "comparison.json"
    table = json.loads(path.read_text())
    for entry, bits in zip(table["entries"], (1.25, 1.31), strict=True):
        entry["metrics"] = {"bits_per_character": bits, "test_loss": bits * 0.69}
    path.write_text(json.dumps(table))
    page = report(folder)
    head = page.tables["summary"][0]
    assert head[2:6] == [
        "bits per character [bits]", "difference to float32 [bits]", "difference to best [bits]",
        "test loss [nats per character]",
    ]  # fmt: skip
    row = page.row("summary", "MCA on nandakumar2018")
    assert row[2:6] == ["1.3100", "+0.0600", "+0.0600", f"{1.31 * 0.69:.4f}"]
    assert "is 0.0600 bits above float32 (1.3100 against 1.2500 bits)" in page.text
    assert "divided by ln 2: lower is better" in page.text
    assert "Bits per character by epoch. Bits per character [bits] on the test set" in page.text
    assert "Test loss by epoch. Loss [nats per character] on the test set; lower" in page.text
    assert "Test error" not in page.text
    assert "LSTM on ptb" in page.text or "LSTM on digits" in page.text


def test_frechet_distance_heads_the_report(make_comparison: Any, report: Report) -> None:
    page = report(make_comparison(TWO, (0,), options=GAN))
    head = page.tables["summary"][0]
    assert head[2] == "Fréchet distance [feature units²]"
    assert head[5] == "test discriminator loss [nats]"
    float32, mca = (page.row("summary", n) for n in ("float32", "MCA on nandakumar2018"))
    gap = float(mca[2]) - float(float32[2])
    side = "above" if gap > 0 else "below"
    assert (
        f"MCA on nandakumar2018 is {abs(gap):.2f} {side} float32 in Fréchet distance "
        f"({mca[2]} against {float32[2]} feature units²)." in page.text
    )
    assert "Fréchet distance by epoch." in page.text
    for part in ("Test", "Train"):
        assert f"{part} discriminator loss by epoch. Discriminator loss [nats] on" in page.text
    assert "neither high nor low is better" in page.text
    assert "0 would be the same distribution" in page.text


def test_facts_are_those_that_apply(make_run: Any, report: Report) -> None:
    folder = make_run("mca", options=LSTM)
    set_option(folder, array_size="128x128", devices_per_weight="lstm.0=4", dropout=0.25)
    facts = "task lstm · data ptb · 5 epochs · batch size 32 · sequences of 100 characters · "
    facts += "dropout 0.25 · lr 0.4 · arrays of at most 128x128 · devices per weight lstm.0=4"
    assert facts in report(folder).text
    set_option(folder, array_size="", devices_per_weight="1", dropout=None)
    text = report(folder).text
    text = text[: text.index("pulses per example")]
    for word in ("dropout", "arrays of", "devices per weight"):
        assert word not in text
    set_option(folder, task="gan")
    text = report(folder).text
    assert "task gan · data ptb · 5 epochs · batch size 32 · lr 0.4 · seed 0" in text


def test_learning_rates_that_differ_are_all_named(make_comparison: Any, report: Report) -> None:
    folder = make_comparison(TWO, (0,))
    set_option(folder / f"runs/mca-{PCM}-0", lr=0.02)
    assert "lr 0.4 or 0.02" in report(folder).text


# --- what models make ------------------------------------------------------------------------


def test_generated_images_stand_side_by_side(make_comparison: Any, report: Report) -> None:
    folder = make_comparison((*TWO, ("rpu", STEP)), (0, 3), options=GAN, images=True)
    page = report(folder)
    names = ["float32", "MCA on nandakumar2018", "RPU on gokmen2016"]
    wanted = [f"Generated images of {name}, seed {seed}" for seed in (0, 3) for name in names]
    assert list(page.images) == wanted
    for (rule, device), name in zip((*TWO, ("rpu", STEP)), names, strict=True):
        for seed in (0, 3):
            written = (folder / f"runs/{rule}-{device}-{seed}/samples.png").read_bytes()
            head, body = page.images[f"Generated images of {name}, seed {seed}"].split(",")
            assert head == "data:image/png;base64"
            assert base64.b64decode(body) == written
    for seed in (0, 3):
        assert f"at the last evaluation, seed {seed}, not a selection; every rule" in page.text


def test_single_run_shows_its_images(make_run: Any, report: Report) -> None:
    page = report(make_run("mca", options=GAN, images=True))
    assert list(page.images) == ["Generated images of MCA on nandakumar2018, seed 0"]
    assert "not a selection." in page.text


def test_text_is_shown_as_it_is(make_comparison: Any, report: Report) -> None:
    written = "the <unk> & 'N'\n  </pre><b>bold</b>\n"
    page = report(make_comparison(TWO, (0, 1), options=LSTM, written=written))
    assert "Written by the model" in page.text
    assert page.words.count(written) == 4
    assert "<unk>" not in page.source
    assert "MCA on nandakumar2018, seed 1" in page.text


def test_nothing_made_is_not_mentioned(make_run: Any, report: Report) -> None:
    page = report(make_run("mca"))
    assert "What the trained" not in page.text
    assert "Generated" not in page.text
    assert "Written by" not in page.text


# --- devices and layers ----------------------------------------------------------------------


def test_changed_constants_are_marked(make_run: Any, report: Report) -> None:
    folder = make_run("mca", without=("drift",))
    set_option(folder, vary="c1=0.9,m1=-0.05")
    page = report(folder)
    assert page.row("parameters", "c1")[1] == "0.88 → 0.9 in this run"
    assert page.row("parameters", "m1")[1] == "−0.084 → −0.05 in this run"
    assert page.row("parameters", "nu_mean")[1] == "0.04 → 0 in this run"
    assert page.row("parameters", "c3")[1] != "→"
    assert "Changed: c1 = 0.9, m1 = −0.05." in page.text
    assert "Switched off: drift." in page.text


def test_devices_are_told_apart_by_their_changes(make_comparison: Any, report: Report) -> None:
    folder = make_comparison((("mca", PCM), ("rpu", PCM)), (0,))
    assert "nandakumar2018 (used by MCA, RPU)" in report(folder).text
    set_option(folder / f"runs/rpu-{PCM}-0", vary="c1=0.9")
    text = report(folder).text
    assert "nandakumar2018 (used by MCA)" in text
    assert "nandakumar2018 (used by RPU)" in text


@pytest.mark.parametrize(
    ("beta", "shown"),
    [("file", ""), ("12.5", " → 12.5 in this run"), ("3.5sd", " → one a layer in this run")],
)
def test_beta_is_that_of_the_run(beta: str, shown: str, make_run: Any, report: Report) -> None:
    folder = make_run("mca")
    set_option(folder, beta=beta)
    page = report(folder)
    assert page.row("parameters", "beta")[1].endswith(shown or page.row("parameters", "beta")[1])
    assert ("→" in page.row("parameters", "beta")[1]) == bool(shown)
    assert ("By layer:" in page.text) == (beta == "3.5sd")


def test_changes_that_cannot_be_are_refused(make_run: Any) -> None:
    folder = make_run("mca")
    for vary in ("c1", "c9=1", "nu_mean=-1"):
        set_option(folder, vary=vary)
        with pytest.raises(InputError, match=r"config\.toml: vary: "):
            build_report(folder)


def test_many_layers_get_the_width_of_the_page(make_run: Any, report: Report) -> None:
    layers = dict.fromkeys(("conv1a", "conv1b", "conv2a", "fc1"), 300)
    page = report(make_run("mca", layers=layers))
    assert page.figures.count("row wide") == 3  # conductances, weights, chi
    assert "row" not in page.figures
    for layer in layers:
        assert any(f"Weights of layer {layer}, MCA" in alt for alt in page.alts)


def test_few_layers_stand_in_columns(make_run: Any, report: Report) -> None:
    page = report(make_run("mca"))
    assert page.figures.count("row") == 3
    assert "row wide" not in page.figures


def test_chi_is_marked_at_the_pulse_of_its_own_layer(
    make_run: Any, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With beta by layer, or pulses shared by several devices, one epsilon would be wrong."""
    folder = make_run("mca")
    path = folder / "histograms.json"
    body = json.loads(path.read_text())
    body["pulse"] = {"hidden": 0.02, "output": 0.07}
    path.write_text(json.dumps(body))
    marks: dict[str, list[float]] = {}
    inner = Painter.histogram

    def histogram(painter: Painter, series: Any, title: str, *rest: Any) -> Any:
        if series[0][0] == "χ":
            marks[title] = list(rest[-1])
        return inner(painter, series, title, *rest)

    monkeypatch.setattr(Painter, "histogram", histogram)
    assert "dotted: ±ε" in report(folder).text
    assert marks == {"layer hidden": [-0.02, 0.02], "layer output": [-0.07, 0.07]}
    set_option(folder, epsilon=0.05)
    report(folder)
    assert marks == {"layer hidden": [-0.05, 0.05], "layer output": [-0.05, 0.05]}


def test_several_devices_a_weight(make_run: Any, report: Report) -> None:
    folder = make_run("mca")
    assert "the mean over its pairs" not in report(folder).text
    set_option(folder, devices_per_weight="4")
    assert "W = (G+ − G−)/β, the mean over its pairs" in report(folder).text
