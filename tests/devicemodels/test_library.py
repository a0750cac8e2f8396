"""Parameter files: the shipped ones are complete; a malformed one is refused in one line."""

from __future__ import annotations

import math
from dataclasses import fields
from importlib import resources
from pathlib import Path

import pytest

from devicemodels import Chance, InputError, available, load, parse_changes
from devicemodels.devices.pcm import PCMParameters
from devicemodels.devices.step import SoftBoundsParameters
from devicemodels.library import DEVICE_TYPES
from devicemodels.quantities import STATUSES

NAMES = available()
GOOD = (resources.files("devicemodels") / "parameters" / "nandakumar2018.toml").read_text("utf-8")
M1 = 'm1         = { value = -0.084, unit = "1", range = [-0.5, 0.1], status = "verified", '
M1 += 'source = "J. Appl. Phys. 124, 152135 (2018), mean SET step" }'


@pytest.mark.parametrize("name", NAMES)
def test_shipped_file_is_complete(name: str) -> None:
    model = load(name)
    assert model.name == name
    assert model.device_type in DEVICE_TYPES
    assert isinstance(model.device, DEVICE_TYPES[model.device_type])
    assert all(text.strip() for text in (model.title, model.publication, model.note))
    parts = [part for part in (model.device, model.synapse) if part is not None]
    wanted = [item.name for part in parts for item in fields(part)]
    assert [q.name for q in model.quantities] == wanted
    values = {item.name: getattr(part, item.name) for part in parts for item in fields(part)}
    for q in model.quantities:
        assert q.source.strip(), q.name
        assert q.status in STATUSES, q.name
        assert q.unit, q.name
        assert q.low <= q.value <= q.high, q.name
        assert values[q.name] == q.value, q.name


@pytest.mark.parametrize("name", NAMES)
def test_shipped_file_builds(name: str) -> None:
    model = load(name)
    synapse = model.build((3, 4), Chance(1, "layer"))
    assert synapse.weights(0.0).shape == (3, 4)
    if model.trains:
        assert synapse.granularity > 0


def test_the_shipped_models_of_the_papers() -> None:
    assert {"nandakumar2018", "gokmen2016", "ideal"} <= set(NAMES)
    status = {q.name: q.status for q in load("nandakumar2018").quantities}
    assert {status[name] for name in ("m1", "c1", "A1", "a", "m2", "c2", "A2")} == {"verified"}
    assert {status[name] for name in ("nu_std", "beta", "initial_mean")} == {"recalled"}


def test_a_path_loads_the_same_model(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD, encoding="utf-8")
    mine, shipped = load(file), load("nandakumar2018")
    assert mine.name == "mine"
    assert (mine.device, mine.synapse) == (shipped.device, shipped.synapse)
    assert load(str(file)) == mine


# --- malformed files ------------------------------------------------------------------------


def m1(**changed: str) -> str:
    """Return the file with the entry m1 changed; an empty string leaves a key out."""
    entry = {"value": "-0.084", "unit": '"1"', "range": "[-0.5, 0.1]", "status": '"verified"'}
    entry = entry | {"source": '"a paper"'} | changed
    inside = ", ".join(f"{key} = {value}" for key, value in entry.items() if value)
    return swap(M1, f"m1 = {{ {inside} }}")


def swap(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


#: What is wrong -> (the text, what the message must name besides the file).
MALFORMED = {
    "unknown key": (swap(M1, M1 + "\nm1_extra = 1"), ["m1_extra", "[device]"]),
    "mistyped key": (
        swap(M1, M1.replace("m1 ", "nu_meen ")),
        ["nu_meen", "did you mean 'nu_mean'"],
    ),
    "missing key": (swap(M1, ""), ["m1", "missing", "[device]"]),
    "unknown key of an entry": (m1(comment='"x"'), ["m1", "comment"]),
    "missing unit": (m1(unit=""), ["m1", "unit"]),
    "missing range": (m1(range=""), ["m1", "range"]),
    "missing source": (m1(source=""), ["m1", "source"]),
    "bare value": (swap(M1, "m1 = -0.084"), ["m1", "unit"]),
    "wrong unit": (m1(unit='"S"'), ["m1", "'S'", "'1'"]),
    "value out of the file's range": (m1(value="-0.6"), ["m1", "-0.6", "-0.5", "0.1"]),
    "value out of physical limits": (m1(value="-3", range="[-5, 5]"), ["m1", "-3", "-1", "1"]),
    "NaN": (m1(value="nan"), ["m1", "nan"]),
    "infinite": (m1(value="inf", range="[0, inf]"), ["m1", "inf"]),
    "huge integer": (m1(value="1" + 400 * "0"), ["m1"]),
    "string value": (m1(value='"-0.084"'), ["m1", "'-0.084'", "number"]),
    "boolean value": (m1(value="false"), ["m1", "number"]),
    "range of one number": (m1(range="[-0.5]"), ["m1", "range"]),
    "range reversed": (m1(range="[0.1, -0.5]"), ["m1", "range"]),
    "unknown status": (m1(status='"guessed"'), ["m1", "'guessed'", "verified", "recalled"]),
    "empty source": (m1(source='"  "'), ["m1", "source"]),
    "missing section": (GOOD[: GOOD.index("[synapse]")], ["[synapse]", "missing"]),
    "unknown section": (GOOD + "\n[sinapse]\n", ["sinapse", "synapse"]),
    "section is not a table": ("device = 3\n" + GOOD[: GOOD.index("[device]")], ["[device]"]),
    "unknown device_type": (
        swap('device_type = "pcm"', 'device_type = "pmc"'),
        ["device_type", "'pmc'", "did you mean 'pcm'"],
    ),
    "missing title": (swap("title = ", "titel = "), ["title"]),
    "pair on a single device": (
        swap('device_type = "pcm"', 'device_type = "ideal"'),
        ["synapse"],
    ),
    "bounds crossed": (
        swap("g_min      = { value = 0.1, unit = \"uS\", range = [0.0, 1.0]",
             "g_min      = { value = 13.0, unit = \"uS\", range = [0.0, 20.0]"),
        ["g_min", "13.0", "g_max", "12.0"],
    ),
    "fraction of a pulse": (
        swap("refresh_pulses = { value = 3,", "refresh_pulses = { value = 2.5,"),
        ["refresh_pulses", "2.5"],
    ),
    "bad TOML": (GOOD + "\n= 3", ["TOML", "line"]),
    "number of 5000 digits": (m1(value="1" + 5000 * "0"), ["TOML"]),
    "arrays without end": ("a = " + 5000 * "[", ["TOML"]),
    "empty file": ("", ["device_type"]),
}  # fmt: skip


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("wrong", MALFORMED)
def test_malformed_file(wrong: str, tmp_path: Path) -> None:
    text, named = MALFORMED[wrong]
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    message = refusal(file)
    assert all(part in message for part in named), message


def test_the_malformed_texts_are_malformed_by_one_change(tmp_path: Path) -> None:
    """The helper's own entry is accepted, so each text above fails for the reason it names."""
    file = tmp_path / "mine.toml"
    file.write_text(m1(), encoding="utf-8")
    assert load(file).device == load("nandakumar2018").device


def test_missing_file(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere.toml")


def test_folder_and_binary_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    refusal(folder)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(bytes(range(256)))
    refusal(binary)


def test_files_are_utf8_whatever_the_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TOML is UTF-8 by definition: a µ in a title must survive on a machine of another locale."""
    file = tmp_path / "mine.toml"
    file.write_text(swap('title = "90 nm', 'title = "µ 90 nm'), encoding="utf-8")
    read_text = Path.read_text

    def latin(self: Path, encoding: str | None = None, errors: str | None = None) -> str:
        return read_text(self, encoding or "latin-1", errors)

    monkeypatch.setattr(Path, "read_text", latin)
    assert load(file).title.startswith("µ 90 nm")


# --- names ----------------------------------------------------------------------------------


def test_a_mistyped_name_suggests_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        load("nandakumar2108")
    message = str(caught.value)
    assert "did you mean 'nandakumar2018'?" in message
    assert "\n" not in message
    assert all(name in message for name in NAMES)


@pytest.mark.parametrize("name", ["gokmen2016", "ideal"])
def test_ablations_of_other_devices_are_refused(name: str) -> None:
    model = load(name)
    with pytest.raises(InputError, match=rf"drift.*'{name}'.*PCM"):
        model.without("drift")
    assert model.without() is model


def test_pair_options_of_other_devices_are_refused() -> None:
    with pytest.raises(InputError, match=r"beta.*'ideal'"):
        load("ideal").build((2, 2), Chance(1, "layer"), beta=8.0)


def test_an_impossible_beta_is_refused() -> None:
    with pytest.raises(InputError, match="beta"):
        load("nandakumar2018").build((2, 2), Chance(1, "layer"), beta=math.nan)


# --- changed constants ----------------------------------------------------------------------


def test_vary_changes_the_named_constants_only() -> None:
    model = load("gokmen2016")
    varied = model.vary(dw_min_dtod=0, up_down_dtod=0.06)
    before, after = vars(model.device), vars(varied.device)
    assert after == before | {"dw_min_dtod": 0.0, "up_down_dtod": 0.06}
    assert type(after["dw_min_dtod"]) is float
    assert model.device == load("gokmen2016").device
    assert (varied.quantities, varied.text) == (model.quantities, model.text)
    assert model.vary() is model


def test_vary_reaches_the_device_and_the_pair() -> None:
    varied = load("nandakumar2018").vary(m3=0.0, c3=0.0, beta=4.0)
    assert isinstance(varied.device, PCMParameters)
    assert not varied.device.reads_noisily
    assert varied.synapse is not None
    assert varied.synapse.beta == 4.0
    assert varied.build((2, 2), Chance(1, "layer")).granularity == pytest.approx(0.77 / 4)
    off = varied.without("drift").device
    assert isinstance(off, PCMParameters)
    assert (off.m3, off.nu_mean) == (0.0, 0.0)


def test_vary_may_leave_the_range_of_the_file_but_not_physics() -> None:
    assert load("gokmen2016").vary(up_down_dtod=0.9).device != load("gokmen2016").device
    with pytest.raises(InputError, match=r"'gokmen2016': up_down_dtod = 1\.5 .*0 to 1"):
        load("gokmen2016").vary(up_down_dtod=1.5)
    with pytest.raises(InputError, match=r"'nandakumar2018': g_min = 13"):
        load("nandakumar2018").vary(g_min=13.0)
    with pytest.raises(InputError, match=r"refresh_pulses.*whole"):
        load("nandakumar2018").vary(refresh_pulses=2.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.1", None, True, 10**400])
def test_vary_refuses_what_is_no_value(value: object) -> None:
    with pytest.raises(InputError, match="dw_min"):
        load("gokmen2016").vary(dw_min=value)  # type: ignore[arg-type]


def test_vary_suggests_the_nearest_constant() -> None:
    with pytest.raises(InputError, match=r"'dw_mni'.*did you mean 'dw_min'") as caught:
        load("gokmen2016").vary(dw_mni=0.1)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="beta"):
        load("gokmen2016").vary(beta=8.0)


def test_parse_changes() -> None:
    assert parse_changes("dw_min_dtod=0,up_down_dtod=0.02") == {
        "dw_min_dtod": 0.0,
        "up_down_dtod": 0.02,
    }
    assert parse_changes(" m1 = -1e-3 ") == {"m1": -0.001}
    assert parse_changes("") == parse_changes("  ") == {}


@pytest.mark.parametrize(
    "text", ["dw_min", "dw_min=", "=3", "dw_min=0.1,", ",", "dw_min=x", "a=1=2", "a=1,a=2", "a 1"]
)
def test_malformed_changes_are_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_changes(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_soft_bounds_model_says_that_nobody_measured_it() -> None:
    model = load("softbounds")
    assert isinstance(model.device, SoftBoundsParameters)
    assert {q.status for q in model.quantities} == {"assumed"}
    assert "not a device anyone measured" in model.note
