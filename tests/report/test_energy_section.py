"""The energy of runs in the report and by 'mcatrain energy': values, gaps, what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcatrain import energy
from mcatrain.cli import main

PARTS = {
    "forward converters": 8e-6, "forward array": 1e-6, "backward converters": 5e-6,
    "backward array": 0.0, "update": 6e-6, "pulses": 4e-9, "refresh": 1e-9,
}  # fmt: skip
WEAR = {"endurance": 7.0, "layers": {"0": {"devices": 10, "mean": 2.5, "most": 1234,
        "share_above": 0.125}}}  # fmt: skip


def give(folder: Path, parts: dict[str, float], **more: Any) -> None:
    """Add to a finished run what its energy was; 1000 examples."""
    path = folder / "result.json"
    result = json.loads(path.read_text())
    whole = sum(parts.values())
    result["energy"] = {
        "model": "nandakumar2020", "parts": parts, "total": whole, "per_example": whole / 1000,
        "per_epoch": whole / 5, "seconds_per_example": 4e-7, "ratio": 50.0,
        "digital": {"total": 50 * whole, "per_example": whole / 20},
        "digital_seconds_per_example": 1e-7,
    }  # fmt: skip
    path.write_text(json.dumps(result | more))


def test_table_of_a_run(make_run: Any, report: Callable[[Path], Any]) -> None:
    folder = make_run("mca")
    give(folder, PARTS, ledger={"wear": WEAR})
    page = report(folder)
    head, row = page.tables["energy"]
    cells = dict(zip(head, row, strict=True))
    assert cells["forward [nJ]"] == "9"
    assert cells["backward [nJ]"] == "5"
    assert cells["update [nJ]"] == "6"
    assert cells["pulses [nJ]"] == "0.004"
    assert cells["memory [nJ]"] == "—"
    assert cells["an example [nJ]"] == "20"
    assert cells["an epoch [mJ]"] == "0.004"
    assert cells["digital : this"] == "50"
    assert cells["time an example [µs]"] == "0.4"
    assert page.tables["wear"][0][-1] == "devices above 7 pulses [%]"
    assert page.row("wear", "0") == ["0", "10", "2.5", "1,234", "12.50"]
    status = {row[0]: row[4] for row in page.tables["operations"][1:]}
    assert status["adc_pj"] == "fitted"
    assert status["mac32_pj"] == "verified"
    assert "Values marked fitted were chosen by us" in page.text


def test_older_runs_have_no_section(make_run: Any, report: Callable[[Path], Any]) -> None:
    page = report(make_run("mca"))
    assert "energy" not in page.ids
    assert "budget" not in page.tables["summary"][0]


def test_rules_beside_each_other_and_their_budgets(
    make_comparison: Any, report: Callable[[Path], Any]
) -> None:
    folder = make_comparison((("fp32", ""), ("mca", "nandakumar2018")), (0, 1))
    budget = {"kind": "energy", "amount": 0.002, "spent": 0.00201, "used_up": True, "epochs": 1.25}
    for place in (folder / "runs").iterdir():
        give(place, {"memory": 1.0} if "fp32" in place.name else PARTS, budget=budget)
    page = report(folder)
    head, *rows = page.tables["energy"]
    assert [row[0] for row in rows] == ["float32", "MCA on nandakumar2018"]
    memory = head.index("memory [nJ]")
    assert [row[memory] for row in rows] == ["1,000,000", "—"]
    assert page.row("summary", "float32")[-1] == "0.00201 of 0.002 J, 1.25 epochs"


def spend(folder: Path, amount: float) -> None:
    """Give a run of 5 epochs a ledger: the paper's network, 100 times ``amount`` pulses in each."""
    rows = []
    for epoch in range(1, 6):
        work = energy.mlp_image((784, 250, 10), int(100 * amount * epoch), 1500 * epoch, 100)
        parts = energy.load("nandakumar2020").training(work, bipolar=False)
        rows.append({"step": 1500 * epoch, "epoch": epoch, "energy": sum(parts.values()), **work})
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_figures_by_energy(make_comparison: Any, report: Callable[[Path], Any]) -> None:
    """A line a rule, a panel a rule that tells its parts; an older ledger has no panel."""
    folder = make_comparison(
        (("mca", "nandakumar2018"), ("rpu", "nandakumar2018")), (0, 1),
        options={"energy_model": "nandakumar2020"},
    )  # fmt: skip
    for place in (folder / "runs").iterdir():
        give(place, PARTS)
        spend(place, amount=1.0 + (place.name[-1] == "1"))
    page = report(folder)
    by_energy = [alt for alt in page.alts if alt.startswith("Test accuracy against energy")]
    by_part = [alt for alt in page.alts if alt.startswith("Energy per epoch of")]
    assert len(by_energy) == 1
    assert len(by_part) == 2
    assert "MCA on nandakumar2018 ends at" in by_energy[0]
    assert "RPU on nandakumar2018 ends at" in by_energy[0]
    # 100 and 200 SET pulses an epoch of 4 pJ
    set_pj = energy.load("nandakumar2020").operations.set_pj
    assert f"pulses ends at {150 * set_pj * 1e-12:.3g}" in by_part[0]
    assert "memory" not in by_part[0]  # of the digital design alone
    assert "Of several seeds the energy is the mean." in page.text
    for place in (folder / "runs").iterdir():
        path = place / "ledger.jsonl"
        path.write_text(path.read_text().replace("refresh_checks", "checks"))
    page = report(folder)
    assert not any(alt.startswith("Energy per epoch of") for alt in page.alts)
    assert any(alt.startswith("Test accuracy against energy") for alt in page.alts)


def test_a_model_that_is_gone_is_named_without_its_values(
    make_run: Any, report: Callable[[Path], Any]
) -> None:
    folder = make_run("mca")
    give(folder, PARTS)
    path = folder / "result.json"
    path.write_text(path.read_text().replace("nandakumar2020", "mine.toml"))
    page = report(folder)
    assert "energy model mine.toml" in page.text
    assert "operations" not in page.tables


def test_command(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run("mca")
    assert main(["energy", str(folder)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "--resume" in said.err
    assert said.err.count("\n") == 1
    give(folder, PARTS, ledger={"wear": WEAR})
    assert main(["energy", str(folder)]) == 0
    said = capsys.readouterr()
    assert "MCA on nandakumar2018" in said.out
    assert "12.50% of devices" in said.out
    assert main(["energy"]) == 0
    said = capsys.readouterr()
    for text in ("83.26", "14,354", "172.4", "85.00 TOPS", "recalled", "fitted"):
        assert text in said.out
    assert main(["energy", str(folder / "none")]) == 2
    assert main(["energy", "--fast"]) == 2
