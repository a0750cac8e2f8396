"""Compile every kernel of the cuda form for a card that need not be there: CAPABILITY as 90.

The interpreter knows no types and takes what the compiler would not. Here the callers run on
tensors of the CPU, and every launch is compiled to machine code and not run.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

import devicemodels.kernels.cuda as devices
import mcatrain.kernels.cuda as training
from devicemodels import PulseEvents, load
from devicemodels.synapses.base import Programmable
from mcatrain.periphery import PRESETS, Converters

compiled: set[str] = set()
_run = JITFunction.run


class Absent:
    """What the compiler asks of a driver."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
    """Compile instead of running; every float must have its type, or it would be a float32."""
    result = _run(kernel, *args, grid=grid, warmup=True, **options)
    for parameter, value in zip(kernel.params, args, strict=False):
        if isinstance(value, float):
            assert parameter.annotation in ("fp32", "fp64"), parameter.name
            assert result.src.signature[parameter.name] == parameter.annotation
    assert len(result.asm["cubin"]) > 1000
    compiled.add(kernel.__name__)
    return result


def launch_all() -> None:
    """Call every kernel with every choice that makes it another one."""
    n, pcm = 600, load("nandakumar2018").device
    g, weight, chi = torch.ones(2 * n), torch.zeros(n), torch.randn(20, 30)
    state = g, torch.zeros(2 * n, dtype=torch.int32), g.double(), g
    due = torch.zeros(10, dtype=torch.float64)
    index, one = torch.arange(100), torch.ones(100, dtype=torch.int64)
    devices.set_pulses(*state[:2], index, one, g, pcm)
    for listed in (None, index):
        for variance in (None, torch.zeros(n, dtype=torch.bfloat16)):
            way = 5.0, 8.0, pcm, 1e-3, 0.5, weight, variance, due
            devices.read_pairs(g, g.double(), g, listed, *way)
            devices.pulse_pairs(*state, PulseEvents(index, one), g, *way)
    devices.high_pairs(g, 4.0, 1.0)
    for kind in ("constant", "linear", "soft-bounds", "exponential"):
        response = SimpleNamespace(kind=kind, constants=(0.1,) * 6)
        for repeats in (False, True):
            devices.step_pulses(weight, torch.ones(n, 4), index, one, g, 0.3, response, repeats)
    x, d = torch.randn(3, 30), torch.randn(3, 20)
    training.spend(chi, 0.1)
    training.accumulate(chi, x[0], d[0], 0.1, 0.1)
    training.descend(chi, torch.ones_like(chi), 0.1, 0.1)
    for noisy in (False, True):
        caches = weight, torch.zeros(n, dtype=torch.bfloat16) if noisy else None, due
        to = Programmable(state, caches, 8.0, pcm, 1e-3, 5.0, 4.0, 1.0, 2**40)
        training.program(chi, torch.ones_like(chi), None, 0.1, 0.1, to)
        training.program(chi, None, (x[0], d[0]), 0.1, 0.1, to)
    stochastic = Converters(
        input_bits=8, output_bits=8, output_bound=4.0, output_noise=0.1,
        input_rounding="stochastic", output_rounding="stochastic",
    )  # fmt: skip
    # Numbers that are 1 reach a kernel as constants.
    one, few = torch.ones(1), torch.ones(2)
    count = index[1:2]
    devices.set_pulses(few, state[1][:2], index[:1], count, few, pcm)
    way = 5.0, 8.0, pcm, 1e-3, 0.5, one, one.bfloat16(), due[:1]
    for listed in (None, index[:1]):
        devices.read_pairs(few, few.double(), few, listed, *way)
    event = PulseEvents(index[:1], count)
    devices.pulse_pairs(few, state[1][:2], few.double(), few, event, few, *way)
    devices.high_pairs(few, 4.0, 1.0)
    for shape in ((1, 1), (1, 5), (5, 1)):
        training.spend(torch.ones(shape), 0.1)
        lines = torch.ones(1, shape[1]), torch.ones(1, shape[0])
        training.accumulate(torch.ones(shape), lines[0][0], lines[1][0], 0.1, 0.1)
        training.descend(torch.ones(shape), torch.ones(shape), 0.1, 0.1)
        w = torch.ones(shape)
        training.convert(
            lines[0], w, w.bfloat16(), PRESETS["mca"].forward, 1.0, None, lines[1], None
        )  # fmt: skip
    w, outputs = chi, torch.rand(3, 20)
    training.convert(x, w, w.abs().bfloat16(), PRESETS["mca"].forward, 1.0, None, outputs, None)
    training.convert(x, w, None, PRESETS["rpu2016"].forward, 1.0, None, outputs, None)
    training.convert(x, w, None, stochastic, 1.0, x, outputs, outputs)
    training.convert(x, w, None, Converters(noise_management=True), 1.0, None, None, None)


def kernels_of(package: ModuleType) -> set[str]:
    """Return the names of the kernels that a package launches: those with an underscore, but
    for the functions that they call."""
    modules = [v for v in vars(package).values() if isinstance(v, ModuleType)]
    found = {n: v for m in modules for n, v in vars(m).items() if isinstance(v, JITFunction)}
    source = "".join(v.src for v in found.values())
    return {n for n in found if n.startswith("_") and source.count(f"{n}(") == 1}


def main() -> None:
    JITFunction.run = compile_only
    triton.runtime.driver.set_active(Absent(int(sys.argv[1])))
    launch_all()
    missing = (kernels_of(devices) | kernels_of(training)) - compiled
    assert not missing, f"never launched here: {missing}"
    print(len(compiled), "kernels")


if __name__ == "__main__":
    main()
