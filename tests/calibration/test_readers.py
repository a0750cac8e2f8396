"""Readers of published data: known counts and values, and files that are missing or other."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.measurements import Measurements
from calibration.readers import crosssim, gong, stanford, zarcone
from devicemodels.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data"
#: Every reader with the files it needs and words of its data set's source.
READERS: list[tuple[Callable, str, str]] = [
    (zarcone.partial_set, "pcm_partial_set_6dev.csv.xz", "rzarcone/PCM_Paper"),
    (zarcone.partial_reset, "Partial_Reset_PCM.csv.xz", "rzarcone/PCM_Paper"),
    (stanford.relaxation, "anjiang/model_C.tsv.xz", "Anjiang-RRAM-Python"),
    (gong.pulses, "gong_et_al.csv", "IBM/aihwkit"),
    (crosssim.taox, "TaOx_luts_decimated5.npz", "sandialabs/cross-sim-data"),
    (crosssim.enode, "ENODe/dG_increasing.txt.xz", "sandialabs/cross-sim-data"),
]


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"the data set {name} is not in ../shared/data")
    return REAL / name


def check(measured: Measurements, path: Path, rows: int, devices: int) -> None:
    assert (measured.rows, len(measured.devices), measured.source) == (rows, devices, str(path))
    assert measured.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_zarcone_partial_set() -> None:
    folder = real("device_pcm_zarcone")
    measured = zarcone.partial_set(folder)
    check(measured, folder / "pcm_partial_set_6dev.csv.xz", 71_811, 6)
    assert sorted(measured.devices) == list("012345")
    frame = measured.frame
    sequences = frame.groupby("device", observed=True)["sequence"].nunique()
    assert sequences.to_dict() == {name: 111 if name == "4" else 120 for name in "012345"}
    assert (frame["pulse"] == "set").all()
    # 0.70 V to 1.70 V in 101 levels of 0.01 V
    np.testing.assert_allclose(frame["amplitude_v"], 0.70 + 0.01 * frame["step"], atol=1e-12)
    # the first row of the file: device 1, sweep 0, 0.70 V, 219221.8 ohm
    assert frame["device"].iloc[0] == "1"
    assert frame["conductance_us"].iloc[0] == pytest.approx(1e6 / 219221.8, rel=1e-15)


def test_zarcone_partial_reset() -> None:
    folder = real("device_pcm_zarcone")
    measured = zarcone.partial_reset(folder)
    check(measured, folder / "Partial_Reset_PCM.csv.xz", 15_200, 1)
    frame = measured.frame
    assert frame["sequence"].nunique() == 380
    assert (frame["pulse"] == "reset").all()
    np.testing.assert_allclose(frame["amplitude_v"], 1.00 + 0.05 * frame["step"], atol=1e-12)
    assert frame["conductance_us"].iloc[0] == pytest.approx(1e6 / 39847.46, rel=1e-15)


def test_stanford_relaxation() -> None:
    folder = real("device_rram_stanford")
    measured = stanford.relaxation(folder)
    check(measured, folder / "anjiang" / "model_C.tsv.xz", 89_114, 16_292)
    frame = measured.frame
    assert set(frame["time_s"]) == {0, 0.01, 0.1, 1, 4, 1e5}
    fresh = frame["time_s"] == 0
    assert fresh.sum() == 16_292
    assert ((frame["step"] == 0) == fresh).all()
    assert ((frame["pulse"] == "set") == fresh).all()
    assert (frame["sequence"].min(), frame["sequence"].max()) == (0, 51)
    cell = measured.only(["0"]).frame
    assert cell["time_s"].tolist() == [0, 0.01, 0.1, 1, 1e5]
    assert cell["conductance_us"].iloc[0] == pytest.approx(19.288330078125, rel=1e-15)
    # the row left out
    assert measured.only(["2348"]).frame["time_s"].tolist() == [0, 0.1, 1, 1e5]


def test_gong() -> None:
    folder = real("device_reram_aihwkit_gong")
    measured = gong.pulses(folder)
    check(measured, folder / "gong_et_al.csv", 2_000, 1)
    frame = measured.frame
    assert frame["step"].tolist() == list(range(2000))
    assert frame["pulse"].tolist() == ["up"] * 1000 + ["down"] * 1000
    value = (frame["conductance_us"] - gong.OFFSET_US) / gong.SCALE_US
    wanted = [-0.84444, 1.0667, 0.76667, -1.3556]  # first and last of either direction
    np.testing.assert_allclose(value.iloc[[0, 999, 1000, 1999]], wanted, rtol=1e-12)
    assert (value.min(), value.max()) == pytest.approx((-1.3556, 1.4111))


def test_crosssim_taox() -> None:
    tables = crosssim.taox(real("device_crosssim"))
    assert list(tables) == list(range(1, 42))
    for pair in tables.values():
        for one in (pair.increasing, pair.decreasing):
            assert one.conductance.shape == one.cdf.shape == (101,)
            assert one.change.shape == (101, 101)
            assert (one.cdf[0], one.cdf[-1]) == (0, 1)
        # The median pulse goes the right way at the mean conductance.
        assert pair.increasing.change[50].mean() > 0 > pair.decreasing.change[50].mean()
    # 1.86312369e-05 S is the first conductance of the published text of device 1, and
    # 1.23648754e-04 S and -5.33203056e-06 S the first changes: float32 keeps seven digits.
    first = tables[1]
    assert first.increasing.conductance[0] == pytest.approx(18.6312369, rel=1e-6)
    falls = [
        np.diff(one.change, axis=0).min()
        for pair in tables.values()
        for one in (pair.increasing, pair.decreasing)
    ]
    assert min(falls) == pytest.approx(-61.8, abs=0.1)  # as the docstring warns


def test_crosssim_enode() -> None:
    pair = crosssim.enode(real("device_crosssim"))
    for one in (pair.increasing, pair.decreasing):
        assert (one.conductance.shape, one.cdf.shape) == ((48,), (122,))
        assert one.change.shape == (122, 48)
        assert one.conductance[[0, -1]] == pytest.approx([297.72, 978.28])
        assert (np.diff(one.change, axis=0) >= 0).all()
    assert pair.increasing.change[0, 0] == pytest.approx(6)
    assert pair.decreasing.change[0, 0] == pytest.approx(-2)


@pytest.mark.parametrize(("reader", "name", "source"), READERS)
def test_missing_and_other_files(tmp_path: Path, reader: Callable, name: str, source: str) -> None:
    path = tmp_path / name

    def refused(*words: str) -> None:
        with pytest.raises(InputError) as excinfo:
            reader(tmp_path)
        found = str(excinfo.value)
        assert "\n" not in found
        assert found.startswith(f"{path}: ")
        assert source in found
        assert all(word in found for word in words)

    refused("No such file", "get the data of")
    path.parent.mkdir(exist_ok=True)
    for text in (
        "",
        "a,b\n1,2\n",
        "a,b,c,d\n1,2,3,x\n",
        "1\n2,3\n",
        "x\n1,2\n0,1\n\n1\n",
        "\xff\0",
    ):
        content = text.encode("latin-1")
        path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)
        if reader is gong.pulses and text == "a,b\n1,2\n":
            continue
        refused("get the data of")
    if path.suffix == ".xz":
        path.write_bytes(lzma.compress(b"1,2\n")[:-5])
        refused("not a whole .xz file")
    if path.suffix == ".npz":
        np.savez(path, G_inc_1=np.arange(3.0))
        refused("not a file of update tables")
        np.savez(
            path,
            **{
                f"{what}_{way}_1": np.arange(3.0)
                for what in ("G", "cdf", "dG")
                for way in ("inc", "dec")
            },
        )
        refused("not a file of update tables")
