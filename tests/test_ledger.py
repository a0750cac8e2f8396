"""The ledger counts exactly what rules commanded, arrays read and devices received."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import devicemodels.kernels
import mcatrain
import mcatrain.kernels
from devicemodels import PulseEvents
from devicemodels.devices.pcm import PCMArray
from mcatrain import Converters, Periphery, tiles
from mcatrain.ledger import counts, total

DEVICES: list[tuple[str, dict[str, Any]]] = [
    ("nandakumar2018", {}),
    ("nandakumar2018", {"devices_per_weight": 3}),
    ("nandakumar2018", {"devices_per_weight": 2, "selection": "all"}),
    ("gokmen2016", {}),
    ("gokmen2016", {"devices_per_weight": 4}),
    ("softbounds", {"zero_shift": 7}),
    ("linear", {}),
    ("ideal", {"devices_per_weight": 2, "selection": "counter"}),
]


class Lines(nn.Module):
    """Sequences through an LSTM, the scores of all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0]).flatten(0, 1)


def network(kind: str) -> tuple[nn.Module, tuple[int, ...], int]:
    """Return a small network, the shape of an example, and its labels an example."""
    if kind == "lstm":
        return Lines(), (3, 6), 3
    if kind == "cnn":
        layers = nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(64, 4)), (2, 5, 5), 1
    return nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 4)), (9,), 1


def step(model: nn.Module, optimizer: Any, shape: tuple[int, ...], batch: int, labels: int) -> None:
    optimizer.zero_grad()
    target = torch.randint(0, 4, (batch * labels,))
    cross_entropy(model(torch.randn(batch, *shape)), target).backward()
    optimizer.step()


@contextmanager
def received(model: nn.Module) -> Iterator[dict[str, Counter[str]]]:
    """Count by layer what the rules command and what the device arrays are given."""
    found: dict[str, Counter[str]] = {name: Counter() for name in tiles(model)}

    def command(n: Counter[str], pulse: Any, events: PulseEvents, now_s: float) -> None:
        n["commanded"] += int(events.count.abs().sum())
        n["entries"] += int((events.count != 0).sum())
        pulse(events, now_s)

    def set_(n: Counter[str], set_: Any, index: Tensor, count: Tensor, *rest: Any) -> None:
        n["set"] += int(count.sum())
        set_(index, count, *rest)

    def reset(n: Counter[str], reset: Any, index: Tensor, now_s: float) -> None:
        n["reset"] += len(index)
        reset(index, now_s)

    def pulse(n: Counter[str], pulse: Any, index: Tensor, count: Tensor, *rest: Any) -> None:
        n["set"] += int(count.clamp(min=0).sum())
        n["reset"] += int((-count).clamp(min=0).sum())
        pulse(index, count, *rest)

    pairs: dict[int, Counter[str]] = {}
    send = devicemodels.kernels.pulse_pairs

    def pulse_pairs(conductance_us: Tensor, *rest: Any) -> None:
        pairs[id(conductance_us)]["set"] += int(rest[3].count.abs().sum())
        send(conductance_us, *rest)

    for name, tile in tiles(model).items():
        n, synapse = found[name], tile.synapse
        devices = getattr(synapse, "array", synapse).devices
        synapse.pulse = partial(command, n, synapse.pulse)
        if isinstance(devices, PCMArray):
            pairs[id(devices.conductance_us)] = n
            devices.set = partial(set_, n, devices.set)  # of refreshes
            devices.reset = partial(reset, n, devices.reset)
        else:
            devices.pulse = partial(pulse, n, devices.pulse)
    with mock.patch.object(devicemodels.kernels, "pulse_pairs", pulse_pairs):
        yield found


@pytest.mark.parametrize("case", range(24))
def test_totals_are_the_commanded_pulses(case: int) -> None:
    """Random rules, devices, networks, batches: not one pulse more or less, layer by layer."""
    draw = random.Random(case)
    torch.manual_seed(case)
    device, options = draw.choice(DEVICES)
    plain, shape, labels = network(draw.choice(["mlp", "cnn", "lstm"]))
    model = mcatrain.convert(plain, device, seed=case, initial="devices", **options)
    kind, lr = draw.choice([(mcatrain.MCA, 3.0), (mcatrain.RPU, 0.5)])
    mca = kind is mcatrain.MCA
    extra: dict[str, Any] = {"epsilon": 0.02} if mca else {"bl_management": case % 2 == 0}
    optimizer: Any = kind(model, lr=lr, refresh_every=draw.choice([0, 3]), **extra)
    # Zero shifting is done by now; it is among the pulses, `pairs` of them up and down.
    shifted = {n: t.synapse.set_pulses for n, t in tiles(model).items()}
    assert {n: t.synapse.reset_pulses for n, t in tiles(model).items()} == shifted
    pairs = options.get("zero_shift", 0)
    assert shifted == {n: pairs * t.chi.numel() for n, t in tiles(model).items()}
    takers = 1 if options.get("selection", "counter" if device == "nandakumar2018" else "all") == (
        "counter"
    ) else options.get("devices_per_weight", 1)  # fmt: skip
    with received(model) as found:
        for _ in range(12):
            step(model, optimizer, shape, draw.choice([1, 3]), labels)
    for name, tile in tiles(model).items():
        n, c = found[name], counts(tile)
        assert c["set_pulses"] - shifted[name] == n["set"]
        assert c["reset_pulses"] - shifted[name] == n["reset"]
        by_refresh = c["refresh_set_pulses"] + 2 * c["refreshes"]
        assert n["set"] + n["reset"] == takers * n["commanded"] + by_refresh
        assert c["devices"] == sum(v.numel() for v in tile.synapse.conductances(0.0).values())
        assert c["refresh_checks"] % c["devices"] == 0
    whole = total(map(counts, tiles(model).values()))
    assert whole["set_pulses"] + whole["reset_pulses"] > 50
    assert sum(n["commanded"] for n in found.values()) > 0


def test_refreshes_are_part_of_the_test_above() -> None:
    """Saturating pairs are rewritten within a few steps; their pulses are told apart."""
    torch.manual_seed(0)
    plain, shape, labels = network("mlp")
    model = mcatrain.convert(plain, beta=60.0)
    optimizer = mcatrain.MCA(model, lr=5.0, epsilon=0.01, refresh_every=1)
    for _ in range(15):
        step(model, optimizer, shape, 1, labels)
    c = total(map(counts, tiles(model).values()))
    assert c["refreshes"] > 5
    assert 0 < c["refresh_set_pulses"] < c["set_pulses"]
    assert c["reset_pulses"] == 2 * c["refreshes"]
    assert c["refresh_checks"] == 15 * c["devices"]


@pytest.mark.parametrize("kind", ["mlp", "cnn", "lstm"])
@pytest.mark.parametrize("rule", ["mca", "rpu"])
def test_reads_are_what_converters_saw(kind: str, rule: str) -> None:
    """Repeats of bound management included; evaluation apart; ideal converters read the same."""
    torch.manual_seed(1)
    plain, shape, labels = network(kind)
    narrow = Converters(input_bits=8, output_bits=8, output_bound=0.4, bound_management=True)
    made, seen = {}, 0

    def convert(x: Tensor, *rest: Any) -> Any:
        nonlocal seen
        seen += len(x)
        return kernel(x, *rest)

    kernel = mcatrain.kernels.convert
    for name, periphery in (
        ("repeats", Periphery(forward=narrow, backward=narrow)),
        ("ideal", Periphery()),
    ):
        model = mcatrain.convert(copy.deepcopy(plain), "gokmen2016", periphery=periphery)
        by_rule: dict[str, Any] = {"mca": mcatrain.MCA, "rpu": mcatrain.RPU}
        optimizer = by_rule[rule](model, lr=0.1)
        # The reference sends every pass through this one kernel; counting knows no forms.
        with (
            devicemodels.kernels.use("reference"),
            mock.patch.object(mcatrain.kernels, "convert", convert),
        ):
            seen = 0
            for _ in range(3):
                step(model, optimizer, shape, 2, labels)
            trained = total(map(counts, tiles(model).values()))
            if name == "repeats":
                assert trained["forward_reads"] + trained["backward_reads"] == seen
                assert trained["forward_repeats"] > 0
            seen = 0
            with torch.no_grad():
                model.eval()(torch.randn(5, *shape))
        after = total(map(counts, tiles(model).values()))
        if name == "repeats":
            assert after["evaluation_reads"] == seen > 0
        same = {k for k in after if not k.startswith("evaluation")}
        assert {k: after[k] for k in same} == {k: trained[k] for k in same}
        made[name] = after
    for key in ("forward_macs", "backward_macs", "evaluation_macs", "update_macs"):
        assert made["ideal"][key] == made["repeats"][key] > 0
    assert made["ideal"]["forward_repeats"] == 0


def test_counts_of_a_fully_connected_step() -> None:
    """By hand, for 9-7-4 with biases, batches of 2, three steps of MCA, then RPU without BLM."""
    plain, shape, labels = network("mlp")
    model = mcatrain.convert(plain, "gokmen2016", periphery="ideal")
    optimizer: Any = mcatrain.MCA(model, lr=0.1)
    for _ in range(3):
        step(model, optimizer, shape, 2, labels)
    one, two = map(counts, tiles(model).values())
    assert (one["weights"], two["weights"]) == (70, 32)
    assert (one["forward_dac"], one["forward_adc"]) == (6 * 10, 6 * 7)
    assert (two["backward_dac"], two["backward_adc"]) == (6 * 4, 6 * 8)
    assert one["backward_reads"] == 0  # the data needs no gradient
    assert (one["forward_macs"], one["update_macs"]) == (6 * 70, 6 * 70)
    assert (one["chi_accumulations"], two["chi_accumulations"]) == (3 * 70, 3 * 32)
    assert (one["weight_accesses"], two["weight_accesses"]) == (9 * 70, 12 * 32)
    assert one["line_slots"] == 0
    optimizer = mcatrain.RPU(model, lr=0.1, pulse_length=6)
    step(model, optimizer, shape, 2, labels)
    one = counts(next(iter(tiles(model).values())))
    assert one["line_slots"] == 2 * 6 * (10 + 7)
    assert one["chi_accumulations"] == 3 * 70
    assert one["weight_accesses"] == 12 * 70


def test_entries_are_those_at_or_above_epsilon() -> None:
    plain, shape, labels = network("mlp")
    model = mcatrain.convert(plain, "gokmen2016")
    optimizer = mcatrain.MCA(model, lr=1.0, epsilon=0.05)
    with received(model) as found:
        for _ in range(5):
            step(model, optimizer, shape, 1, labels)
    for name, tile in tiles(model).items():
        assert counts(tile)["chi_entries"] == found[name]["entries"] > 0


def test_frozen_layer_is_read_but_not_updated() -> None:
    plain, shape, labels = network("mlp")
    model = mcatrain.convert(plain, "gokmen2016")
    first, second = tiles(model).values()
    first.chi.requires_grad_(False)
    step(model, mcatrain.MCA(model, lr=0.1), shape, 1, labels)
    assert counts(first)["forward_reads"] == 1
    assert counts(first)["update_macs"] == counts(first)["chi_accumulations"] == 0
    assert counts(second)["chi_accumulations"] == 32


def test_counts_are_saved_with_the_model() -> None:
    plain, shape, labels = network("cnn")
    fresh = copy.deepcopy(plain)
    model = mcatrain.convert(plain, "gokmen2016")
    step(model, mcatrain.RPU(model, lr=0.5), shape, 2, labels)
    with torch.no_grad():
        model.eval()(torch.randn(2, *shape))
    other = mcatrain.convert(fresh, "gokmen2016", seed=5)
    other.load_state_dict(model.state_dict())
    twin = copy.deepcopy(model)
    for name, tile in tiles(model).items():
        assert counts(tiles(other)[name]) == counts(tile)
        assert counts(tiles(twin)[name]) == counts(tile)
        assert tiles(twin)[name].ledger is not tile.ledger
    state = model.state_dict()
    del state["0.tile.ledger"]
    with pytest.raises(RuntimeError, match=r"0\.tile\.ledger"):
        other.load_state_dict(state)
