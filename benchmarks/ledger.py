"""What counting costs: training steps with the ledger's statements, and without them.

One network trains on; blocks of steps with and without counting take turns, in the order A B B A,
so that what changes as training goes on hits both. Each two blocks give a ratio; blocks go on
until the median of the ratios is known to within 1 % (95 % interval, bootstrap).
"""

from __future__ import annotations

import inspect
import statistics
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import CodeType, FunctionType

import numpy as np
import torch

from benchmarks.cases import MCA, RPU, cases
from benchmarks.networks import MLP
from benchmarks.part import Effort, Part, Table
from benchmarks.timing import train
from mcatrain import periphery
from mcatrain.optim import mca, rpu
from mcatrain.tile import Tile

#: All that a step does for the ledger, as it stands in the source, and what stands there without.
#: A text that a function no longer has is an error here: its cost would silently be left out.
_COUNTING: dict[Callable[..., object], dict[str, str]] = {
    Tile.forward: {", self.reads.forward": ""},
    Tile.backward: {", self.reads.backward": ""},
    Tile.collect: {"self.ledger.update_vectors += x.shape[0]": "pass"},
    Tile.refresh: {
        "before = self.synapse.set_pulses": "pass",
        "self.ledger.refresh_checks += self.synapse.can_saturate": "pass",
        "self.ledger.refresh_set_pulses += self.synapse.set_pulses - before": "pass",
    },
    periphery.matvec: {"if reads is not None:\n    reads.vectors += x.shape[0]": "pass"},
    periphery.within_bounds: {"if reads is not None:\n        reads.repeats += len(clipped)": ""},
    mca.MCA._change_weights: {
        "changed = p.grad is not None or bool(tile.kept)": "pass",
        "tile.ledger.chi_steps += changed": "pass",
        "tile.ledger.chi_entries += entries": "pass",
    },
    rpu.RPU._update: {
        "tile.ledger.stream_steps += 1": "pass",
        "tile.ledger.slots += slots if self.bl_management else n * pulse_length": "pass",
    },
}
_STEPS = 10  # of a block
_LEAST, _MOST = 400, 8000  # ratios
_WIDTH = 0.01


@dataclass(frozen=True)
class Cost:
    """Time that counting adds to a step, as a share of it: median, and its 95 % interval."""

    share: float
    low: float
    high: float
    ratios: int
    step_us: float


def _bare(function: Callable[..., object]) -> CodeType:
    """Compile a function without what it counts."""
    assert isinstance(function, FunctionType)
    source = textwrap.dedent(inspect.getsource(function))
    for text, other in _COUNTING[function].items():
        indented = text.replace("\n", "\n    ")
        assert source.count(indented) == 1, f"{function.__qualname__} no longer has {text!r}"
        source = source.replace(indented, other)
    made: dict[str, FunctionType] = {}
    exec(  # what it refers to is found where the function itself finds it
        compile(
            "from __future__ import annotations\n" + source, function.__code__.co_filename, "exec"
        ),
        dict(function.__globals__),
        made,
    )
    return made[function.__name__].__code__


@contextmanager
def uncounted() -> Iterator[Callable[[bool], None]]:
    """Give a switch that turns counting on and off, and turn it on again at the end."""
    codes = {f: (f.__code__, _bare(f)) for f in _COUNTING if isinstance(f, FunctionType)}

    def switch(counts: bool) -> None:
        for function, (whole, bare) in codes.items():
            function.__code__ = whole if counts else bare

    try:
        yield switch
    finally:
        switch(True)


def _cost(name: str, effort: Effort) -> Cost:
    torch.manual_seed(0)
    model, optimizer = cases(MLP.pcm)[name](MLP.make())
    chance = torch.Generator().manual_seed(1)
    times: dict[bool, list[float]] = {True: [], False: []}

    def block(counts: bool, steps: int) -> None:
        switch(counts)
        batches = [MLP.draw(1, chance) for _ in range(steps + 1)]
        train(model, optimizer, batches[0])
        start = effort.clock()
        for batch in batches[1:]:
            train(model, optimizer, batch)
        times[counts].append((effort.clock() - start) / steps)

    steps = 2 if effort.smoke else _STEPS
    with uncounted() as switch:
        for counts in (True, False):  # compiles, warms up
            block(counts, steps)
        for found in times.values():
            found.clear()
        while True:
            for _ in range(2 if effort.smoke else _LEAST // 2):
                for counts in (True, False, False, True):
                    block(counts, steps)
            ratios = np.array(times[True]) / np.array(times[False])
            low, high = _interval(ratios)
            if effort.smoke or high - low < _WIDTH or len(ratios) >= _MOST:
                break
    share = float(np.median(ratios)) - 1
    step_us = 1e6 * statistics.median(times[True])
    return Cost(share, low - 1, high - 1, len(ratios), step_us)


def _interval(ratios: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the median over draws of the ratios with replacement."""
    draws = np.random.default_rng(0).choice(ratios, (1000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def measure(effort: Effort) -> Part:
    """Measure the rules, on devices of both kinds, at batch 1: the shortest steps there are."""
    names = (MCA, "MCA, PCM pair, ideal converters", RPU)
    found = {name: _cost(name, effort) for name in names[: 1 if effort.smoke else None]}
    rows = [
        [
            name,
            f"{cost.step_us:.0f}",
            f"{100 * cost.share:+.2f} %",
            f"{100 * cost.low:+.2f} to {100 * cost.high:+.2f} %",
            str(cost.ratios),
        ]
        for name, cost in found.items()
    ]
    table = Table(
        "784-250-10, batch 1",
        f"Time that counting adds to a step: median of the ratios of blocks of {_STEPS} steps with "
        "and without it; the bar is 2 %.",
        ["", "µs a step", "counting", "95 % interval", "ratios"],
        rows,
    )
    return Part("Cost of the ledger", [table], {name: asdict(cost) for name, cost in found.items()})
