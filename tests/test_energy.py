"""Energy and time: the paper's totals, the ledger of a real step, additivity, bad files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import mcatrain
from devicemodels.errors import InputError
from mcatrain import energy, tiles
from mcatrain.ledger import counts, total

MODEL = energy.load("nandakumar2020")
#: 1.1 pulses an image and a look at all pairs every 100: our own run of 15 epochs.
IMAGES = energy.mlp_image((784, 250, 10), pulses=1100, examples=1000, refresh_every=100)


def test_totals_of_nandakumar2020() -> None:
    """Front. Neurosci. 14:406: 83.2 nJ against 14.35 uJ an image, 172 times (verified)."""
    parts = {name: value / 1000 for name, value in MODEL.training(IMAGES, bipolar=False).items()}
    whole, digital = sum(parts.values()), sum(MODEL.digital(IMAGES).values()) / 1000
    assert whole == pytest.approx(83.2e-9, rel=0.05)
    assert digital == pytest.approx(14.35e-6, rel=0.05)
    assert digital / whole == pytest.approx(172, rel=0.05)
    passes = sum(value for name, value in parts.items() if name[:7] in ("forward", "backwar"))
    assert passes == pytest.approx(21.4e-9, rel=0.05)  # recalled
    assert whole - passes == pytest.approx(61.8e-9, rel=0.05)  # recalled


def test_the_file_says_what_was_fitted() -> None:
    """Whatever decides the totals above must not pass for a published value."""
    status = {q.name: q.status for q in MODEL.quantities}
    assert {n for n, s in status.items() if s == "fitted"} == {
        "adc_pj", "chi_pj", "chi_accesses", "sram32_pj",
    }  # fmt: skip
    assert "fitted" in MODEL.note


def test_throughput_of_lstm2_512() -> None:
    """Gokmen, Rasch & Haensch 2018: 3.4 M devices, 85 TOPS; two LSTMs of 512 and 87 outputs."""
    lstm = nn.ModuleList([nn.LSTM(87, 512), nn.LSTM(512, 512), nn.Linear(512, 87)])
    model = mcatrain.convert(lstm, "gokmen2016")
    devices = total(map(counts, tiles(model).values()))["devices"]
    assert devices == pytest.approx(3.4e6, rel=0.01)
    assert MODEL.operations_per_second(devices) == pytest.approx(85e12, rel=0.05)


def test_counts_of_the_paper_are_those_of_a_real_step() -> None:
    torch.manual_seed(0)
    model = mcatrain.convert(nn.Sequential(nn.Linear(20, 8), nn.Sigmoid(), nn.Linear(8, 3)))
    optimizer = mcatrain.MCA(model, lr=0.4, refresh_every=2)
    for _ in range(4):
        optimizer.zero_grad()
        mse_loss(model(torch.rand(1, 20)), torch.rand(1, 3)).backward()
        optimizer.step()
    found = total(map(counts, tiles(model).values()))
    wanted = energy.mlp_image((20, 8, 3), found["set_pulses"], 4, refresh_every=2)
    assert found["forward_repeats"] == found["backward_repeats"] == found["refreshes"] == 0
    assert {name: found[name] for name in wanted} == wanted


def test_energy_is_linear_in_the_work() -> None:
    twice = {name: 2 * n for name, n in IMAGES.items() if n} | {"weights": IMAGES["weights"]}
    twice = IMAGES | twice
    for one, two in (
        (MODEL.training(IMAGES, bipolar=False), MODEL.training(twice, bipolar=False)),
        (MODEL.digital(IMAGES), MODEL.digital(twice)),
        (MODEL.seconds(IMAGES, bipolar=False), MODEL.seconds(twice, bipolar=False)),
    ):
        for name, value in one.items():
            assert two[name] == pytest.approx(2 * value)


def test_each_operation_has_its_price() -> None:
    """One more of each costs what the file says, in its part alone."""
    o = MODEL.operations
    prices = {
        ("forward_dac", "forward converters"): o.dac_pj, ("backward_adc", "backward converters"):
        o.adc_pj, ("set_pulses", "pulses"): o.set_pj, ("reset_pulses", "refresh"): o.reset_pj,
        ("line_slots", "update"): o.slot_pj, ("chi_accumulations", "update"): o.chi_pj,
        ("update_macs", "update"): o.outer_mac_pj,
        ("forward_device_reads", "forward array"): o.pcm_read_fj / 1e3,
        ("refresh_checks", "refresh"): o.check_fj / 1e3,
    }  # fmt: skip
    base = MODEL.training(IMAGES, bipolar=False)
    for (count, part), price in prices.items():
        more = MODEL.training(IMAGES | {count: IMAGES[count] + 10**9}, bipolar=False)
        for name in base:
            rise = price * 1e-3 if name == part else 0.0
            assert more[name] - base[name] == pytest.approx(rise, rel=1e-6, abs=1e-15), count
    step = MODEL.training(IMAGES, bipolar=True)
    assert step["pulses"] == pytest.approx(1100 * o.step_pj * 1e-12)
    assert step["forward array"] < base["forward array"]


def test_large_networks_lie_in_dram() -> None:
    large = IMAGES | {"weights": 10**8}
    ratio = MODEL.digital(large)["memory"] / MODEL.digital(IMAGES)["memory"]
    assert ratio == pytest.approx(MODEL.operations.dram32_pj / MODEL.operations.sram32_pj)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('unit = "pJ", range = [0.01, 1000.0], status = "assumed"', 'unit = "nJ", range = '
         '[0.01, 1000.0], status = "assumed"', ("dac_pj", "'nJ'", "'pJ'")),
        ("value = 4.0,", "value = -4.0,", ("dac_pj", "out of range")),
        ("dac_pj  ", "dca_pj  ", ("dca_pj", "dac_pj")),
        ('title = "', 'titel = "', ("title is missing",)),
        ("[operations]", "[operation]", ("operation",)),
        ('status = "fitted"', 'status = "known"', ("known", "fitted")),
    ],
)  # fmt: skip
def test_bad_files(old: str, new: str, words: tuple[str, ...], tmp_path: Path) -> None:
    source = Path(energy.__file__).parent / "parameters" / "nandakumar2020.toml"
    text = source.read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        energy.load(str(path))
    for word in ("mine.toml", *words):
        assert word in str(error.value)


def test_unknown_name_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nandakumar2020"):
        energy.load("nandakumar2002")
    with pytest.raises(InputError, match="cannot read"):
        energy.load(str(tmp_path / "none.toml"))
