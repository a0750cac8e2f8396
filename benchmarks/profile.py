"""Where the time of a step goes: the entry points of the package under a stopwatch."""

from __future__ import annotations

import functools
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
from mcatrain.nn.patches import Patches
from mcatrain.nn.recurrent import Recurrence
from mcatrain.optim.base import PulsedOptimizer
from mcatrain.tile import Tile

_VECTOR = "products, variance and converters of one vector"
_PRODUCTS, _VARIANCE, _CONVERTERS = "products", "read variance's products", "converters"
_NOISE, _READS, _PULSES = "random numbers", "drift and cached reads", "device pulses"
_GRADIENT, _CHI, _STREAMS = "gradient's product", "passes over chi", "bit streams"
_PATCHES, _LAYERS, _REST = (
    "patches of images",
    "array layers, rest",
    "autograd, Python, other layers",
)
PARTS = (
    _VECTOR, _PRODUCTS, _VARIANCE, _CONVERTERS, _NOISE, _READS, _PULSES, _GRADIENT, _CHI,
    _STREAMS, _PATCHES, _LAYERS, _REST,
)  # fmt: skip
#: Whose time is whose. What is called within another counts as its own part and not the other's.
#: A name that the package no longer has is an error here: its time would silently go to the rest.
_ENTRIES: tuple[tuple[Any, str, str], ...] = (
    (mcatrain.kernels, "spend", _CHI),
    (mcatrain.kernels, "accumulate", _CHI),
    (mcatrain.kernels, "descend", _CHI),
    (mcatrain.kernels, "coincidences", _STREAMS),
    (mcatrain.kernels, "coincidences_sum", _STREAMS),
    (mcatrain.MCA, "_spend", _GRADIENT),  # its own is the product of factors into chi
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
    *((kind, "forward", _LAYERS) for kind in (ArrayProduct, Recurrence)),
    *((kind, "backward", _LAYERS) for kind in (ArrayProduct, Recurrence)),
)
_CASES = (MCA, MCA_FACTORED, RPU)
_SIZES = ((MLP, 1), (MLP, 100), (CNN, 50), (LSTM, 32))


class Stopwatch:
    """Adds up the time of parts that call each other, each without what it calls."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inner: list[float] = [0.0]

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
        self._inner.append(0.0)
        start = self.clock()
        try:
            yield
        finally:
            passed = self.clock() - start
            self.seconds[part] += passed - self._inner.pop()
            self._inner[-1] += passed

    def converts(self, convert: Callable[..., Any]) -> Callable[..., Any]:
        """Return the kernel ``convert``, its products of weights and of variances apart."""

        @functools.wraps(convert)
        def call(x: Any, weights: Any, variance: Any, *rest: Any) -> Any:
            spreads = None if variance is None else variance.untyped_storage().data_ptr()

            def product(mm: Callable[..., Any], a: Any, b: Any, **options: Any) -> Any:
                is_variance = b.untyped_storage().data_ptr() == spreads
                with self.of(_VARIANCE if is_variance else _PRODUCTS):
                    return mm(a, b, **options)

            with (
                mock.patch.object(torch, "mm", partial(product, torch.mm)),
                self.of(_VECTOR if len(x) == 1 else _CONVERTERS),
            ):
                return convert(x, weights, variance, *rest)

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
            convert = self.converts(mcatrain.kernels.convert)
            stack.enter_context(mock.patch.object(mcatrain.kernels, "convert", convert))
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
        step = partial(train, *cases(network.pcm, network.lr)[name](network.make()))
        draw = partial(network.draw, batch, torch.Generator().manual_seed(batch))
        alternate({name: step}, draw, warm_up=0, rounds=network.warm_up)
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
