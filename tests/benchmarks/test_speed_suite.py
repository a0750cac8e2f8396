"""The speed suite runs as a whole; what it times is not looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import PARTS, main
from benchmarks.part import Part, Table
from benchmarks.results_file import keep


def test_every_part_writes_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--rounds", "2", "--out", str(tmp_path)]) == 0
    (text,), (figures,) = tmp_path.glob("speed-*.md"), tmp_path.glob("speed-*.json")
    found = json.loads(figures.read_text())
    missing = set(PARTS) - set(found)
    assert missing <= {"peers"}  # where aihwkit is not installed
    assert ("aihwkit is not installed" in capsys.readouterr().out) == bool(missing)
    for part in found.values():
        assert part["setting"]["command"]
        for table in part["tables"]:
            assert table["rows"]
            assert f"### {table['title']}" in text.read_text()
            assert {len(row) for row in table["rows"]} == {len(table["head"])}


def test_memory_of_a_pair_is_within_its_bar(tmp_path: Path) -> None:
    """State, caches, chi and gradient of MCA on a PCM pair: 56 bytes a weight."""
    main(["--only", "memory", "--smoke", "--out", str(tmp_path)])
    (file,) = tmp_path.glob("speed-*.json")
    figures = json.loads(file.read_text())["memory"]["figures"]
    for found in figures["bytes"].values():
        assert found["device state"] > 0
        assert found["sum"] <= figures["bar"]


def test_a_part_measured_again_leaves_the_others_of_the_day(tmp_path: Path) -> None:
    setting = {"date": "2026-11-27", "command": "bench", "load": "0.1"}
    for name, figure in (("memory", 1), ("scaling", 2), ("memory", 3)):
        table = Table("Bytes", "All.", ["", "a"], [["b", str(figure)]])
        text = keep(name, Part(name, [table], figure), setting, tmp_path).read_text()
    found = json.loads((tmp_path / "speed-2026-11-27.json").read_text())
    assert {name: part["figures"] for name, part in found.items()} == {"memory": 3, "scaling": 2}
    assert "| b | 3 |" in text
    assert "| b | 2 |" in text
    assert "| b | 1 |" not in text


@pytest.mark.parametrize("given", [["--only", "step,speed"], ["--rounds", "0"]])
def test_bad_usage_is_refused_in_a_line(given: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(given)
    assert stop.value.code == 2
    assert given[0] in capsys.readouterr().err
