"""Wear names the devices that had the pulses: what each device's own state says, G+ and G- apart.

Swapped sides would keep every sum: only devices by themselves tell.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mcatrain
from devicemodels import kernels
from devicemodels.devices.pcm import PCMArray
from devicemodels.wear import Wear, track_wear
from mcatrain import tiles

#: A test of what every form of the kernels does, ``fast`` being any of them.
EVERY_FORM = pytest.mark.parametrize("fast", ["reference", "cpu", "cuda"], indirect=True)


def made(place: torch.device, device: str, **options: Any) -> nn.Module:
    """Return a network of two layers whose devices' wear is counted."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    model = mcatrain.convert(net, device, seed=3, initial="devices", **options).to(place)
    track_wear(model)
    return model


def step(model: nn.Module, optimizer: Any, place: torch.device) -> None:
    x, y = torch.randn(3, 5).to(place), torch.randint(0, 3, (3,)).to(place)
    optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    optimizer.step()


def arrays(model: nn.Module) -> list[tuple[mcatrain.Tile, Any, Wear]]:
    """Return (tile, devices, wear) of each."""
    found = []
    for tile in tiles(model).values():
        devices = getattr(tile.synapse, "array", tile.synapse).devices  # type: ignore[union-attr]
        assert devices.wear is not None
        found.append((tile, devices, devices.wear))
    return found


def differ(pulses: Tensor) -> bool:
    """Whether the two sides of pairs had other pulses, so that a swap would show."""
    plus, minus = pulses.view(2, -1)
    return not torch.equal(plus, minus)


@EVERY_FORM
@pytest.mark.parametrize("rule", ["mca", "rpu"])
@pytest.mark.parametrize("several", [{}, {"devices_per_weight": 3}])
def test_wear_is_the_devices_own_count(
    rule: str, several: dict[str, Any], fast: str, place: torch.device
) -> None:
    """Without refresh a PCM device's counter of SET pulses since its RESET counts them all."""
    with kernels.use(fast):
        model = made(place, "nandakumar2018", **several)
        before = [devices.pulses.clone() for _, devices, _ in arrays(model)]
        optimizer: Any = (
            mcatrain.MCA(model, lr=2.0, epsilon=0.01, refresh_every=0)
            if rule == "mca"
            else mcatrain.RPU(model, lr=0.3, refresh_every=0)
        )
        for _ in range(4):
            step(model, optimizer, place)
    for (_, devices, wear), begun in zip(arrays(model), before, strict=True):
        assert torch.equal(wear.set_pulses, devices.pulses - begun)
        assert not wear.reset_pulses.any()
        assert differ(wear.set_pulses)


@EVERY_FORM
def test_wear_by_refresh(fast: str, place: torch.device) -> None:
    """A refresh gives both devices of a pair a RESET and one of them what its counter then shows.

    RESET leaves a conductance of its own, so that a change tells which devices had one.
    """
    with kernels.use(fast):
        model = made(place, "nandakumar2018")
        for _, devices, _ in arrays(model):
            devices.conductance_us += 7.0  # near saturation
        optimizer = mcatrain.MCA(model, lr=2.0, epsilon=0.01, refresh_every=0)
        sets = [torch.zeros_like(wear.set_pulses) for _, _, wear in arrays(model)]
        resets = [torch.zeros_like(wear.set_pulses) for _, _, wear in arrays(model)]
        by_refresh = 0
        for number in range(1, 5):
            pulses = [devices.pulses.clone() for _, devices, _ in arrays(model)]
            step(model, optimizer, place)
            for k, (tile, devices, _) in enumerate(arrays(model)):
                assert isinstance(devices, PCMArray)
                sets[k] += devices.pulses - pulses[k]
                if number % 2:
                    continue
                conductance_us = devices.conductance_us.clone()
                tile.refresh()
                was_reset = devices.conductance_us != conductance_us
                assert torch.equal(*was_reset.view(2, -1))
                resets[k] += was_reset
                sets[k] += torch.where(was_reset, devices.pulses, 0)
                by_refresh += int(devices.pulses[was_reset].sum())
    for (_, _, wear), set_pulses, reset_pulses in zip(arrays(model), sets, resets, strict=True):
        assert torch.equal(wear.set_pulses, set_pulses)
        assert torch.equal(wear.reset_pulses, reset_pulses)
        assert differ(wear.set_pulses)
    assert by_refresh > 0
    assert sum(int(one.sum()) for one in resets) > 4


@EVERY_FORM
def test_wear_of_a_bipolar_device_is_where_it_went(fast: str, place: torch.device) -> None:
    """Every pulse of an ideal device is one step of its own, up or down."""
    with kernels.use(fast):
        model = made(place, "ideal", devices_per_weight=2, selection="counter")
        before = [devices.weight.clone() for _, devices, _ in arrays(model)]
        optimizer = mcatrain.MCA(model, lr=1.0, epsilon=0.02)
        for _ in range(4):
            step(model, optimizer, place)
    for (tile, devices, wear), begun in zip(arrays(model), before, strict=True):
        moved = (devices.weight - begun).double()
        pulse = 2 * tile.synapse.granularity
        net = (wear.set_pulses - wear.reset_pulses).double()
        assert torch.allclose(moved, pulse * net, atol=pulse / 100)
        assert wear.set_pulses.sum() > 0
        assert wear.reset_pulses.sum() > 0
