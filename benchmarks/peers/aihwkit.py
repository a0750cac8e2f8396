"""A training step of the same MLP by aihwkit's presets and by mcatrain, step by step in turn.

aihwkit's wheels are tied to other versions of torch: build 1.2.0 from source in an environment of
its own, `pip install aihwkit==1.2.0 --no-build-isolation --no-deps` (it needs cmake, ninja,
pybind11, scikit-build, mypy and OpenBLAS's headers), and install mcatrain there too.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

import devicemodels
from benchmarks.cases import FLOAT32, LR, Case, float32, mca, rpu
from benchmarks.networks import MLP
from benchmarks.part import Effort, Part, Table
from benchmarks.timing import Times, alternate, train
from mcatrain import Converters, Periphery

_THEIRS, _OURS = "aihwkit, ", "mcatrain, "

# The settings of aihwkit's presets, so that both do the same work: PresetIOParameters,
# PresetUpdateParameters, GokmenVlasovPresetDevice.
_CONVERTERS = Converters(
    input_bits=7,
    output_bits=9,
    output_bound=20.0,
    output_noise=0.1,
    noise_management=True,
    bound_management=True,
)
_PERIPHERY = Periphery(forward=_CONVERTERS, backward=_CONVERTERS)
_UPDATE: dict[str, Any] = {"pulse_length": 31, "update_management": True, "bl_management": True}
_GOKMEN_VLASOV = {"dw_min": 0.0016, "up_down_dtod": 0.01, "w_max": 1.0, "w_min": -1.0}


@dataclass(frozen=True)
class Pair:
    """aihwkit's preset and what does the same here.

    every: batches between refreshes of PCM pairs, 0 for never; None where there is nothing to.
    """

    preset: str
    every: int | None
    ours: Callable[[nn.Module], Case]


def _pairs() -> dict[str, Pair]:
    """Return what is compared. Our PCM also drifts and reads noisily, which theirs does not."""
    pcm = {**MLP.pcm, "device_model": "nandakumar2018", "periphery": _PERIPHERY}
    constant: dict[str, Any] = {
        "device_model": devicemodels.load("gokmen2016").vary(**_GOKMEN_VLASOV),
        "periphery": _PERIPHERY,
    }
    pairs = {}
    for every, told in ((1, "refresh at every batch"), (0, "no refresh")):
        refresh: dict[str, Any] = {"refresh_every": every}
        pairs[f"mixed precision, PCM pair, {told}"] = Pair(
            "MixedPrecisionPCMPreset", every, mca(refresh, **pcm)
        )
        pairs[f"RPU, PCM pair, {told}"] = Pair("PCMPreset", every, rpu(refresh | _UPDATE, **pcm))
    pairs["mixed precision, constant step"] = Pair(
        "MixedPrecisionGokmenVlasovPreset", None, mca(**constant)
    )
    pairs["RPU, constant step"] = Pair("GokmenVlasovPreset", None, rpu(_UPDATE, **constant))
    return pairs


def _their_case(pair: Pair) -> Case:
    """Make the MLP of aihwkit's layers on one of its presets."""
    layers: Any = importlib.import_module("aihwkit.nn")
    optim: Any = importlib.import_module("aihwkit.optim")
    made = [
        layers.AnalogLinear(inputs, outputs, rpu_config=_their_settings(pair))
        for inputs, outputs in ((784, 250), (250, 10))
    ]
    model = layers.AnalogSequential(made[0], nn.Sigmoid(), made[1])
    optimizer = optim.AnalogSGD(model.parameters(), lr=LR)
    optimizer.regroup_param_groups(model)
    return model, optimizer


def _their_settings(pair: Pair) -> Any:
    presets: Any = importlib.import_module("aihwkit.simulator.presets")
    settings = getattr(presets, pair.preset)()
    if pair.every is not None:
        cell = settings.device
        getattr(cell, "device", cell).refresh_every = pair.every  # of the pair, in batches
    return settings


def measure(effort: Effort) -> Part | None:
    """Time both in turn; None, after a line that says so, where aihwkit is not installed."""
    if importlib.util.find_spec("aihwkit") is None:
        print("\npeers: aihwkit is not installed here: its table is left out")
        return None
    pairs = _pairs()
    found = {batch: _time(pairs, batch, effort) for batch in MLP.rounds}
    figures = {
        batch: {name: t.figures() for name, t in of.items()}
        | {f"ratio, {name}": _ratio(of, name) for name in pairs}
        for batch, of in found.items()
    }
    return Part("Beside aihwkit", [_table(pairs, found)], figures)


def _time(pairs: dict[str, Pair], batch: int, effort: Effort) -> dict[str, Times]:
    torch.manual_seed(0)
    cases = {FLOAT32: float32(MLP.make())}
    for name, pair in pairs.items():
        cases[_THEIRS + name] = _their_case(pair)
        cases[_OURS + name] = pair.ours(MLP.make())
    return alternate(
        {name: partial(train, *case) for name, case in cases.items()},
        partial(MLP.draw, batch, torch.Generator().manual_seed(batch)),
        warm_up=1 if effort.smoke else MLP.warm_up,
        rounds=effort.of(MLP.rounds[batch]),
        burst=MLP.burst,
        clock=effort.clock,
    )


def _ratio(of: dict[str, Times], name: str) -> float:
    return of[_OURS + name].ratio_to(of[_THEIRS + name])


def _table(pairs: dict[str, Pair], found: dict[int, dict[str, Times]]) -> Table:
    rows = [[FLOAT32, *(_cell(of[FLOAT32]) for of in found.values())]]
    for name in pairs:
        for who in (_THEIRS, _OURS):
            rows.append([who + name, *(_cell(of[who + name]) for of in found.values())])
        rows.append(["ours / theirs", *(f"{_ratio(of, name):.2f}" for of in found.values())])
    counts = ", ".join(str(len(of[FLOAT32].seconds)) for of in found.values())
    return Table(
        f"{MLP.title}, aihwkit {version('aihwkit')}",
        f"ms a step: median of {counts} steps (quartiles); ratios of steps in the same round. "
        "Converters, noise, pulse streams and the constant-step device are as in aihwkit's "
        "presets, which refresh PCM pairs at every batch: that is most of their time, so the same "
        "without a refresh stands below. Our PCM pair (nandakumar2018) drifts and has read noise "
        "besides, which its preset leaves out.",
        ["", *(f"batch {batch}" for batch in found)],
        rows,
    )


def _cell(times: Times) -> str:
    low, high = times.quartiles_ms
    return f"{times.median_ms:.2f} ({low:.2f}-{high:.2f})"
