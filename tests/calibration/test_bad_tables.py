"""A user's mistakes in a measurement table: one line of file, row, column and remedy each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibration.measurements import read, table, write
from devicemodels.errors import InputError

GOOD = """device,sequence,step,pulse,conductance_us,width_s,time_s
A,0,0,reset,0.1,1e-7,0
A,0,1,set,1.5,1e-7,1
B,0,0,reset,0.2,1e-7,0
B,0,1,set,1.25,1e-7,1
B,0,2,set,2.25,1e-7,2
"""


def message(excinfo: pytest.ExceptionInfo[InputError]) -> str:
    text = str(excinfo.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def edit(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def stated(header: str, *rows: str) -> str:
    """A table of four columns and more, the last of which state the conductance."""
    lines = [f"A,{step},set,{row}" for step, row in enumerate(rows)]
    return "\n".join([f"device,step,pulse,{header}", *lines]) + "\n"


#: By name: the text of a file, and words that the error must hold.
BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty file": ("", ("is empty", "give a header")),
    "blank first line": ("\n\n", ("line 1 is blank", "begin with a header")),
    "header only": (GOOD.splitlines()[0] + "\n", ("no rows", "add a row")),
    "not text": ("\0\1\2", ("not a text file", "save it as CSV")),
    "semicolons": (GOOD.replace(",", ";"), ("line 1", "';'", "commas")),
    "tabs": (GOOD.replace(",", "\t"), ("line 1", "'\\t'", "commas")),
    "decimal commas": (
        GOOD.replace("0.2,", "0,2,"),
        ("line 4", "8 fields", "7 columns", "remove", "decimal commas"),
    ),
    "row too long": (edit("1.5,1e-7,1", "1.5,1e-7,1,,"), ("line 3", "9 fields", "remove")),
    "rows all too long": (
        stated("conductance_us", "1,", "2,"),
        ("line 2", "5 fields", "4 columns", "remove"),
    ),
    "row too short": (edit("1.5,1e-7,1", "1.5,1e-7"), ("line 3", "time_s", "is blank", "give")),
    "blank line": (edit("B,0,0", "\nB,0,0"), ("line 4", "device", "is blank", "give")),
    "quote left open": (edit("B,0,0", '"B,0,0'), ("line 4", "quotation mark", "close or remove")),
    "missing column": (
        GOOD.replace("pulse,", "", 1).replace("reset,", "").replace("set,", ""),
        ("column pulse is missing", "add it"),
    ),
    "unknown column": (
        edit("conductance_us", "condutance_us"),
        ("unknown column 'condutance_us'", "rename or remove", "did you mean 'conductance_us'"),
    ),
    "wrong case": (edit("device", "Device"), ("unknown column 'Device'", "'device'?")),
    "duplicate column": (edit("width_s", "time_s"), ("column time_s occurs twice", "remove one")),
    "unnamed column": (edit("width_s", ""), ("column 6 has no name", "name it or remove it")),
    "no conductance": (
        "device,step,pulse\nA,0,set\n",
        ("no column states the conductance", "add conductance_us"),
    ),
    "two conductances": (
        stated("conductance_us,resistance_ohm", "1,1e6"),
        ("conductance_us and by resistance_ohm", "keep one"),
    ),
    "conductance and voltage": (
        stated("conductance_us,read_voltage_v", "1,0.2"),
        ("conductance_us and by read_voltage_v", "keep one"),
    ),
    "current without voltage": (
        stated("current_a", "1e-6"),
        ("read_voltage_v is missing", "current_a alone", "add read_voltage_v"),
    ),
    "voltage without current": (
        stated("read_voltage_v", "0.2"),
        ("current_a is missing", "read_voltage_v alone", "add current_a"),
    ),
    "read voltage of 0": (
        stated("current_a,read_voltage_v", "1e-6,0.2", "1e-6,0"),
        ("line 3", "read_voltage_v", "is 0", "give the voltage"),
    ),
    "current against voltage": (
        stated("current_a,read_voltage_v", "1e-6,0.2", "1e-6,-0.2"),
        ("line 3", "current_a", "negative conductance", "mend a sign"),
    ),
    "text for a number": (
        edit("1.25", "high"),
        ("line 5", "column conductance_us", "'high' is not a number", "write one"),
    ),
    "number with a unit": (edit("1.25", "1.25uS"), ("line 5", "'1.25uS'", "without a unit")),
    "digits grouped": (edit("1.25", "1_25"), ("line 5", "'1_25' is not a number", "write one")),
    "long cell": (edit("1.25", "x" * 5000), ("line 5", "xxx...", "not a number", "write one")),
    "truth for a number": (edit("1.25", "True"), ("line 5", "'True' is not a number")),
    "NaN": (edit("1.25", "nan"), ("line 5", "conductance_us", "blank or NaN", "give a number")),
    "NA": (edit("1.25", "NA"), ("line 5", "conductance_us", "'NA' is not a number", "write")),
    "blank conductance": (edit("1.25", ""), ("line 5", "conductance_us", "is blank", "give")),
    "blank device": (edit("B,0,0", " ,0,0"), ("line 4", "column device", "is blank", "give")),
    "device on two lines": (edit("B,0,0", '"B\nC",0,0'), ("line 4", "device", "on one line")),
    "blank pulse": (edit("set,1.25", ",1.25"), ("line 5", "column pulse", "is blank", "give")),
    "infinite": (edit("1.25", "inf"), ("line 5", "conductance_us", "infinite", "leave the row")),
    "overflowing": (edit("1.25", "1e999"), ("line 5", "conductance_us", "infinite", "leave")),
    "infinite time": (edit("1.25,1e-7,1", "1.25,1e-7,inf"), ("line 5", "time_s", "infinite")),
    "negative conductance": (
        edit("1.25", "-1.25"),
        ("line 5", "conductance_us", "-1.25 is negative", "leave the row out"),
    ),
    "negative siemens": (
        stated("conductance_s", "1e-6", "-1e-9"),
        ("line 3", "conductance_s", "-1e-09 is negative", "leave the row out"),
    ),
    "negative resistance": (
        stated("resistance_ohm", "1e6", "-1e6"),
        ("line 3", "resistance_ohm", "-1e+06 ohm", "leave the row out"),
    ),
    "zero resistance": (
        stated("resistance_ohm", "1e6", "0"),
        ("line 3", "resistance_ohm", "0 ohm", "leave the row out"),
    ),
    "resistance beyond reason": (
        stated("resistance_ohm", "1e6", "1e6", "1e-310"),
        ("line 4", "resistance_ohm", "check the unit"),
    ),
    "broken step": (
        edit("B,0,1", "B,0,1.5"),
        ("line 5", "column step", "1.5 is not whole", "0, 1"),
    ),
    "negative step": (edit("A,0,0", "A,0,-1"), ("line 2", "column step", "negative", "count from")),
    "huge step": (edit("B,0,2", "B,0,1e300"), ("line 6", "column step", "too large", "count")),
    "text for a step": (edit("B,0,2", "B,0,two"), ("line 6", "column step", "'two'", "write one")),
    "broken sequence": (edit("B,0,2", "B,0.5,2"), ("line 6", "column sequence", "not whole")),
    "steps not in order": (
        stated("conductance_us", "1", "2", "3").replace("A,0", "A,9").replace("A,2", "A,0"),
        ("line 3", "step 1 of device A", "follows step 9", "sort the rows"),
    ),
    "row twice": (
        edit("B,0,2", "B,0,1"),
        ("line 6", "column step", "device B", "already in line 5", "remove one"),
    ),
    "row twice, mixed": (
        GOOD + "A,0,0,reset,0.1,1e-7,0\n",
        ("line 7", "device A", "already in line 2", "sequence"),
    ),
    "gap in the steps": (
        edit("B,0,2", "B,0,4"),
        ("line 6", "column step", "step 4", "follows step 1", "renumber", "split the sequence"),
    ),
    "unknown pulse": (
        edit("set,1.25", "sett,1.25"),
        ("line 5", "column pulse", "unknown pulse 'sett'", "did you mean 'set'"),
    ),
    "pulse in capitals": (edit("set,1.25", "SET,1.25"), ("line 5", "'SET'", "known: down")),
    "time goes back": (
        edit("2.25,1e-7,2", "2.25,1e-7,0.5"),
        ("line 6", "column time_s", "0.5 s is earlier", "device B", "split the sequence"),
    ),
    "width of 0": (edit("1.25,1e-7", "1.25,0"), ("line 5", "column width_s", "0 s", "above 0")),
    "negative width": (edit("1.25,1e-7", "1.25,-1"), ("line 5", "column width_s", "-1 s")),
    "siemens called µS": (
        stated("conductance_us", "1e-6", "2e-5", "3e-5"),
        ("column conductance_us", "2e-05", "siemens", "name the column conductance_s"),
    ),
    "µS called siemens": (
        stated("conductance_s", "1", "20", "30"),
        ("column conductance_s", "20", "microsiemens", "name the column conductance_us"),
    ),
    "Mohm called ohm": (
        stated("resistance_ohm", "0.1", "0.5", "2"),
        ("column resistance_ohm", "0.5", "Mohm or kohm", "multiply"),
    ),
    "µA called ampere": (
        stated("current_a,read_voltage_v", "0.1,0.2", "0.2,0.2"),
        ("column current_a", "microamperes", "multiply"),
    ),
}


def test_the_good_table_is_good(tmp_path: Path) -> None:
    path = tmp_path / "good.csv"
    path.write_text(GOOD)
    assert read(path).rows == 5


@pytest.mark.parametrize("case", BAD)
def test_mistakes_in_a_file(tmp_path: Path, case: str) -> None:
    text, words = BAD[case]
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError) as excinfo:
        read(path)
    found = message(excinfo)
    assert found.startswith(f"{path}: ")
    for word in words:
        assert word in found


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.csv", None, ("cannot read", "No such file", "check the path")),
        ("absent/t.parquet", None, ("cannot read", "No such file", "check the path")),
        ("table.xlsx", b"PK", ("unknown kind of file", ".csv", ".parquet")),
        ("table", b"", ("unknown kind of file", ".csv", ".parquet")),
        ("latin.csv", GOOD.replace("A", "é").encode("latin-1"), ("not a text file", "UTF-8")),
        ("plain.csv.gz", GOOD.encode(), ("not a whole .csv.gz file", "pack it again")),
        ("cut.csv.xz", b"\xfd7zXZ\0\0\4", ("not a whole .csv.xz file", "pack it again")),
        ("plain.parquet", GOOD.encode(), ("not a whole Parquet file", "write it again")),
        ("empty.parquet", b"", ("is empty", "give")),
    ],
)
def test_files_that_are_no_table(
    tmp_path: Path, name: str, content: bytes | None, words: tuple[str, ...]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as excinfo:
        read(path)
    found = message(excinfo)
    assert found.startswith(f"{path}: ")
    assert all(word in found for word in words)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv: cannot read.*Is a directory"):
        read(tmp_path / "folder.csv")


def frame(**columns: object) -> pd.DataFrame:
    """Four good rows, with these columns instead."""
    good = {"device": list("AABB"), "step": [0, 1, 0, 1], "pulse": "set", "conductance_us": 1.0}
    return pd.DataFrame(good | columns)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"device": [0.5, 1.5, 2, 3]}, ("row 1, column device", "0.5 is no name", "whole number")),
        ({"device": [[1], [1], [2], [2]]}, ("row 1, column device", "[1] is no name", "text")),
        ({"device": [False, 1, 2, 3]}, ("row 1, column device", "False is no name")),
        ({"device": ["A", "A", None, "B"]}, ("row 3, column device", "is blank")),
        ({"step": [0, 1, None, 1]}, ("row 3, column step", "blank or NaN", "give a number")),
        ({"step": [0, 1, 0, 2]}, ("row 4, column step", "follows step 0", "renumber")),
        ({"step": True}, ("row 1, column step", "True is not a number")),
        ({"step": pd.Timestamp(0)}, ("row 1, column step", "not a number")),
        ({"conductance_us": [1, 2, "x", 3]}, ("row 3, column conductance_us", "'x'", "write")),
        ({"conductance_us": 1j}, ("row 1, column conductance_us", "not a number")),
        ({"conductance_us": [1, 2, np.inf, 3]}, ("row 3, column conductance_us", "infinite")),
        ({"time_s": [[1], [2], [3], [4]]}, ("row 1, column time_s", "not a number")),
        ({"pulse": 1}, ("row 1, column pulse", "unknown pulse '1'", "known: down")),
        ({"width_s": [1, 1, 1, pd.NA]}, ("row 4, column width_s", "blank or NaN", "give")),
    ],
)
def test_mistakes_in_memory_and_in_parquet(
    tmp_path: Path, columns: dict[str, object], words: tuple[str, ...]
) -> None:
    bad = frame(**columns)
    with pytest.raises(InputError) as excinfo:
        table(bad, "mine")
    found = message(excinfo)
    assert found.startswith("mine: ")
    assert all(word in found for word in words)
    path = tmp_path / "bad.parquet"
    try:
        bad.to_parquet(path)
    except (TypeError, ValueError, NotImplementedError):
        return  # Parquet holds no columns of this kind
    with pytest.raises(InputError) as excinfo:
        read(path)
    assert message(excinfo).startswith(f"{path}: row ")


def test_other_tables_in_memory() -> None:
    with pytest.raises(InputError, match=r"mine: unknown column '0'"):
        table(frame().rename(columns={"step": 0}), "mine")
    with pytest.raises(InputError, match=r"mine: column device is missing"):
        table(pd.DataFrame(), "mine")
    with pytest.raises(InputError, match=r"mine: holds a header and no rows"):
        table(frame().iloc[:0], "mine")


def test_zero_conductance_is_allowed() -> None:
    """Most devices of a fresh array may not conduct: that is no sign of a wrong unit."""
    assert table(frame(conductance_us=[0, 0, 0, 5.0]), "mine").rows == 4
    assert table(frame(conductance_us=0), "mine").rows == 4


def test_nowhere_to_write(tmp_path: Path) -> None:
    good = table(frame(), "mine")
    with pytest.raises(InputError, match=r"a\.txt: unknown kind of file: give one of \.csv"):
        write(good, tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"a\.csv: cannot be written \(No such file"):
        write(good, tmp_path / "absent" / "a.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv: cannot be written \(Is a directory"):
        write(good, tmp_path / "folder.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]
