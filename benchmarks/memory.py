"""Bytes a weight that MCA on a PCM pair takes: by part, and as the system sees it.

A PCM pair holds 40 bytes of device state (conductance, pulses, time, drift exponent of two
devices), 8 of cached reads, 4 of chi, and 4 of a gradient while it exists: 56.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.cases import mca
from benchmarks.part import Effort, Part, Table
from benchmarks.timing import train
from mcatrain import tiles

#: What state, caches, chi and gradient may take together.
BAR = 56
_RULES = {
    "MCA, PCM pair": mca(device_model="nandakumar2018"),
    "MCA, PCM pair, factored": mca({"factored": True}, device_model="nandakumar2018"),
}
_SIDE = 3200  # 10 million weights: 570 MB


def measure(effort: Effort) -> Part:
    """Build each case, train three steps, and add up its tensors and the system's view."""
    side = 320 if effort.smoke else _SIDE
    for name in _RULES:
        _bytes(name, 32)  # what code takes when it is first run is not the array's
    found = {name: _bytes(name, side) for name in _RULES}
    kinds = list(next(iter(found.values())))
    rows = [[name, *(f"{of[kind]:.2f}" for kind in kinds)] for name, of in found.items()]
    table = Table(
        f"Array of {side} x {side} weights, batch 1",
        f"Bytes a weight; the bar is {BAR}. Resident growth: what the system gave the process "
        "from before the network was made to after three steps (the gradient still there); peak: "
        "the most it gave within the third step.",
        ["", *kinds],
        rows,
    )
    return Part("Memory", [table], {"weights": side * side, "bar": BAR, "bytes": found})


def _bytes(name: str, side: int) -> dict[str, float]:
    _give_back()
    before = _resident("VmRSS")
    torch.manual_seed(0)
    model, optimizer = _RULES[name](nn.Sequential(nn.Linear(side, side, bias=False)))
    batch = torch.rand(1, side), torch.zeros(1, dtype=torch.int64)
    for _ in range(2):
        train(model, optimizer, batch)
    _give_back()
    _forget_peak()
    train(model, optimizer, batch)
    peak = _resident("VmHWM")
    _give_back()
    found = by_part(model, optimizer)
    found["sum"] = sum(found.values())
    per = {kind: value / side**2 for kind, value in found.items()}
    per["resident growth"] = (_resident("VmRSS") - before) / side**2
    per["peak"] = (peak - before) / side**2
    return per


def by_part(model: nn.Module, optimizer: Optimizer) -> dict[str, int]:
    """Return the bytes of a trained model's tensors by part, after a step."""
    parts = {"device state": 0, "caches": 0, "chi": 0, "gradient": 0, "optimizer": 0}
    for tile in tiles(model).values():
        for name, buffer in tile.synapse.named_buffers():
            kind = "device state" if name.startswith("devices.") else "caches"
            parts[kind] += buffer.nbytes
        parts["chi"] += tile.chi.nbytes
        parts["gradient"] += 0 if tile.chi.grad is None else tile.chi.grad.nbytes
        parts["gradient"] += sum(x.nbytes + d.nbytes for x, d in tile.kept)
    for state in optimizer.state.values():
        parts["optimizer"] += sum(v.nbytes for v in state.values() if isinstance(v, torch.Tensor))
    return parts


def _give_back() -> None:
    """Return freed memory to the system: an array made in it would not seem to take any."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def _resident(field: str) -> float:
    """Return VmRSS (now) or VmHWM (the peak) of this process in bytes; nan where unknown."""
    file = Path("/proc/self/status")
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith(field):
            return 1024.0 * int(line.split()[1])
    return float("nan")


def _forget_peak() -> None:
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")
