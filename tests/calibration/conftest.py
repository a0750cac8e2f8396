"""What tests of fits share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from calibration.models.base import CalibrationModel, Values


@pytest.fixture
def torch_state() -> Iterator[None]:
    """Leave torch's numbers and its default type as they were."""
    kept, state = torch.get_default_dtype(), torch.get_rng_state()
    yield
    torch.set_default_dtype(kept)
    torch.set_rng_state(state)


@pytest.fixture
def double(torch_state: None) -> None:
    """Compute in float64."""
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def likelihood_of_draws() -> Callable[[CalibrationModel, Values, Any], Tensor]:
    """Return a function that returns ln p of three draws and two devices, (3, 2).

    It has seen then that each draw alone, draws along two axes, and the devices in the other
    order give the same.
    """

    def check(model: CalibrationModel, three: Values, data: Any) -> Tensor:
        found = model.log_likelihood(three, data)
        assert found.shape == (3, 2)
        for k in range(3):
            alone = model.log_likelihood({name: v[k] for name, v in three.items()}, data)
            assert torch.allclose(found[k], alone, rtol=1e-12)
        square = {name: v.expand(2, 3) for name, v in three.items()}
        expected = found.expand(2, 3, 2)
        assert torch.allclose(model.log_likelihood(square, data), expected, rtol=1e-12)
        swapped = data.take(torch.tensor([1, 0]))
        assert torch.allclose(model.log_likelihood(three, swapped), found.flip(1), rtol=1e-12)
        return found

    return check
