"""Device state in modules: what is found fast must be what torch holds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from devicemodels.state import StateModule


def test_a_module_is_the_one_set_last() -> None:
    """As torch has it: set, set anew, set to None, deleted, and set as something else."""
    module = StateModule()
    first, second = nn.Linear(2, 3), nn.Linear(3, 4)
    module.part = first
    module.part = second
    assert module.part is second
    assert list(module.children()) == [second]
    twin = copy.deepcopy(module)
    assert twin.part is next(twin.children())
    assert twin.part is not second
    module.part = None
    assert module.part is None
    module.part = first
    del module.part
    with pytest.raises(AttributeError):
        module.part  # noqa: B018
    assert not list(module.children())


def test_a_buffer_that_was_moved_is_found() -> None:
    """Only modules are found without torch: it puts buffers in each other's place."""
    module = StateModule()
    module.register_buffer("state", torch.zeros(3))
    module.part = StateModule()
    module.part.register_buffer("inner", torch.zeros(2))
    module.to("meta")
    assert module.state.is_meta
    assert module.part.inner.is_meta
