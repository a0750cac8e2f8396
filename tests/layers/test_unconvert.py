"""Whole networks to arrays and back: trained there, saved, copied, frozen, and read again."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from devicemodels import DeviceModel
from devicemodels.errors import InputError
from mcatrain import MCA, RPU, convert, tiles, unconvert


class ResidualNet(nn.Module):
    """Convolutions with BatchNorm around a skip, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1, groups=2),
            nn.BatchNorm2d(6),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.body(x)).mean((2, 3)))


class Transformer(nn.Module):
    """Embedding, attention, LayerNorm, a linear head on the last token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.head(self.norm(x + mixed)[:, -1])


class Recurrent(nn.Module):
    """Embedding, a stacked LSTM, a GRU, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.lstm = nn.LSTM(5, 6, 2, batch_first=True)
        self.gru = nn.GRU(6, 6, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.gru(self.lstm(self.embed(tokens))[0])[0][:, -1])


NETS: dict[str, type[nn.Module]] = {
    "residual": ResidualNet,
    "transformer": Transformer,
    "recurrent": Recurrent,
}


def batch(net: nn.Module) -> tuple[Tensor, Tensor]:
    labels = torch.arange(12) % 3
    if isinstance(net, ResidualNet):
        return torch.randn(12, 2, 4, 4) + labels.view(-1, 1, 1, 1), labels
    tokens = torch.randint(0, 7, (12, 4))
    tokens[:, -1] = labels
    return tokens, labels


def train(net: nn.Module, optimizer: Any, x: Tensor, labels: Tensor, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("net", NETS)
def test_a_step_of_the_whole_network_is_torchs(net: str, fine: DeviceModel) -> None:
    """Ten steps of MCA with ideal devices, then unconvert: the network torch trains, in eval."""
    torch.manual_seed(0)
    model = NETS[net]()
    x, labels = batch(model)
    twin = convert(copy.deepcopy(model), fine, periphery="ideal")
    expected = train(model, torch.optim.SGD(model.parameters(), lr=0.1), x, labels, 10)
    got = train(twin, MCA(twin, lr=0.1), x, labels, 10)
    assert got == pytest.approx(expected, rel=1e-3)
    twin.eval()
    answer = twin(x)
    plain = unconvert(twin)
    assert plain is twin
    assert not tiles(plain)
    assert repr(plain) == repr(model.eval())
    torch.testing.assert_close(plain(x), answer, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(plain(x), model(x), atol=2e-3, rtol=0)
    again = convert(plain, "ideal", periphery="ideal")
    torch.testing.assert_close(again(x), answer, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rule", ["MCA", "MCA, split", "RPU", "RPU, several devices"])
@pytest.mark.parametrize("net", ["residual", "transformer"])
def test_training_on_arrays_lowers_the_loss(net: str, rule: str) -> None:
    """On a fixed batch, with converters, by the arrays alone: all else is frozen."""
    torch.manual_seed(0)
    model = NETS[net]()
    x, labels = batch(model)
    device, periphery = ("nandakumar2018", "mca") if "MCA" in rule else ("gokmen2016", "rpu2016")
    options: dict[str, Any] = {"array_size": (8, 8)} if "split" in rule else {}
    options |= {"devices_per_weight": 3} if "several" in rule else {}
    convert(model, device, periphery=periphery, **options)
    analog = {tile.chi for tile in tiles(model).values()}
    for p in model.parameters():
        p.requires_grad_(p in analog)
    if "MCA" in rule:
        losses = train(model, MCA(model, torch.optim.Adam, lr=0.02), x, labels, 25)
    else:
        losses = train(model, RPU(model, 0.1), x, labels, 25)
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
    plain = unconvert(model)
    assert torch.isfinite(plain.eval()(x)).all()


def test_weights_are_read_now_with_drift_and_without_noise() -> None:
    torch.manual_seed(0)
    model = convert(nn.Sequential(nn.Linear(30, 5)), drift_tolerance=0.0)
    fresh = unconvert(copy.deepcopy(model))[0]
    model[0].tile.clock.advance(1e6)
    old, again = unconvert(copy.deepcopy(model))[0], unconvert(copy.deepcopy(model))[0]
    assert torch.equal(old.weight, again.weight)
    ratio = old.weight.abs().sum() / fresh.weight.abs().sum()
    assert ratio.item() == pytest.approx((1e6 / 38.6) ** -0.04, rel=0.05)


def test_without_analog_layers_there_is_nothing_to_unconvert() -> None:
    with pytest.raises(InputError, match="no analog layers"):
        unconvert(nn.Sequential(nn.Linear(3, 3)))


def test_a_bare_layer_comes_back() -> None:
    layer = nn.Linear(4, 3)
    back = unconvert(convert(copy.deepcopy(layer), "ideal").eval())
    assert type(back) is nn.Linear
    assert not back.training
    assert torch.equal(back.weight, layer.weight)


def test_a_layer_used_twice_stays_one() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.ModuleDict({"a": conv, "b": nn.Sequential(conv, nn.ReLU())})
    x = torch.randn(1, 2, 4, 4)
    expected = model["b"](model["a"](x))
    expected.square().sum().backward()
    twin = convert(copy.deepcopy(model), "ideal", periphery="ideal")
    assert twin["a"] is twin["b"][0]
    assert len(tiles(twin)) == 1
    y = twin["b"](twin["a"](x))
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    torch.testing.assert_close(twin["a"].tile.chi.grad[:, -1], conv.bias.grad)
    back = unconvert(twin)
    assert back["a"] is back["b"][0]
    assert torch.equal(back["a"].weight, conv.weight)


@pytest.mark.parametrize("rule", ["MCA", "MCA factored", "RPU"])
@pytest.mark.parametrize("net", NETS)
def test_frozen_layers_get_no_update_but_pass_the_gradient(
    net: str, rule: str, fine: DeviceModel
) -> None:
    torch.manual_seed(0)
    model = NETS[net]()
    x, labels = batch(model)
    convert(model, "ideal" if rule == "RPU" else fine, periphery="ideal")
    middle = {"residual": "body", "transformer": "attention", "recurrent": "lstm"}[net]
    frozen = getattr(model, middle)
    for tile in tiles(frozen).values():
        tile.chi.requires_grad_(False)
    below = model.stem.tile.chi if net == "residual" else model.embed.weight
    before = {name: tile.weights().clone() for name, tile in tiles(model).items()}
    first = model.embed.weight.detach().clone() if net != "residual" else None
    optimizer = RPU(model, 0.1) if rule == "RPU" else MCA(model, lr=0.1, factored="f" in rule)
    cross_entropy(model(x), labels).backward()
    if rule == "MCA":
        assert below.grad.abs().max() > 0
    optimizer.step()
    assert optimizer.clock.examples == 12
    for name, tile in tiles(model).items():
        held = torch.equal(tile.weights(), before[name])
        assert held == name.startswith(middle), name
        if held:
            assert not tile.chi.any()
            assert tile.synapse.set_pulses == tile.synapse.reset_pulses == 0
    assert first is None or not torch.equal(first, model.embed.weight)


def test_layers_frozen_before_stay_frozen() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 3))
    model[0].requires_grad_(False)
    convert(model, "ideal", bias="digital")
    assert [p.requires_grad for p in model[0].parameters()] == [False, False]
    assert all(p.requires_grad for p in model[1].parameters())
    unconvert(model)
    assert not any(p.requires_grad for p in model[0].parameters())
    assert all(p.requires_grad for p in model[1].parameters())


#: Options whose state must be saved too.
SAVED: dict[str, dict[str, Any]] = {
    "PCM": {},
    "PCM, split, digital bias": {"array_size": (7, 6), "bias": "digital"},
    "PCM, several pairs": {"devices_per_weight": 2},
    "zero-shifted": {"device_model": "softbounds", "zero_shift": 5},
}


@pytest.mark.parametrize("options", SAVED)
@pytest.mark.parametrize("net", NETS)
def test_a_saved_model_goes_on_bit_by_bit(net: str, options: str) -> None:
    """Outputs, gradients and pulses after loading draw the very numbers that came next."""
    torch.manual_seed(0)
    model = convert(NETS[net](), **SAVED[options], seed=1)
    x, labels = batch(model)
    train(model, MCA(model, lr=0.2, refresh_every=24), x, labels, 3)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin = convert(NETS[net](), **SAVED[options], seed=2)
    twin.load_state_dict(torch.load(file))
    losses = [train(m, MCA(m, lr=0.2, refresh_every=24), x, labels, 4) for m in (model, twin)]
    assert losses[0] == losses[1]
    ours, theirs = model.state_dict(), twin.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("net", NETS)
def test_a_copy_shares_nothing_and_goes_on_alike(net: str) -> None:
    torch.manual_seed(0)
    model = convert(NETS[net](), array_size=(9, 9))
    x, labels = batch(model)
    train(model, MCA(model, lr=0.2), x, labels, 2)
    twin = copy.deepcopy(model)
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    first = train(model, MCA(model, lr=0.2), x, labels, 3)
    for name, value in twin.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert len({tile.clock for tile in tiles(twin).values()}) == 1
    assert train(twin, MCA(twin, lr=0.2), x, labels, 3) == first
