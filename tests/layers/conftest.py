"""What the tests of layers share: a device with tiny steps, and arrays seen as one matrix."""

from collections.abc import Callable

import pytest
import torch

from devicemodels import DeviceModel, load
from mcatrain import Converters, Periphery, Tile
from mcatrain.grid import Array


@pytest.fixture(scope="session")
def fine() -> DeviceModel:
    """Ideal devices with steps of 1e-6: a step of MCA is torch's to within that."""
    return load("ideal").vary(step=1e-6)


@pytest.fixture(scope="session")
def harmless() -> Periphery:
    """Converters that are not ideal, so that no shortcut serves, but as exact as float32."""
    c = Converters(input_bits=24, output_bits=24, output_bound=64.0, noise_management=True)
    return Periphery(forward=c, backward=c)


@pytest.fixture(scope="session")
def whole() -> Callable[..., torch.Tensor]:
    """Puts what a function gives for every tile of an array together to one matrix."""

    def put_together(array: Array, of: Callable[[Tile], torch.Tensor]) -> torch.Tensor:
        matrix = torch.zeros(array.shape)
        for block, tile in zip(array.blocks, array.parts, strict=True):
            matrix[block.rows, block.columns] = of(tile)
        return matrix

    return put_together


@pytest.fixture(scope="session")
def gradient(whole: Callable[..., torch.Tensor]) -> Callable[[Array], torch.Tensor]:
    """Gives the gradient of an array's weights; 0 where there are none."""
    return lambda array: whole(array, lambda tile: tile.chi.grad)
