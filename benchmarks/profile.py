"""Where the time of a step goes: the entry points of the package under a stopwatch."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch

import devicemodels.kernels
import mcatrain.kernels
from benchmarks.cases import FLOAT32, MCA, MCA_FACTORED, RPU, cases
from benchmarks.networks import CNN, LSTM, MLP, Network
from benchmarks.part import Effort, Part, Table
from benchmarks.timing import Batch, Clock, alternate, train
from devicemodels.state import Chance
from devicemodels.synapses.bipolar import SingleBipolar
from devicemodels.synapses.pair import DifferentialPair
from mcatrain.grid import ArrayProduct
from mcatrain.kernels.cpu import lines, patchwise
from mcatrain.kernels.cpu.digits import Digits
from mcatrain.nn import native, sequence, streamed
from mcatrain.nn.native import NativeConvolution
from mcatrain.nn.patches import Patches
from mcatrain.nn.recurrent import Recurrence
from mcatrain.nn.streamed import StreamedConvolution
from mcatrain.optim.base import PulsedOptimizer
from mcatrain.tile import Tile

_VECTOR = "products, variance and converters of one vector"
_PRODUCTS, _VARIANCE, _CONVERTERS = "products", "read variance's products", "converters"
_NOISE, _READS, _PULSES = "random numbers", "drift and cached reads", "device pulses"
_GRADIENT, _CHI, _STREAMS = "gradient's product", "passes over chi", "bit streams"
_PATCHES, _GATES = "patches of images", "gates of the LSTM"
_LAYERS, _REST = "array layers, rest", "autograd, Python, other layers"
PARTS = (
    _VECTOR, _PRODUCTS, _VARIANCE, _CONVERTERS, _NOISE, _READS, _PULSES, _GRADIENT, _CHI,
    _STREAMS, _PATCHES, _GATES, _LAYERS, _REST,
)  # fmt: skip
_convert = importlib.import_module("mcatrain.kernels.cpu.convert")  # not its function
_ARRAYS = ArrayProduct, Recurrence, StreamedConvolution, NativeConvolution
#: Whose time is whose. What is called within another counts as its own part and not the other's.
#: A name that the package no longer has is an error here: its time would silently go to the rest.
_ENTRIES: tuple[tuple[Any, str, str], ...] = (
    (mcatrain.kernels, "spend", _CHI),
    (mcatrain.kernels, "accumulate", _CHI),
    (mcatrain.kernels, "descend", _CHI),
    (mcatrain.kernels, "coincidences", _STREAMS),
    (mcatrain.kernels, "coincidences_sum", _STREAMS),
    (mcatrain.kernels, "add_product", _GRADIENT),
    (mcatrain.MCA, "_spend", _CHI),
    *((module, "product", _PRODUCTS) for module in (_convert, lines, patchwise)),
    (mcatrain.kernels, "product", _PRODUCTS),
    (lines, "add_product", _PRODUCTS),
    (Digits, "products", _PRODUCTS),
    *((module, "noise_product", _VARIANCE) for module in (_convert, lines, patchwise, sequence)),
    (lines.Lines, "__init__", _CONVERTERS),
    (lines.Lines, "__call__", _CONVERTERS),
    (mcatrain.kernels, "convert_patches", _CONVERTERS),
    (mcatrain.kernels, "convert_to_patches", _CONVERTERS),
    *((module, "weight_gradient", _GRADIENT) for module in (native, streamed)),
    (mcatrain.kernels, "lstm_forward", _GATES),
    (mcatrain.kernels, "lstm_backward", _GATES),
    (mcatrain.RPU, "_update", _STREAMS),
    (devicemodels.kernels, "normals", _NOISE),
    (Chance, "normal", _NOISE),
    (Chance, "uniform", _NOISE),
    *((kind, "pulse", _PULSES) for kind in (DifferentialPair, SingleBipolar)),
    (DifferentialPair, "refresh", _PULSES),
    (DifferentialPair, "read", _READS),
    *((kind, "weights", _READS) for kind in (DifferentialPair, SingleBipolar)),
    *((kind, "read_variance", _READS) for kind in (DifferentialPair, SingleBipolar)),
    (Tile, "collect", _GRADIENT),
    (torch.optim.SGD, "step", _CHI),
    (PulsedOptimizer, "_require_all_finite", _CHI),
    (Patches, "forward", _PATCHES),
    (Patches, "backward", _PATCHES),
    *((kind, "forward", _LAYERS) for kind in _ARRAYS),
    *((kind, "backward", _LAYERS) for kind in _ARRAYS),
)
_CASES = (MCA, MCA_FACTORED, RPU)
_SIZES = ((MLP, 1), (MLP, 100), (CNN, 50), (LSTM, 32))


class Stopwatch:
    """Adds up the time of parts that call each other, each without what it calls."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inner: list[float] = [0.0]
        self._part = ""

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return the function, its own time counted as ``part``."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.of(part):
                return function(*args, **kwargs)

        return call

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the time within as ``part``, but for the parts within it."""
        if self._part == _GRADIENT:  # its product is no other one
            part = _GRADIENT
        outer, self._part = self._part, part
        self._inner.append(0.0)
        start = self.clock()
        try:
            yield
        finally:
            passed = self.clock() - start
            self._part = outer
            self.seconds[part] += passed - self._inner.pop()
            self._inner[-1] += passed

    def converts(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """Return the kernel ``convert``, which of one vector does all in one call."""

        @functools.wraps(kernel)
        def call(x: Any, *rest: Any) -> Any:
            with self.of(_VECTOR if len(x) == 1 else _CONVERTERS):
                return kernel(x, *rest)

        return call

    @contextmanager
    def running(self) -> Iterator[None]:
        """Put every entry point under the stopwatch; the rest is what they leave."""
        with ExitStack() as stack:
            for owner, name, part in _ENTRIES:
                kept = vars(owner)[name]
                static = isinstance(kept, staticmethod)
                timed = self.timed(kept.__func__ if static else kept, part)
                stack.enter_context(
                    mock.patch.object(owner, name, staticmethod(timed) if static else timed)
                )
            converts = self.converts(mcatrain.kernels.convert)
            stack.enter_context(mock.patch.object(mcatrain.kernels, "convert", converts))
            stack.enter_context(self.of(_REST))
            yield


def measure(effort: Effort) -> Part:
    """Time the parts of a step of every case, and the whole step of plain torch beside them."""
    tables, figures = [], {}
    for network, batch in _SIZES[:2] if effort.smoke else _SIZES:
        found = _time(network, batch, effort)
        title = f"{network.title}, batch {batch}"
        tables.append(_table(title, found))
        figures[title] = found
    return Part("Where a step's time goes", tables, figures)


def _time(network: Network, batch: int, effort: Effort) -> dict[str, dict[str, float]]:
    """Return the mean time of every part [ms], by case; of plain torch the rest is nearly all."""
    rounds = effort.of(network.rounds[batch] * max(network.burst - 1, 1))
    found = {}
    for name in (FLOAT32, *_CASES):
        torch.manual_seed(0)
        model, optimizer = cases(network.pcm, network.lr)[name](network.make())
        step = partial(train, model, optimizer)
        draw = partial(network.draw, batch, torch.Generator().manual_seed(batch))
        # The first refresh loads its kernels.
        warm_up = max(network.warm_up, getattr(optimizer, "refresh_every", 0) // batch + 1)
        alternate({name: step}, draw, warm_up=0, rounds=warm_up)
        watch = Stopwatch(effort.clock)
        alternate({name: partial(_watched, watch, step)}, draw, warm_up=0, rounds=rounds)
        found[name] = {part: 1e3 * s / rounds for part, s in watch.seconds.items()}
    return found


def _watched(watch: Stopwatch, step: Callable[[Batch], object], batch: Batch) -> None:
    with watch.running():
        step(batch)


def _table(title: str, found: dict[str, dict[str, float]]) -> Table:
    parts = [p for p in PARTS if any(of.get(p) for name, of in found.items() if name != FLOAT32)]
    rows = []
    for part in parts:
        cells = []
        for name in _CASES:
            of = found[name]
            cells.append(f"{of[part]:.3f} ({of[part] / sum(of.values()):.0%})")
        rows.append([part, *cells])
    rows.append(["sum", *(f"{sum(found[name].values()):.3f}" for name in _CASES)])
    plain = sum(found[FLOAT32].values())
    return Table(
        title,
        "ms a step, mean, and the share. A part is its own time without the parts it calls. The "
        "stopwatch itself takes about a microsecond a call, in the part around it. A whole step of "
        f"plain torch took {plain:.3f} ms.",
        ["", *_CASES],
        rows,
    )
