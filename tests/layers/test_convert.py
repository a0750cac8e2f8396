"""convert(): any torch module, bias kinds, overrides; and the clock."""

import copy

import pytest
import torch
from torch import nn

import mcatrain
from devicemodels.errors import InputError
from mcatrain import AnalogLinear, convert, tiles


class Residual(nn.Module):
    """Linear layers at several depths, one used twice, beside layers that stay digital."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.body = nn.ModuleList(
            [nn.Linear(6, 6), nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6))]
        )
        self.tied = self.body[0]
        self.head = nn.Linear(6, 3, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.body:
            x = x + torch.relu(block(x))
        return self.head(self.tied(x))


@pytest.mark.parametrize("bias", ["analog", "digital"])
def test_ideal_conversion_is_the_same_function(bias: str) -> None:
    torch.manual_seed(0)
    model, tokens = Residual(), torch.randint(0, 10, (4, 5))
    expected = model(tokens)
    twin = convert(copy.deepcopy(model), "ideal", periphery="ideal", bias=bias)
    torch.testing.assert_close(twin(tokens), expected)
    assert twin.tied is twin.body[0]
    assert len(tiles(twin)) == 3
    assert type(twin.embed) is nn.Embedding


def test_gradients_of_an_ideal_conversion_are_those_of_torch() -> None:
    torch.manual_seed(0)
    model, tokens = Residual(), torch.randint(0, 10, (4, 5))
    twin = convert(copy.deepcopy(model), "ideal", periphery="ideal")
    model(tokens).square().sum().backward()
    twin(tokens).square().sum().backward()
    torch.testing.assert_close(twin.embed.weight.grad, model.embed.weight.grad)
    analog = twin.body[0].tile.chi.grad
    torch.testing.assert_close(analog[:, :6], model.body[0].weight.grad)
    torch.testing.assert_close(analog[:, 6], model.body[0].bias.grad)


def test_pcm_conversion_keeps_the_weights() -> None:
    layer = nn.Linear(9, 4)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    analog = convert(layer, "nandakumar2018")
    assert isinstance(analog, AnalogLinear)
    torch.testing.assert_close(
        analog.weight, torch.cat([weight, bias.unsqueeze(1)], 1), atol=1e-5, rtol=0
    )


def test_fabricated_devices_ignore_the_weights() -> None:
    analog = convert(nn.Linear(200, 50), "nandakumar2018", initial="devices")
    assert analog.weight.std().item() == pytest.approx(0.83 * 2**0.5 / 8.02, rel=0.05)


def test_overrides_and_unconverted_layers() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    convert(
        model,
        overrides={"0": None, "1": {"device_model": "gokmen2016", "bias": "digital"}},
    )
    assert type(model[0]) is nn.Linear
    assert model[1].bias is not None
    assert set(model[1].tile.synapse.conductances(0.0)) == {"w"}
    assert set(model[2].tile.synapse.conductances(0.0)) == {"G+", "G-"}


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4)])
def test_input_shapes_and_examples(shape: tuple[int, ...]) -> None:
    analog = convert(nn.Linear(4, 5), "ideal", periphery="ideal", seconds_per_example=1.0)
    y = analog(torch.randn(shape))
    assert y.shape == (*shape[:-1], 5)
    y.sum().backward()
    mcatrain.MCA(analog, lr=0.1).step()
    assert analog.tile.now_s == (1 if len(shape) == 1 else 2)


def test_half_precision_input_and_autocast_keep_device_state() -> None:
    model = convert(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))).to(torch.bfloat16)
    assert model(torch.randn(3, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    synapse = model[0].tile.synapse
    assert synapse.devices.programmed_at_s.dtype == torch.float64
    assert synapse.devices.conductance_us.dtype == model[0].tile.chi.dtype == torch.float32


def test_noise_is_fresh_at_every_read_and_seeded_by_tile() -> None:
    x = torch.randn(3, 4)
    a, b = (convert(nn.Linear(4, 5), seed=1) for _ in range(2))
    b.load_state_dict(a.state_dict())
    first, second = a(x), a(x)
    assert not torch.equal(first, second)
    assert torch.equal(first, b(x))


def test_clock_saves_with_the_model_and_drift_acts_by_itself() -> None:
    model = convert(nn.Linear(30, 5), seconds_per_example=100.0)
    fresh = model.weight.abs().sum().item()
    optimizer = mcatrain.MCA(model, lr=0.0, refresh_every=0)
    for _ in range(3):
        model(torch.randn(50, 30)).sum().backward()
        optimizer.step()
    assert model.tile.now_s == 15_000.0
    assert model.weight.abs().sum().item() == pytest.approx(
        fresh * (15_000 / 38.6) ** -0.04, rel=0.05
    )
    twin = convert(nn.Linear(30, 5))
    twin.load_state_dict(model.state_dict())
    assert twin.tile.now_s == 15_000.0
    assert twin.tile.clock.examples == 150
    with pytest.raises(InputError, match="cannot go back"):
        model.tile.clock.advance(-1.0)


def test_deepcopy_shares_nothing_and_keeps_one_clock() -> None:
    model = convert(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    twin = copy.deepcopy(model)
    assert twin[0].tile.clock is twin[1].tile.clock is not model[0].tile.clock
    twin[0].tile.clock.advance(5.0)
    assert model[0].tile.now_s == 0.0


def test_module_apply_still_works() -> None:
    """torch's own Module.apply walks through devices too (weight initialisers use it)."""
    seen = []
    convert(nn.Sequential(nn.Linear(4, 4))).apply(lambda m: seen.append(type(m).__name__))
    assert {"AnalogLinear", "Tile", "DifferentialPair", "PCMArray"} <= set(seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device_model": "nandakumar2081"}, "did you mean 'nandakumar2018'"),
        ({"perifery": "mca"}, "did you mean 'periphery'"),
        ({"periphery": "mcb"}, "did you mean 'mca'"),
        ({"overrides": {"9": None}}, "no linear layer '9'"),
        ({"overrides": {"0": {"bais": "digital"}}}, "did you mean 'bias'"),
        ({"bias": "none"}, "give 'analog' or 'digital'"),
        ({"initial": "random"}, "give 'weights' or 'devices'"),
        ({"device_model": "gokmen2016", "beta": 2.0}, "does not apply"),
        ({"beta": -1.0}, "beta = -1.0"),
        ({"seconds_per_example": -1.0}, "give 0 or more seconds"),
    ],
)
def test_bad_conversions_are_named(arguments: dict, message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(InputError, match=message):
        convert(model, **arguments)
    assert type(model[0]) is nn.Linear, "nothing may be half converted"


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(InputError, match=r"no nn\.Linear layer"):
        convert(nn.Sequential(nn.ReLU()))
