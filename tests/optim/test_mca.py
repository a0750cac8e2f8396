"""MCA: exact pulse counts, any base optimizer, weight decay on the read weight."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import devicemodels
import mcatrain
from devicemodels.devices.ideal import IdealParameters
from devicemodels.errors import InputError
from devicemodels.library import DeviceModel
from mcatrain.optim import mca as mca_module


def ideal(step: float) -> DeviceModel:
    """An ideal device of another granularity than the shipped one."""
    text = devicemodels.load("ideal")
    return DeviceModel(
        "ideal", "ideal", text.title, text.publication, text.note,
        IdealParameters(step=step), None, (), "",
    )  # fmt: skip


def network(seed: int = 0, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 8, bias=bias), nn.Tanh(), nn.Linear(8, 3, bias=bias))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 40) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(4, 12, generator=generator)
        y = torch.randn(4, 3, generator=generator)
        optimizer.zero_grad()
        (model(x) - y).square().sum().backward()
        optimizer.step()


def read_weights(model: nn.Module) -> torch.Tensor:
    """All weights of a model, digital or analog, without the analog bias columns."""
    parts = []
    for layer in (model[0], model[2]):
        weight = layer.weight.detach()
        parts.append(weight[:, : layer.in_features].reshape(-1))
        bias = weight[:, layer.in_features] if weight.shape[1] > layer.in_features else layer.bias
        parts.append(bias.detach().reshape(-1))
    return torch.cat(parts)


class SignMomentum(torch.optim.Optimizer):
    """Somebody else's optimizer: keeps state, has its own decoupled decay."""

    def __init__(self, params, lr=1e-3, beta=0.9, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = p.grad + group["weight_decay"] * p
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.mul_(group["beta"]).add_(g, alpha=1 - group["beta"])
                p.sub_(m.sign(), alpha=group["lr"])


BASES = {
    "sgd": (torch.optim.SGD, {"lr": 0.01}),
    "momentum": (torch.optim.SGD, {"lr": 0.002, "momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"lr": 0.002, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.003}),
    "adamw": (torch.optim.AdamW, {"lr": 0.003, "weight_decay": 0.05}),
    "adam-decay": (torch.optim.Adam, {"lr": 0.003, "weight_decay": 0.05}),
    "sgd-decay": (torch.optim.SGD, {"lr": 0.01, "weight_decay": 0.05}),
    "sgd-maximize-decay": (
        torch.optim.SGD,
        {"lr": 3e-4, "weight_decay": 0.05, "maximize": True},
    ),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.001}),
    "third-party": (SignMomentum, {"lr": 0.002, "weight_decay": 0.05}),
}


@pytest.mark.parametrize("name", BASES)
def test_fine_ideal_device_equals_the_base_optimizer(name: str) -> None:
    """epsilon -> 0 with ideal converters: MCA is the base optimizer, weight decay included."""
    base, options = BASES[name]
    digital, analog = network(), network()
    train(digital, base(digital.parameters(), **options))
    mcatrain.convert(analog, ideal(1e-8), periphery="ideal")
    train(analog, mcatrain.MCA(analog, base, **options))
    moved = (read_weights(digital) - read_weights(network())).abs().max()
    assert moved > 0.02, "the test would not see a difference"
    torch.testing.assert_close(read_weights(analog), read_weights(digital), atol=5e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "third-party"])
def test_pulses_times_epsilon_plus_chi_is_what_the_base_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a noisy device too: no pulse is lost or invented, whatever the batch."""
    base, options = BASES[name]
    model = network()
    mcatrain.convert(model, "nandakumar2018", periphery="mca", bias="digital")
    optimizer = mcatrain.MCA(model, base, **(options | {"weight_decay": 0.0, "lr": 0.02}))
    tile = model[0].tile
    commanded = torch.zeros(8 * 12, dtype=torch.int64)
    asked = torch.zeros(8, 12, dtype=torch.float64)
    spend, descend = mca_module.kernels.spend, mca_module.kernels.descend
    base_step = optimizer.base.step

    def counted(chi, epsilon):
        index, count = spend(chi, epsilon)
        if chi is tile.chi:
            commanded.index_add_(0, index, count)
        return index, count

    def descended(chi, gradient, scale, epsilon):
        if chi is tile.chi:
            asked.add_(gradient.double(), alpha=scale)
        index, count = descend(chi, gradient, scale, epsilon)
        if chi is tile.chi:
            commanded.index_add_(0, index, count)
        return index, count

    def measured():
        before = tile.chi.detach().double().clone()
        base_step()
        asked.add_(tile.chi.detach().double() - before)

    monkeypatch.setattr(mca_module.kernels, "spend", counted)
    monkeypatch.setattr(mca_module.kernels, "descend", descended)
    if name != "sgd":  # plain SGD adds its gradients while it looks for pulses
        monkeypatch.setattr(optimizer.base, "step", measured)
    train(model, optimizer, steps=60)
    epsilon = tile.synapse.granularity
    total = commanded.view(8, 12) * epsilon + tile.chi.detach().double()
    assert commanded.abs().sum() > 50
    torch.testing.assert_close(total, asked, atol=1e-6, rtol=0)
    assert (tile.chi.abs() < epsilon).all()


def test_plain_sgd_is_asked_where_its_step_was_changed() -> None:
    """Hooks and steps put in its place must see the gradients, which stay after a step."""
    seen = []

    def run(change: Any) -> tuple[torch.Tensor, torch.Tensor]:
        model = network()
        mcatrain.convert(model, "nandakumar2018", periphery="mca", bias="digital")
        optimizer = mcatrain.MCA(model, torch.optim.SGD, lr=0.02)
        change(optimizer.base)
        train(model, optimizer, steps=5)
        tile = model[0].tile
        assert tile.chi.grad is not None
        return tile.chi.detach().clone(), tile.chi.grad.clone()

    def hook(*_: Any) -> None:
        seen.append("hook")

    def patch(base: torch.optim.Optimizer) -> None:
        step = base.step
        base.step = lambda: seen.append("step") or step()  # type: ignore[method-assign]

    plain = run(lambda base: None)
    for change in (lambda base: base.register_step_pre_hook(hook), patch):
        for expected, got in zip(plain, run(change), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    assert seen == ["hook"] * 5 + ["step"] * 5


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("density", [0.2, 0.9])
def test_factored_gradients_are_the_same_update(batch: int, density: float) -> None:
    """Fewer passes over chi, sparse inputs or dense, not another rule."""
    models = {}
    for factored in (False, True):
        model = network()
        mcatrain.convert(model, "nandakumar2018")
        optimizer = mcatrain.MCA(model, torch.optim.SGD, lr=0.05, factored=factored)
        generator = torch.Generator().manual_seed(1)
        for _ in range(50):
            x = torch.randn(batch, 12, generator=generator)
            x *= torch.rand(batch, 12, generator=generator) < density
            optimizer.zero_grad()
            (model(x) - 0.5).square().sum().backward()
            optimizer.step()
        models[factored] = model
    for a, b in zip(*(mcatrain.tiles(m).values() for m in models.values()), strict=True):
        assert a.synapse.set_pulses == b.synapse.set_pulses > 0
        torch.testing.assert_close(a.chi, b.chi, atol=1e-6, rtol=0)
        torch.testing.assert_close(a.synapse.weight, b.synapse.weight)


def test_factored_gradients_refuse_a_base_that_needs_the_whole() -> None:
    model = network()
    mcatrain.convert(model)
    with pytest.raises(InputError, match="factored=True needs"):
        mcatrain.MCA(model, torch.optim.SGD, lr=0.1, momentum=0.9, factored=True)


def test_counter_equals_the_pulses_sent() -> None:
    model = network()
    mcatrain.convert(model, "nandakumar2018")
    sent = []
    for tile in mcatrain.tiles(model).values():
        pulse = tile.synapse.pulse
        tile.synapse.pulse = lambda e, t, pulse=pulse: (sent.append(e.total), pulse(e, t))
    train(model, mcatrain.MCA(model, lr=0.1, refresh_every=0), steps=50)
    assert sum(sent) == sum(t.synapse.set_pulses for t in mcatrain.tiles(model).values()) > 0


def test_a_request_of_many_pulses_loses_none() -> None:
    """aihwkit's stream length would cut such a request; here 10^9 steps arrive."""
    layer = mcatrain.convert(nn.Linear(3, 2, bias=False), ideal(1e-9), periphery="ideal")
    before = layer.weight.clone()
    optimizer = mcatrain.MCA(layer, lr=1.0)
    layer.tile.chi.grad = torch.full((2, 3), -1.0)
    optimizer.step()
    torch.testing.assert_close(layer.weight, before + 1.0)
    assert layer.tile.synapse.set_pulses == pytest.approx(6e9, rel=1e-6)


def test_zero_gradient_changes_nothing_but_time() -> None:
    model = network()
    mcatrain.convert(model, "nandakumar2018", seconds_per_example=2.0)
    optimizer = mcatrain.MCA(model, lr=0.5)
    model(torch.randn(4, 12))  # the first read fills the cache of weights
    before = copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    (model(torch.randn(4, 12)) * 0).sum().backward()
    optimizer.step()
    assert model[0].tile.now_s == 8.0
    for key, value in model.state_dict().items():
        own = ("now_s", "clock_examples", "read_at_s", "ledger")
        if "chance." not in key and not key.endswith(own):
            torch.testing.assert_close(value, before[key], rtol=0, atol=1e-7, msg=key)


def test_not_finite_gradient_touches_no_device() -> None:
    model = network()
    mcatrain.convert(model, "nandakumar2018")
    optimizer = mcatrain.MCA(model, lr=0.5)
    train(model, optimizer, steps=3)
    before = copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    # Only the last layer's gradient is broken: the first must not be pulsed either.
    model(torch.randn(4, 12)).sum().backward()
    model[2].tile.chi.grad[0, 0] = float("nan")
    after_forward = model.state_dict()["0.tile.chance.state"].clone()
    with pytest.raises(InputError, match=r"layer '2' is not finite"):
        optimizer.step()
    now = model.state_dict()
    assert torch.equal(now["0.tile.chance.state"], after_forward)
    for key in before:
        if ".tile.chance." not in key and not key.endswith("ledger"):  # it was read
            assert torch.equal(now[key], before[key]), key


def test_groups_have_their_own_epsilon_and_lr() -> None:
    model = network()
    mcatrain.convert(model, ideal(0.01), periphery="ideal")
    groups = [
        {"params": model[0].parameters(), "epsilon": 0.01, "lr": 0.0},
        {"params": model[2].parameters(), "lr": 0.1},
    ]
    optimizer = mcatrain.MCA(model, torch.optim.SGD, params=groups, epsilon=0.02, lr=0.5)
    assert [g["epsilon"] for g in optimizer.param_groups] == [0.01, 0.02]
    train(model, optimizer, steps=5)
    assert model[0].tile.synapse.set_pulses == 0
    assert model[2].tile.synapse.set_pulses > 0
    assert (model[2].tile.chi.abs() < 0.02).all()


def test_layer_beta_sets_its_granularity() -> None:
    model = network()
    mcatrain.convert(model, overrides={"0": {"beta": 40.0}})
    assert model[0].tile.synapse.granularity == pytest.approx(0.77 / 40)
    assert model[2].tile.synapse.granularity == pytest.approx(0.77 / 8.02)


def test_scheduler_closure_clipping_and_accumulation() -> None:
    """All four in one: equal to the same on a digital network."""

    def run(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)
        generator = torch.Generator().manual_seed(2)
        for _ in range(15):
            parts = [torch.randn(2, 15, generator=generator) for _ in range(3)]

            def closure(parts=parts) -> torch.Tensor:
                optimizer.zero_grad()
                for part in parts:  # accumulation: three backward passes, one step
                    loss = (model(part[:, :12]) - part[:, 12:]).square().sum()
                    loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                return loss

            assert optimizer.step(closure).item() > 0
            schedule.step()
        return read_weights(model)

    digital, analog = network(), network()
    mcatrain.convert(analog, ideal(1e-8), periphery="ideal")
    expected = run(digital, torch.optim.SGD(digital.parameters(), lr=0.1))
    optimizer = mcatrain.MCA(analog, torch.optim.SGD, lr=0.1)
    torch.testing.assert_close(run(analog, optimizer), expected, atol=1e-5, rtol=1e-4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 8)
    assert analog[0].tile.clock.examples == 15 * 6


def test_state_dict_carries_the_base_state() -> None:
    def fresh() -> tuple[nn.Module, mcatrain.MCA]:
        model = network()
        mcatrain.convert(model, "nandakumar2018", seed=3)
        return model, mcatrain.MCA(model, torch.optim.Adam, lr=0.01)

    model, optimizer = fresh()
    train(model, optimizer, steps=10)
    twin, twin_optimizer = fresh()
    twin.load_state_dict(model.state_dict())
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for m, o in ((model, optimizer), (twin, twin_optimizer)):
        train(m, o, steps=10)
    for key, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), key


def test_digital_parameters_train_beside_analog_ones() -> None:
    model = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    mcatrain.convert(model, bias="digital", overrides={"2": None})
    assert type(model[2]) is nn.Linear
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train(model, mcatrain.MCA(model, torch.optim.Adam, lr=0.05), steps=20)
    for key in ("0.bias", "1.weight", "2.weight", "0.tile.synapse.devices.conductance_us"):
        assert not torch.equal(model.state_dict()[key], before[key]), key


def test_refresh_runs_every_r_examples() -> None:
    model = network()
    mcatrain.convert(model)
    calls = []
    for tile in mcatrain.tiles(model).values():
        tile.synapse.refresh = lambda now: calls.append(now)
    train(model, mcatrain.MCA(model, lr=0.0, refresh_every=10), steps=25)  # 100 examples of 4
    assert len(calls) == 2 * 10


class Lamb(SignMomentum):
    """Stands for the optimizers that scale by the parameter's norm."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon = 0.0: give a positive"),
        ({"epsilon": -0.1}, "epsilon = -0.1"),
        ({"epsilon": float("nan")}, "epsilon = nan"),
        ({"base": Lamb}, "MCA cannot wrap Lamb"),
        ({"base": torch.optim.LBFGS}, "MCA cannot wrap LBFGS"),
        ({"base": torch.optim.Adafactor}, "MCA cannot wrap Adafactor"),
        ({"refresh_every": -1}, "refresh_every = -1"),
        ({"refresh_every": 2.5}, "refresh_every = 2.5"),
    ],
)
def test_bad_settings_are_named(options: dict, message: str) -> None:
    model = network()
    mcatrain.convert(model)
    with pytest.raises(InputError, match=message):
        mcatrain.MCA(model, lr=0.1, **options)


def test_a_plain_model_is_told_to_convert() -> None:
    with pytest.raises(InputError, match="call convert"):
        mcatrain.MCA(network(), lr=0.1)
