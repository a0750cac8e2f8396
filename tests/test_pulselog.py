"""A log of pulses replays to the same devices; what is wrong with one is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import mcatrain
from devicemodels.errors import InputError
from devicemodels.wear import track_wear
from mcatrain import tiles
from mcatrain.pulselog import PulseLog, replay
from mcatrain.run.accounts import wear, worn

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mca-pcm": ("mca", "nandakumar2018", {}),
    "mca-pcm-in-turn": ("mca", "nandakumar2018", {"devices_per_weight": 3}),
    "rpu-pcm": ("rpu", "nandakumar2018", {}),
    "rpu-step": ("rpu", "gokmen2016", {"array_size": (4, 6)}),
    "mca-soft": ("mca", "softbounds", {"zero_shift": 5}),
    "rpu-ideal": ("rpu", "ideal", {}),
}


def made(case: str) -> tuple[nn.Module, Any]:
    """Return a network and its optimizer, always the same."""
    rule, device, options = CASES[case]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 4))
    model = mcatrain.convert(net, device, seed=3, initial="devices", **options)
    if rule == "rpu":
        return model, mcatrain.RPU(model, lr=0.5, refresh_every=2, sequential=False)
    return model, mcatrain.MCA(model, lr=3.0, epsilon=0.01, refresh_every=2)


def train(case: str, folder: Path | None, steps: int = 12) -> nn.Module:
    model, optimizer = made(case)
    track_wear(model)
    log = PulseLog(model, folder) if folder else None
    for step in range(1, steps + 1):
        if log:
            log.begin(step)
        optimizer.zero_grad()
        cross_entropy(model(torch.randn(3, 9)), torch.randint(0, 4, (3,))).backward()
        optimizer.step()
        if log and step % 5 == 0:
            log.flush()
    if log:
        log.flush()
    return model


def devices(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what pulses make of the devices: state, counts, wear."""
    state = model.state_dict()
    found = {k: v for k, v in state.items() if ".devices." in k or k.endswith("_pulses")}
    assert found
    return found


@pytest.mark.parametrize("case", CASES)
def test_replay_gives_the_same_devices(case: str, tmp_path: Path) -> None:
    trained = train(case, tmp_path / "log")
    again, _ = made(case)
    track_wear(again)
    assert any(
        not torch.equal(value, devices(again)[name]) for name, value in devices(trained).items()
    )
    replay(tmp_path / "log", again)
    for name, value in devices(trained).items():
        assert torch.equal(devices(again)[name], value), name
    rows = pq.read_table(tmp_path / "log").to_pandas()
    logged = int(rows["count"][rows["polarity"] != 0].sum())
    sent = sum(t.synapse.set_pulses + t.synapse.reset_pulses for t in tiles(trained).values())
    if CASES[case][1] == "gokmen2016":  # no refresh, no zero shift: the log has every pulse
        assert logged == sent > 0
    assert 0 < logged <= sent


@pytest.mark.parametrize("case", CASES)
def test_a_log_changes_nothing(case: str, tmp_path: Path) -> None:
    """Every tensor and random state is that of the training without a log, bit for bit."""
    logged, plain = (train(case, folder, steps=30) for folder in (tmp_path / "log", None))
    for name, value in plain.state_dict().items():
        assert torch.equal(logged.state_dict()[name], value), name


def test_refreshes_are_logged(tmp_path: Path) -> None:
    model = train("mca-pcm", tmp_path / "log", steps=40)
    rows = pq.read_table(tmp_path / "log").to_pandas()
    refreshed = rows[rows["polarity"] == 0]
    assert refreshed["count"].sum() == sum(t.synapse.refreshes for t in tiles(model).values()) > 0
    assert set(refreshed["row"]) == {-1}
    assert (rows["step"].diff().dropna() >= 0).all()
    again, _ = made("mca-pcm")
    track_wear(again)
    replay(tmp_path / "log", again)
    for name, value in devices(model).items():
        assert torch.equal(devices(again)[name], value), name


@pytest.mark.parametrize("case", CASES)
def test_wear_of_the_devices_sums_up_to_the_pulses(case: str) -> None:
    model = train(case, None)
    for tile in tiles(model).values():
        synapse: Any = tile.synapse
        kept = getattr(synapse, "array", synapse).devices.wear
        assert kept.set_pulses.sum() == synapse.set_pulses > 0
        assert kept.reset_pulses.sum() == synapse.reset_pulses


def test_wear_table() -> None:
    model = train("mca-pcm", None)
    pulses = torch.cat([p for layer, p in worn(model) if layer == "0"])
    middle = pulses.median().item()
    found = wear(model, endurance=middle)["0"]
    assert found["devices"] == 2 * 70
    assert found["most"] == int(pulses.max())
    assert found["share_above"] == int((pulses > middle).sum()) / 140
    assert 0 < found["share_above"] < 1
    assert "share_above" not in wear(model, None)["0"]


def test_wear_takes_no_memory_unless_asked_for() -> None:
    """40 bytes of devices, 6 of cached reads and 4 of chi a weight, but for a few in all."""
    model = mcatrain.convert(nn.Linear(400, 400, bias=False), "nandakumar2018")
    taken = sum(b.nbytes for b in [*model.buffers(), *model.parameters()]) / 400**2
    assert taken < 50.2
    track_wear(model)
    with_wear = sum(b.nbytes for b in [*model.buffers(), *model.parameters()]) / 400**2
    assert with_wear == pytest.approx(taken + 16, abs=0.01)


def test_wear_must_be_asked_for_before_training(tmp_path: Path) -> None:
    model, optimizer = made("mca-pcm")
    cross_entropy(model(torch.randn(3, 9)), torch.randint(0, 4, (3,))).backward()
    optimizer.step()
    with pytest.raises(InputError, match="before training"):
        track_wear(model)


def test_bad_logs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pulse log"):
        replay(tmp_path, made("mca-pcm")[0])
    train("mca-pcm", tmp_path / "log")
    other = mcatrain.convert(nn.ModuleDict({"a": nn.Linear(9, 7)}))
    with pytest.raises(InputError, match="not in the model"):
        replay(tmp_path / "log", other)
    small = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    with pytest.raises(InputError, match="smaller"):
        replay(tmp_path / "log", mcatrain.convert(small))
    next((tmp_path / "log").iterdir()).write_text("no Parquet")
    with pytest.raises(InputError, match="cannot be read"):
        replay(tmp_path / "log", made("mca-pcm")[0])
