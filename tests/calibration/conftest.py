"""What tests of fits share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def double() -> Iterator[None]:
    """Compute in float64, and leave torch's numbers as they were."""
    kept, state = torch.get_default_dtype(), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(kept)
    torch.set_rng_state(state)
