"""Examples run as they stand, at their smoke size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.examples import plan_measurements


@pytest.mark.slow
def test_plan_measurements(tmp_path: Path) -> None:
    assert plan_measurements.main(["--out", str(tmp_path), "--smoke"]) == 0
    text = (tmp_path / "plan.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["2", "6"]
    assert (tmp_path / "2x6" / "chips" / "report.html").exists()
    assert plan_measurements.main(["--out", str(tmp_path), "--smoke"]) == 0  # goes on: no work
    assert (tmp_path / "plan.md").read_text() == text
