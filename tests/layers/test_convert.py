"""convert(): any torch module, bias kinds, overrides; and the clock."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import mcatrain
from devicemodels import PulseEvents
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
        ({"overrides": {"9": None}}, "no layer '9' to convert"),
        ({"overrides": {"0": {"bais": "digital"}}}, "did you mean 'bias'"),
        ({"bias": "none"}, "give 'analog' or 'digital'"),
        ({"initial": "random"}, "give 'weights' or 'devices'"),
        ({"device_model": "gokmen2016", "beta": 2.0}, "does not apply"),
        ({"beta": -1.0}, "beta = -1.0"),
        ({"beta": "3.5"}, r"give a conductance \[uS\], or standard deviations such as '3.5sd'"),
        ({"device_model": "gokmen2016", "beta": "3.5sd"}, "only PCM pairs have it"),
        ({"devices_per_weight": 0}, "devices_per_weight = 0"),
        ({"devices_per_weight": 2, "selection": "coutner"}, "did you mean 'counter'"),
        ({"zero_shift": -1}, "zero_shift = -1"),
        ({"zero_shift": 5}, "a PCM pair has no symmetry point"),
        ({"array_size": (0, 4)}, r"array_size = \(0, 4\)"),
        ({"drift_tolerance": 1.0}, "drift_tolerance = 1.0"),
        ({"seconds_per_example": -1.0}, "give 0 or more seconds"),
    ],
)
def test_bad_conversions_are_named(arguments: dict, message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(InputError, match=message):
        convert(model, **arguments)
    assert type(model[0]) is nn.Linear, "nothing may be half converted"


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(InputError, match="no layer to put on an array"):
        convert(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.ConvTranspose2d(3, 4, 3), "ConvTranspose2d.*: use upsampling and Conv2d"),
        (nn.Conv3d(3, 4, 3), "Conv3d.*: use Conv2d"),
        (nn.RNN(3, 4), "RNN,.*: use LSTM or GRU"),
        (nn.LSTMCell(3, 4), "LSTMCell.*: use LSTM"),
        (nn.GRUCell(3, 4), "GRUCell.*: use GRU"),
        (nn.Bilinear(3, 4, 5), "Bilinear.*: use Linear"),
        (nn.LazyLinear(3), "LazyLinear.*: initialise it by a forward pass first"),
        (nn.LazyConv2d(3, 3), "LazyConv2d.*: initialise it by a forward pass first"),
    ],
)
def test_layers_without_an_analog_form_are_named(layer: nn.Module, message: str) -> None:
    model = nn.ModuleDict({"good": nn.Linear(4, 4), "odd": layer})
    with pytest.raises(InputError, match=f"layer 'odd' is a {message}") as caught:
        convert(model, "ideal")
    assert "overrides={'odd': None}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(model["good"]) is nn.Linear
    convert(model, "ideal", overrides={"odd": None})
    assert isinstance(model["good"], AnalogLinear)
    assert model["odd"] is layer


def test_overrides_name_layers_of_every_kind() -> None:
    model = nn.ModuleDict(
        {
            "conv": nn.Conv1d(2, 3, 3),
            "lstm": nn.LSTM(3, 4),
            "mix": nn.MultiheadAttention(4, 2),
            "norm": nn.LayerNorm(4),
        }
    )
    kinds = {name: type(layer) for name, layer in model.items()}
    for name in ("conv", "lstm", "mix"):
        twin = convert(copy.deepcopy(model), "ideal", overrides={name: None})
        assert {n for n, layer in twin.items() if type(layer) is kinds[n]} == {name, "norm"}
    options = {"mix": {"array_size": (2, 5)}, "lstm": {"device_model": "gokmen2016"}}
    convert(model, "ideal", overrides=options)
    assert len(tiles(model["mix"])) == 4 * 2
    assert len(tiles(model["conv"])) == len(tiles(model["lstm"])) == 1
    assert type(next(iter(tiles(model["lstm"]).values())).synapse.devices).__name__ == "StepArray"
    with pytest.raises(InputError, match=r"no layer 'norm' to convert"):
        convert(nn.ModuleDict({"a": nn.Linear(2, 2), "norm": nn.LayerNorm(2)}),
                overrides={"norm": None})  # fmt: skip


@pytest.mark.parametrize("kind", ["Linear", "grouped Conv2d", "GRU"])
def test_beta_of_standard_deviations(kind: str) -> None:
    """A device at the refresh threshold, 8 uS, is worth N deviations of the layer's own weights.

    The zeros outside of blocks are no weights: they would cost 13 % (GRU) and 50 % (groups).
    """
    torch.manual_seed(0)
    layer = {
        "Linear": lambda: nn.Linear(120, 90, bias=False),
        "grouped Conv2d": lambda: nn.Conv2d(80, 80, 3, groups=4, bias=False),
        "GRU": lambda: nn.GRU(50, 50, bias=False),
    }[kind]()
    own = torch.cat([p.detach().reshape(-1) for p in layer.parameters()]).std().item()
    model = nn.ModuleDict({"it": layer})
    convert(model, beta="2.5sd")
    for tile in tiles(model).values():
        # epsilon is 0.77 uS of mean step in weight units
        assert 8.0 / 0.77 * tile.synapse.granularity == pytest.approx(2.5 * own, rel=1e-6)


def test_beta_of_weights_that_are_all_alike_is_refused() -> None:
    layer = nn.Linear(4, 4, bias=False)
    nn.init.zeros_(layer.weight)
    with pytest.raises(InputError, match="the weights of 'linear' are all alike"):
        convert(layer, beta="3.5sd")


@pytest.mark.parametrize("kind", ["Linear", "Conv2d"])
def test_noise_of_several_devices_falls_as_their_number(kind: str) -> None:
    """Variance of the output noise with 4 pairs a weight is a quarter of that with one.

    40,000 outputs each: the ratio is known to 1 % (one standard error), 5 of them are allowed.
    """
    torch.manual_seed(0)
    layer = nn.Linear(30, 10) if kind == "Linear" else nn.Conv2d(3, 10, 3)
    x = torch.randn(1, 30) if kind == "Linear" else torch.randn(1, 3, 3, 3)
    x = x.expand(4000, *x.shape[1:]).contiguous()
    variance = [
        convert(copy.deepcopy(layer), periphery="ideal", devices_per_weight=n)(x).var(0).mean()
        for n in (1, 4)
    ]
    assert (variance[0] / variance[1]).item() == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("size", [None, (9, 7)])
def test_zero_shifted_devices_hold_their_weights(size: tuple[int, int] | None) -> None:
    """Weights are written as without; 500 pairs of pulses then leave a weight of 0 where it is.

    What the same pulses do to devices without a reference is at least three times as much.
    """
    torch.manual_seed(0)
    layer = nn.Linear(20, 10)
    with torch.no_grad():  # within every device's own bounds
        layer.weight.mul_(0.2)
        layer.bias.mul_(0.2)
        layer.weight[:, :10] = 0.0
    moved = []
    for pairs in (0, 1200):
        analog = convert(copy.deepcopy(layer), "softbounds", zero_shift=pairs, array_size=size)
        before = torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1)
        torch.testing.assert_close(analog.weight, before.detach(), atol=1e-6, rtol=0)
        found = list(tiles(analog).values())
        assert all((tile.synapse.reference is None) == (pairs == 0) for tile in found)
        for tile in found:
            index = torch.arange(tile.chi.numel())
            for _ in range(500):
                for sign in (1, -1):
                    tile.synapse.pulse(PulseEvents(index, torch.full_like(index, sign)), 0.0)
        moved.append(analog.weight[:, :10].detach().square().mean().sqrt().item())
    assert moved[1] < moved[0] / 3


def test_inputs_of_another_width_are_named() -> None:
    """A width that happens to match the array with its bias column must not pass."""
    for bias, width in ((True, 5), (False, 3), (True, 2)):
        analog = convert(nn.Linear(4, 5, bias=bias), "ideal")
        for shape in ((2, width), (2, 3, width), (width,)):
            with pytest.raises(InputError, match=r"Linear got .*: it wants \(\.\.\., 4\)"):
                analog(torch.randn(shape))


class Scaled(nn.Linear):
    """A layer that computes something of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Plain(nn.Linear):
    """A layer that only has another name."""


def tied() -> nn.Module:
    model = nn.ModuleDict({"embed": nn.Embedding(7, 4), "out": nn.Linear(4, 7, bias=False)})
    model["out"].weight = model["embed"].weight
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Sequential(Scaled(3, 3)), "layer '0' is a Scaled.* of its own.*'0': None"),
        (tied, "layer 'out' is a Linear.*shares a weight with 'embed'.*untie"),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
            "layer '0'.*parametrization.*remove",
        ),
    ],
)
def test_layers_that_no_array_stands_for_are_named(
    model: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        convert(model())


def test_a_subclass_that_computes_as_its_base_is_converted() -> None:
    assert isinstance(convert(nn.Sequential(Plain(3, 3)))[0], AnalogLinear)
