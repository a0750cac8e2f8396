"""The hot loops. Each kernel has one name and up to three forms; callers cannot tell which runs.

``reference`` (plain torch) is the specification and runs on any device; ``cpu`` (Numba) is
exact to it given the same random numbers. `use` fixes a form, for tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

_forced: str | None = None


def _form(tensor: Tensor) -> Any:
    name = _forced or ("cpu" if tensor.device.type == "cpu" else "reference")
    return importlib.import_module(f"{__name__}.{name}")


@contextmanager
def use(name: str) -> Iterator[None]:
    """Run the form ``name`` ('reference' or 'cpu') whatever the device, for the time being."""
    global _forced
    kept, _forced = _forced, name
    try:
        yield
    finally:
        _forced = kept


def set_pulses(conductance_us: Tensor, *rest: Any) -> None:
    """See `reference.set_pulses`."""
    _form(conductance_us).set_pulses(conductance_us, *rest)


def read_pairs(conductance_us: Tensor, *rest: Any) -> None:
    """See `reference.read_pairs`."""
    _form(conductance_us).read_pairs(conductance_us, *rest)


def step_pulses(state: Tensor, *rest: Any) -> None:
    """See `reference.step_pulses`."""
    _form(state).step_pulses(state, *rest)
