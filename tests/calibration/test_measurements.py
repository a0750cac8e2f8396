"""Measurement tables: reading, units, order, writing."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibration.measurements import PULSES, Measurements, read, table, write
from devicemodels.errors import InputError

GIVEN = """device,sequence,step,pulse,conductance_us,time_s
B,1,5,reset,0.1,0
A,0,0,reset,0.2,0
B,1,6,set,1.5,1
A,0,1,set,1.25,1
A,0,2,read,1.25,1
B,0,0,reset,0.3,0
"""


def saved(tmp_path: Path, text: str = GIVEN, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def random_table(seed: int = 0) -> Measurements:
    """Numbers of all digits and magnitudes: 3 devices, 2 sequences each, all columns."""
    rng = np.random.default_rng(seed)
    devices, sequences, steps = np.meshgrid(["x", "a, b", 'é"'], [0, 3], range(7), indexing="ij")
    n = devices.size
    frame = pd.DataFrame(
        {
            "device": devices.ravel(),
            "sequence": sequences.ravel(),
            "step": steps.ravel(),
            "pulse": rng.choice(PULSES, n),
            "conductance_us": rng.lognormal(1, 5, n),
            "amplitude_v": rng.normal(0, 1, n),
            "width_s": rng.lognormal(-16, 1, n),
            "time_s": np.tile(np.cumsum(rng.exponential(1, 7)), 6),
        }
    )
    return table(frame, "random")


def test_rows_are_sorted_and_typed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    measured = read(path)
    frame = measured.frame
    # devices in order of first appearance, rows of one in order of sequence and step
    assert measured.devices == ["B", "A"]
    assert frame["device"].tolist() == ["B", "B", "B", "A", "A", "A"]
    assert frame["sequence"].tolist() == [0, 1, 1, 0, 0, 0]
    assert frame["step"].tolist() == [0, 5, 6, 0, 1, 2]
    assert frame["conductance_us"].tolist() == [0.3, 0.1, 1.5, 0.2, 1.25, 1.25]
    assert frame.columns.tolist() == [
        "device", "sequence", "step", "pulse", "conductance_us", "time_s",
    ]  # fmt: skip
    assert frame[["sequence", "step"]].dtypes.eq(np.int64).all()
    assert frame[["conductance_us", "time_s"]].dtypes.eq(np.float64).all()
    assert frame["pulse"].cat.categories.tolist() == list(PULSES)
    assert frame.index.equals(pd.RangeIndex(6))
    assert (measured.rows, measured.source) == (6, str(path))
    assert measured.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_sequence_is_0_where_it_is_not_given(tmp_path: Path) -> None:
    text = "device,step,pulse,conductance_us\n7,0,reset,1\n7,1,set,2\n"
    measured = read(saved(tmp_path, text))
    assert measured.devices == ["7"]
    assert measured.frame["sequence"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "text",
    [
        GIVEN.replace("\n", "\r\n"),
        "\ufeff" + GIVEN,
        GIVEN + "\n\n",
        GIVEN.replace(",", ", "),
        GIVEN.replace("A,0,1,", '"A",0.0,1e0,'),
    ],
    ids=["crlf", "byte order mark", "blank end", "blanks", "quotes and floats"],
)
def test_csv_as_programs_write_it(tmp_path: Path, text: str) -> None:
    pd.testing.assert_frame_equal(
        read(saved(tmp_path, text, "other.csv")).frame, read(saved(tmp_path)).frame
    )


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.xz", ".CSV"])
def test_packed_csv(tmp_path: Path, suffix: str) -> None:
    pack = {".csv.gz": gzip.compress, ".csv.xz": lzma.compress}.get(suffix, bytes)
    path = tmp_path / f"table{suffix}"
    path.write_bytes(pack(GIVEN.encode()))
    measured = read(path)
    pd.testing.assert_frame_equal(measured.frame, read(saved(tmp_path)).frame)
    assert measured.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.xz", "a.parquet"])
def test_written_tables_come_back(tmp_path: Path, name: str) -> None:
    """Every bit of every number, names with commas, quotes and accents."""
    measured = random_table()
    write(measured, tmp_path / name)
    again = read(tmp_path / name)
    pd.testing.assert_frame_equal(again.frame, measured.frame, check_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # no draft is left
    if name == "a.csv":
        assert again.sha256 == measured.sha256  # of the canonical text
    first = (tmp_path / name).read_bytes()
    write(again, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_insulating_devices_come_back(tmp_path: Path) -> None:
    """10 Gohm is 1e-4 µS, which a table in µS would not be believed."""
    frame = pd.DataFrame(
        {"device": "A", "step": range(5), "pulse": "set", "resistance_ohm": np.arange(1, 6) * 1e10}
    )
    measured = table(frame, "insulators")
    write(measured, tmp_path / "a.csv")
    again = read(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(again.frame, measured.frame, rtol=1e-15, atol=0)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def full(self: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"a\.csv: cannot be written \(No space left"):
        write(random_table(), path)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "way",
    [
        lambda g: {"conductance_s": g * 1e-6},
        lambda g: {"resistance_ohm": 1e6 / g},
        lambda g: {"current_a": g * 1e-6 * 0.2, "read_voltage_v": 0.2},
        lambda g: {"current_a": g * -1e-6 * 0.05, "read_voltage_v": -0.05},
    ],
    ids=["siemens", "ohm", "current", "negative read voltage"],
)
def test_units_give_the_same_frame(way) -> None:
    wanted = random_table()
    given = wanted.frame.drop(columns="conductance_us")
    measured = table(given.assign(**way(wanted.frame["conductance_us"])), "units")
    pd.testing.assert_frame_equal(
        measured.frame[wanted.frame.columns], wanted.frame, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("device", "category"),
        ("device", object),
        ("step", float),
        ("step", "Int64"),
        ("step", "string"),
        ("sequence", np.uint8),
        ("conductance_us", object),
        ("conductance_us", "Float64"),
        ("pulse", object),
    ],
)
def test_columns_of_other_types_in_memory(column: str, kind: object) -> None:
    wanted = random_table()
    frame = wanted.frame.astype({"device": str, "pulse": str}).astype({column: kind})
    frame.index = frame.index[::-1] + 10  # an index means nothing
    pd.testing.assert_frame_equal(table(frame, "typed").frame, wanted.frame, check_exact=True)


def test_the_given_frame_is_left_alone() -> None:
    frame = random_table().frame.astype({"device": str, "pulse": str}).iloc[::-1]
    frame["step"] = 6 - frame["step"]
    frame["time_s"] = 0.0
    before = frame.copy(deep=True)
    table(frame, "mine")
    pd.testing.assert_frame_equal(frame, before)


def test_hashes_tell_tables_apart() -> None:
    assert random_table(0).sha256 == random_table(0).sha256 != random_table(1).sha256


def test_devices_can_be_held_out(tmp_path: Path) -> None:
    measured = read(saved(tmp_path))
    kept, left = measured.only(["A"]), measured.without(["B"])
    pd.testing.assert_frame_equal(kept.frame, left.frame)
    assert kept.sha256 == left.sha256 != measured.sha256
    assert (kept.devices, kept.rows, kept.source) == (["A"], 3, measured.source)
    assert measured.only("A").devices == ["A"]
    write(kept, tmp_path / "kept.csv")
    pd.testing.assert_frame_equal(read(tmp_path / "kept.csv").frame, kept.frame)
    with pytest.raises(InputError, match=r"no device 'C'"):
        measured.only(["C"])
    with pytest.raises(InputError, match="no device is left"):
        measured.without(["A", "B"])


def test_rows_by_pulse(tmp_path: Path) -> None:
    measured = read(saved(tmp_path))
    assert measured.pulses("set", "read")["conductance_us"].tolist() == [1.5, 1.25, 1.25]
    with pytest.raises(InputError, match=r"no pulse 'sett': did you mean 'set'"):
        measured.pulses("sett")


def test_summary(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert read(path).summary().splitlines() == [
        f"{path}: 6 reads, 2 devices, 3 sequences",
        "pulses: set 2, reset 3, read 1",
        "steps a sequence: 1 to 3, median 2",
        "conductance: 0.1 to 1.5 µS, median 0.775 µS",
        "also given: time_s",
    ]
