"""Layers split over arrays of limited size: what lies where, and converters of each part."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from devicemodels import DeviceModel
from devicemodels.errors import InputError
from mcatrain import MCA, RPU, Converters, Periphery, convert, tiles, unconvert
from mcatrain.grid import Array
from mcatrain.tile import Block

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(10, 7),
    "Conv2d": lambda: nn.Conv2d(3, 5, 3),
    "Conv2d, groups": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "LSTM": lambda: nn.LSTM(5, 3),
    "GRU": lambda: nn.GRU(5, 3),
}


def array_of(layer: nn.Module) -> Array:
    return layer.arrays["l0"] if hasattr(layer, "arrays") else layer.tile


@pytest.mark.parametrize("limit", [(1, 1), (3, 4), (7, 10), (2, 100)])
def test_pieces_of_a_block(limit: tuple[int, int]) -> None:
    """Within the limit, nearly equal, as few as possible, every weight once."""
    block = Block(slice(2, 9), slice(1, 12))
    pieces = block.split(limit)
    assert len(pieces) == -(-7 // limit[0]) * -(-11 // limit[1])
    covered = torch.zeros(12, 14)
    for piece in pieces:
        assert piece.shape[0] <= limit[0]
        assert piece.shape[1] <= limit[1]
        covered[piece.rows, piece.columns] += 1
    for k in (0, 1):
        assert max(p.shape[k] for p in pieces) - min(p.shape[k] for p in pieces) <= 1
    expected = torch.zeros(12, 14)
    expected[2:9, 1:12] = 1
    assert torch.equal(covered, expected)


@pytest.mark.parametrize("size", [(3, 4), (1, 100), (100, 2), (1, 1)])
@pytest.mark.parametrize("name", LAYERS)
def test_tiles_cover_every_weight_once(
    name: str, size: tuple[int, int], whole: Callable[..., Tensor]
) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    one = array_of(convert(copy.deepcopy(layer), "ideal"))
    split = array_of(convert(copy.deepcopy(layer), "ideal", array_size=size))
    covered = torch.zeros(split.shape)
    for block, tile in zip(split.blocks, split.parts, strict=True):
        assert tile.shape == tile.chi.shape == block.shape
        assert tile.shape[0] <= size[0]
        assert tile.shape[1] <= size[1]
        covered[block.rows, block.columns] += 1
    # Grouped convolutions and GRUs have places without weights.
    assert torch.equal(covered, whole(one, lambda tile: torch.ones(tile.shape)))
    assert torch.equal(split.weights(), one.weights())
    assert sum(p.numel() for p in split.parameters()) == int(covered.sum())


def test_a_layer_that_fits_is_one_tile() -> None:
    model = convert(nn.Linear(10, 7), "ideal", array_size=(7, 11))
    assert list(tiles(model)) == ["tile"]
    assert len(tiles(convert(nn.Linear(10, 7), "ideal", array_size=(7, 10)))) == 2


def test_names_and_random_numbers_are_each_tiles_own() -> None:
    model = convert(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), array_size=(2, 5))
    found = list(tiles(model).values())
    assert [tile.name for tile in found] == ["0[0]", "0[1]", "1[0]", "1[1]"]
    draws = [tile.chance.normal(4).tolist() for tile in found]
    assert len({tuple(d) for d in draws}) == 4
    assert len({tile.clock for tile in found}) == 1


def linear(rows: list[list[float]], c: Converters, size: tuple[int, int] | None) -> nn.Module:
    """Return a linear layer of these weights without bias, both directions converted by ``c``."""
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    periphery = Periphery(forward=c, backward=c)
    return convert(layer, "ideal", periphery=periphery, array_size=size)


@pytest.mark.parametrize(
    ("row", "one", "split"),
    [
        # An ADC of 3 bits at bound 1.5 has levels of 0.5: a partial sum of 0.2 is lost.
        ([0.1, 0.1, 0.1, 0.1], 0.5, 0.0),
        ([0.2, 0.2, 0.15, 0.15], 0.5, 1.0),
        # Every part is clipped by itself: 1.5 - 1.5, not 4 - 2.
        ([2.0, 2.0, -1.0, -1.0], 1.5, 0.0),
    ],
)
def test_partial_sums_are_converted_one_by_one(row: list[float], one: float, split: float) -> None:
    c = Converters(output_bits=3, output_bound=1.5)
    for size, expected in ((None, one), ((1, 2), split)):
        forward = linear([row], c, size)(torch.ones(2, 4))
        torch.testing.assert_close(forward, torch.full((2, 1), expected))
        column = linear([[w] for w in row], c, None if size is None else (2, 1))
        x = torch.zeros(1, 1, requires_grad=True)
        column(x).backward(torch.ones(1, 4))
        torch.testing.assert_close(x.grad, torch.full((1, 1), expected))


def test_every_part_is_driven_by_its_own_dac() -> None:
    """Noise management scales to the largest input of the part: a small one is not lost."""
    c = Converters(input_bits=8, noise_management=True)
    x = torch.tensor([[1.0, 0.003]])
    one, split = linear([[1.0, 1.0]], c, None)(x), linear([[1.0, 1.0]], c, (1, 1))(x)
    torch.testing.assert_close(one, torch.tensor([[1.0]]))
    torch.testing.assert_close(split, torch.tensor([[1.003]]))


def test_training_through_a_grid_follows_torch(fine: DeviceModel) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    twin = convert(copy.deepcopy(model), fine, periphery="ideal", array_size=(4, 5))
    assert len(tiles(twin)) == 3 * 2 + 1 * 2
    x, target = torch.randn(8, 6), torch.randn(8, 3)
    steps: list[tuple[nn.Module, Any]] = [
        (model, torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)),
        (twin, MCA(twin, lr=0.3, momentum=0.5)),
    ]
    losses = []
    for net, optimizer in steps:
        for _ in range(20):
            optimizer.zero_grad()
            loss = (net(x) - target).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    plain = unconvert(twin)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(plain.state_dict()[name], value, atol=1e-4, rtol=0)


@pytest.mark.parametrize("factored", [False, True])
def test_factors_of_a_grid(factored: bool) -> None:
    """MCA with the factors kept makes the same update of every part."""
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 5), torch.randn(4, 6)
    layer(x).square().sum().backward()
    analog = convert(layer, "ideal", periphery="ideal", array_size=(2, 3))
    before = analog.weight.clone()
    optimizer = MCA(analog, lr=0.1, factored=factored)
    analog(x).square().sum().backward()
    assert (analog.tile.parts[0].chi.grad is None) == factored
    optimizer.step()
    gradient = torch.cat([layer.weight.grad, layer.bias.grad.unsqueeze(1)], dim=1)
    torch.testing.assert_close(analog.weight, before - 0.1 * gradient, atol=1.1e-3, rtol=0)


def test_rpu_pulses_every_part() -> None:
    torch.manual_seed(0)
    analog = convert(nn.Linear(6, 5), "gokmen2016", periphery="ideal", array_size=(2, 3))
    optimizer = RPU(analog, 0.1)
    analog(torch.randn(4, 6)).square().sum().backward()
    optimizer.step()
    assert all(tile.synapse.set_pulses > 0 for tile in tiles(analog).values())
    assert optimizer.clock.examples == 4


@pytest.mark.parametrize("size", [(0, 5), (4, -1), (4,), (1, 2, 3), 64])
def test_sizes_that_hold_nothing_are_refused(size: Any) -> None:
    with pytest.raises(InputError, match=r"array_size = .*give \(rows, columns\) of 1 or more"):
        convert(nn.Linear(3, 3), "ideal", array_size=size)
