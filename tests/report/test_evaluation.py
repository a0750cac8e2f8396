"""Reading after training in the report: every number of evaluation.json, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devicemodels import InputError
from mcatrain.report.evaluation import evaluation_in_words

Report = Callable[[Path], Any]
TIMES = (1.0, 3600.0, 365 * 86_400.0)
PLACES = (("nandakumar2018", "own"), ("joshi2020", "write-verify"))


def evaluation(chips: int = 2) -> dict[str, Any]:
    """Return an evaluation whose numbers tell place, time, compensation and chip."""
    entries = []
    for place, (device, programming) in enumerate(PLACES):
        for at, time_s in enumerate(TIMES):
            for kind, name in enumerate(("none", "column")):
                values = [0.97 - 0.1 * place - 0.02 * at + 0.005 * kind + 0.001 * c
                          for c in range(chips)]  # fmt: skip
                sd = 0.0005 if chips > 1 else None
                entries.append(
                    {
                        "device": device, "programming": programming, "time_s": time_s,
                        "compensation": name, "chips": chips, "mean": sum(values) / chips,
                        "sd": sd, "values": values,
                    }
                )  # fmt: skip
    cost = {
        "device": "joshi2020", "programming": "write-verify", "devices": 1000, "writes": 1500.0,
        "verify_reads": 1500.0, "converged": 0.987, "tolerance_us": 0.5, "most_writes": 10,
    }  # fmt: skip
    return {
        "metric": "test_accuracy", "end_of_training": 0.975, "times_s": list(TIMES),
        "chips": chips, "entries": entries, "programming": [cost],
    }  # fmt: skip


def put(folder: Path, body: Any) -> None:
    (folder / "evaluation.json").write_text(json.dumps(body))


def test_a_run_that_was_not_evaluated_has_no_section(make_run: Any, report: Report) -> None:
    assert "evaluation" not in report(make_run()).ids


def test_every_number_and_a_picture_a_place(make_run: Any, report: Report) -> None:
    folder = make_run()
    before = len(report(folder).alts)
    body = evaluation()
    put(folder, body)
    page = report(folder)
    assert "evaluation" in page.ids
    assert len(page.alts) == before + len(PLACES)
    assert any("joshi2020" in alt and "write-verify" in alt for alt in page.alts)
    for entry in body["entries"]:
        assert f"{100 * entry['mean']:.2f} ± 0.05" in page.text
    for words in ("1 s [%]", "1 h [%]", "1 y [%]", "no compensation", "one an output"):
        assert words in page.text
    assert "1.50 writes and 1.50 verify reads a device; 98.7% converged within 0.5 µS" in page.text


def test_one_chip_has_no_spread(make_run: Any, report: Report) -> None:
    folder = make_run()
    put(folder, evaluation(chips=1))
    text = report(folder).text
    assert "93.00" in text
    assert "93.00 ±" not in text
    assert "one chip" in text


def test_what_overflowed_is_a_dash(make_run: Any, report: Report) -> None:
    folder, body = make_run(), evaluation()
    body["entries"][0] |= {"mean": None, "sd": None, "values": [None, 0.1]}
    body["end_of_training"] = None
    put(folder, body)
    assert "—" in report(folder).text


def test_runs_of_a_comparison_are_shown(make_comparison: Any, report: Report) -> None:
    folder = make_comparison((("mca", "nandakumar2018"),), (0, 1))
    for run in sorted(folder.glob("runs/*")):
        put(run, evaluation())
    text = report(folder).text
    assert "MCA on nandakumar2018, seed 0" in text
    assert "MCA on nandakumar2018, seed 1" in text


def test_words_say_the_same() -> None:
    lines = evaluation_in_words(evaluation())
    assert lines[0] == "test accuracy [%] at the end of training 97.50"
    assert lines[1] == "nandakumar2018, trained devices"
    assert lines[2].split("  ")[-1].strip() == "1 y"
    assert re.fullmatch(r"  none +97\.05 ± 0\.05 +95\.05 ± 0\.05 +93\.05 ± 0\.05", lines[3])
    assert "98.7% converged" in lines[-1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body.pop("entries"), lambda body: body["entries"].clear(),
        lambda body: body.update(chips="2"), lambda body: body.pop("end_of_training"),
        lambda body: body["entries"][1].pop("time_s"), lambda body: body.update(chips=3),
        lambda body: body.update(metric="speed"),
        lambda body: body["entries"][0].update(values=None),
        lambda body: body["programming"][0].pop("devices"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(
    make_run: Any, report: Report, damage: Callable[[dict[str, Any]], Any]
) -> None:
    folder, body = make_run(), evaluation()
    damage(body)
    put(folder, body)
    with pytest.raises(InputError, match=r"evaluation\.json: not as mcatrain evaluate writes it"):
        report(folder)
