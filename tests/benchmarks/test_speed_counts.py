"""The speed of a step by what it does, counted: no clock, so that no noise can fail it.

A step of float32 makes, of each weight matrix, the products W x, W^T d and d x^T. On an array of
noisy devices come S x^2 and S^T d^2, the exact form of read noise at the output; RPU does without
d x^T. More products than these are waste, and so are more operations than the bounds allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import devicemodels.kernels
import mcatrain
import mcatrain.kernels

_DEVICE_KERNELS = (
    "set_pulses", "pulse_pairs", "step_pulses", "read_pairs", "high_pairs", "saturated_pairs",
)  # fmt: skip


class Work(TorchDispatchMode):
    """Counts dispatched operations and the floating point operations of products.

    Kernels in Numba are not dispatched: their products are counted by the shapes they are given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.flops = 0
        self._patches = ExitStack()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        name = func._overloadpacket
        name = torch.ops.aten.addmm if name is torch.ops.aten.addmm_ else name
        if func._schema.name == "mkldnn::_linear_pointwise":  # the registry does not know it
            self.flops += 2 * args[0].numel() * len(args[1])
        elif name in flop_registry:
            self.flops += flop_registry[name](*args, **(kwargs or {}), out_val=out)
        return out

    def __enter__(self) -> Any:
        for name, count in (
            ("convert", self._convert),
            ("accumulate", self._accumulate),
            ("convert_patches", self._convert_patches),
            ("convert_to_patches", self._convert_to_patches),
        ):
            kernel = getattr(mcatrain.kernels, name)
            whole = "patches" in name  # products of digits are more, and faster, than they count
            counted = _counted(self, kernel, count, whole)
            self._patches.enter_context(mock.patch.object(mcatrain.kernels, name, counted))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patches.close()
        super().__exit__(*error)

    @staticmethod
    def _convert(x: Tensor, weights: Tensor, variance: Tensor | None, *rest: Any) -> int:
        return 2 * len(x) * weights.numel() * (1 if variance is None else 2)

    @staticmethod
    def _convert_patches(images: Tensor, g: Any, weights: Tensor, *rest: Any) -> int:
        high, wide = g.output(images.shape[1], images.shape[2])
        products = 1 if rest[0] is None else 2
        return 2 * len(images) * high * wide * weights.numel() * products

    @staticmethod
    def _convert_to_patches(d: Tensor, g: Any, weights: Tensor, *rest: Any) -> int:
        return 2 * len(d) * weights.numel() * (1 if rest[0] is None else 2)

    @staticmethod
    def _accumulate(chi: Tensor, *rest: Any) -> int:
        return 2 * chi.numel()


def _counted(
    work: Work, kernel: Callable[..., Any], count: Callable[..., int], whole: bool = False
) -> Any:
    """whole: whatever torch saw of the kernel's products."""

    def call(*args: Any) -> Any:
        before = work.flops
        answer = kernel(*args)
        if whole:
            work.flops = before
        if work.flops == before:  # torch saw no product: Numba made it
            work.flops += count(*args)
        return answer

    return call


@dataclass(frozen=True)
class Step:
    """The work of the passes of one training step."""

    forward: int
    backward: int
    update: int
    operations: int

    @property
    def flops(self) -> int:
        return self.forward + self.backward + self.update


class Recurrent(nn.Module):
    """A layer of 16 units and scores of 10 classes at every time step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(20, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0]).flatten(0, 1)


def _mlp(quarter: int = 4) -> nn.Module:
    inputs, hidden = 49 * quarter, 15 * quarter
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Sigmoid(), nn.Linear(hidden, 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 4, 10),
    )


@dataclass(frozen=True)
class Bench:
    """A network, the shape of its inputs, and the labels they need.

    mca, rpu: most dispatched operations of a step, as a ratio to float32. Those of an array's pass
    are a constant number: what drives it, the draw of its noise, two products, and views, where
    float32 has one product; small layers have few others beside them, an LSTM has its gates. RPU
    updates a layer of vectors example by example, some twenty operations each. The bounds are
    what was counted in November 2026 and a seventh more.
    """

    make: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    labels: int
    mca: float
    rpu: float
    recurrent: bool = False


BENCHES = {
    "mlp, batch 1": Bench(_mlp, (1, 196), 1, 2.3, 3.3),
    "mlp, batch 100": Bench(_mlp, (100, 196), 100, 4.0, 141),
    "cnn, batch 10": Bench(_cnn, (10, 3, 8, 8), 10, 9.1, 13.8),
    "lstm, batch 4": Bench(Recurrent, (4, 12, 20), 48, 5.4, 2.1, recurrent=True),
}
EACH = pytest.mark.parametrize("bench", BENCHES.values(), ids=list(BENCHES))


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _float32(bench: Bench) -> Step:
    """Count plain torch; in float64, where it does not hide an LSTM's products in one operation."""
    with _seeded():
        model = bench.make().double()
        return _count(bench, model, torch.optim.SGD(model.parameters(), lr=0.05), torch.float64)


def _analog(bench: Bench, rule: str, lr: float = 0.05, called: list[str] | None = None) -> Step:
    """Count a rule on noisy devices (MCA) or exact ones (RPU), biases digital as in torch.

    called: a list to forget the first step in, whose reads of new devices are not the counted one.
    """
    device = "nandakumar2018" if rule == "MCA" else "gokmen2016"
    kind: Any = mcatrain.MCA if rule == "MCA" else mcatrain.RPU
    with _seeded():
        model = mcatrain.convert(bench.make(), device, bias="digital", seconds_per_example=0.0)
        return _count(bench, model, kind(model, lr=lr, refresh_every=0), called=called)


def _count(
    bench: Bench,
    model: nn.Module,
    optimizer: Any,
    dtype: torch.dtype = torch.float32,
    called: list[str] | None = None,
) -> Step:
    """Count the second step."""
    for _ in range(2):
        if called is not None:
            called.clear()
        x = torch.rand(bench.inputs).to(dtype)
        y = torch.randint(0, 10, (bench.labels,))
        optimizer.zero_grad()
        passes = [Work() for _ in range(3)]
        with passes[0]:
            loss = cross_entropy(model(x), y)
        with passes[1]:
            loss.backward()
        with passes[2]:
            optimizer.step()
    return Step(*(work.flops for work in passes), sum(work.operations for work in passes))


@EACH
def test_mca_makes_five_products(bench: Bench) -> None:
    """W x, S x^2, W^T d, S^T d^2 and d x^T: more is waste, less a count that misses some."""
    plain, mca = _float32(bench), _analog(bench, "MCA")
    outer = plain.forward  # d x^T is as much work as W x
    assert mca.forward / plain.forward == 2
    assert (mca.backward + mca.update) / outer == 1 + 2 * _back(bench, plain) / outer


@EACH
def test_rpu_makes_two_products(bench: Bench) -> None:
    """W x and W^T d: exact devices have no read noise, and d x^T is left to their pulses."""
    plain, rpu = _float32(bench), _analog(bench, "RPU")
    assert rpu.forward / plain.forward == 1
    assert (rpu.backward + rpu.update) / plain.forward == _back(bench, plain) / plain.forward


def _back(bench: Bench, plain: Step) -> int:
    """Return the work of W^T d: an LSTM's array has rows for the data, which torch leaves out."""
    return plain.forward if bench.recurrent else plain.backward - plain.forward


@EACH
def test_dispatched_operations(bench: Bench) -> None:
    """Python and torch's dispatcher, which rule small steps, stay near those of float32."""
    plain = _float32(bench).operations
    assert _analog(bench, "MCA").operations / plain <= bench.mca
    assert _analog(bench, "RPU").operations / plain <= bench.rpu


@pytest.mark.parametrize("rule", ["MCA", "RPU"])
def test_operations_do_not_grow_with_the_array(rule: str) -> None:
    """A weight more is no operation more: 16 times the weights, the same number."""
    # Of 256 examples: the products of few with a small array are one operation.
    small, large = (Bench(partial(_mlp, 4 * k), (256, 196 * k), 256, 0, 0) for k in (1, 4))
    ratio = _analog(large, rule).operations / _analog(small, rule).operations
    assert 0.95 < ratio < 1.05  # whether one of the arrays gets a pulse at all may differ


@EACH
@pytest.mark.parametrize("rule", ["MCA", "RPU"])
def test_step_that_programs_nothing_touches_no_device(bench: Bench, rule: str) -> None:
    """Its work is the passes and chi: no device is pulsed, read anew or looked through."""
    called: list[str] = []
    with ExitStack() as stack:
        for name in _DEVICE_KERNELS:
            note = _noted(called, name, getattr(devicemodels.kernels, name))
            stack.enter_context(mock.patch.object(devicemodels.kernels, name, note))
        _analog(bench, rule, lr=50.0, called=called)
        assert called  # a step that programs would be noticed
        idle = _analog(bench, rule, lr=1e-12, called=called)
        assert not called
    usual, plain = _analog(bench, rule), _float32(bench)
    assert idle.flops / plain.flops == usual.flops / plain.flops
    assert idle.operations / plain.operations <= usual.operations / plain.operations


def _noted(called: list[str], name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        called.append(name)
        return kernel(*args)

    return call
