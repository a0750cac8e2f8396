"""The hot loops. Each kernel has one name and up to three forms; callers cannot tell which runs.

``reference`` (plain torch) is the specification and runs on any device; ``cpu`` (Numba) and
``cuda`` (Triton, where it is installed) are exact to it given the same random numbers. `use`
fixes a form, for tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import Tensor

_forced: str | None = None


def form(package: str, tensor: Tensor) -> Any:
    """Return the module of kernels that serves ``tensor``: the form for its device."""
    return _module(package, _forced or ("cpu" if tensor.is_cpu else _form_of(tensor.device.type)))


@cache
def _form_of(device: str) -> str:
    """Return the form for a kind of device other than the CPU."""
    if device != "cuda":
        return "reference"
    try:
        version: str = importlib.import_module("triton").__version__
    except ImportError:  # torch's own wheels bring it on Linux, not everywhere
        return "reference"
    # Before 3.4 it would hand a kernel's float64 arguments over as float32.
    return "cuda" if [int(part) for part in version.split(".")[:2]] >= [3, 4] else "reference"


@cache
def _module(package: str, name: str) -> Any:
    return importlib.import_module(f"{package}.{name}")


@contextmanager
def use(name: str) -> Iterator[None]:
    """Run the form ``name`` ('reference', 'cpu', 'cuda') on any device, for a while."""
    global _forced
    kept, _forced = _forced, name
    try:
        yield
    finally:
        _forced = kept


def normals(out: Tensor, seed: int) -> None:
    """See `reference.normals`."""
    form(__name__, out).normals(out, seed)


def tally(count: Tensor) -> tuple[int, int]:
    """See `reference.tally`."""
    return form(__name__, count).tally(count)


def set_pulses(conductance_us: Tensor, *rest: Any) -> None:
    """See `reference.set_pulses`."""
    form(__name__, conductance_us).set_pulses(conductance_us, *rest)


def read_pairs(conductance_us: Tensor, *rest: Any) -> float:
    """See `reference.read_pairs`."""
    return float(form(__name__, conductance_us).read_pairs(conductance_us, *rest))


def pulse_pairs(conductance_us: Tensor, *rest: Any) -> None:
    """See `reference.pulse_pairs`."""
    form(__name__, conductance_us).pulse_pairs(conductance_us, *rest)


def high_pairs(conductance_us: Tensor, *rest: float) -> Tensor:
    """See `reference.high_pairs`."""
    return form(__name__, conductance_us).high_pairs(conductance_us, *rest)


def saturated_pairs(conductance_us: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """See `reference.saturated_pairs`."""
    return form(__name__, conductance_us).saturated_pairs(conductance_us, *rest)


def step_pulses(state: Tensor, *rest: Any) -> None:
    """See `reference.step_pulses`."""
    form(__name__, state).step_pulses(state, *rest)
