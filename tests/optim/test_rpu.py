"""RPU: pulse statistics, management, sequential and summed batches."""

import math

import pytest
import torch
from torch import nn

import devicemodels
import mcatrain
from devicemodels.devices.step import SoftBoundsParameters, StepParameters
from devicemodels.errors import InputError
from devicemodels.library import DeviceModel
from mcatrain import kernels
from mcatrain.tile import tiles


def step_model(kind: str = "constant-step", **changes: float) -> DeviceModel:
    """A balanced, noiseless step device without spread, far from its bounds unless changed."""
    values = {
        "dw_min": 0.001, "dw_min_dtod": 0.0, "dw_min_std": 0.0, "up_down": 1.0,
        "up_down_dtod": 0.0, "w_max": 10.0, "w_min": -10.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0,
    } | changes  # fmt: skip
    device = (SoftBoundsParameters if kind == "soft-bounds" else StepParameters)(**values)
    return DeviceModel("test", kind, "t", "p", "n", device, None, (), "")


def one_step(
    x: torch.Tensor, d: torch.Tensor, device: str | DeviceModel, seed: int = 0, **options: object
) -> tuple[torch.Tensor, mcatrain.AnalogLinear]:
    """Return the weight change of one RPU step with the factors x (n, in), d (n, out)."""
    layer = nn.Linear(x.shape[1], d.shape[1], bias=False)
    nn.init.zeros_(layer.weight)
    analog = mcatrain.convert(layer, device, periphery="ideal", seed=seed)
    before = analog.weight.clone()
    optimizer = mcatrain.RPU(analog, **({"lr": 0.01, "update_management": False} | options))
    (analog(x) * d).sum().backward()
    optimizer.step()
    return analog.weight - before, analog


def test_expected_pulses_and_their_binomial_variance() -> None:
    """E[pulses] = lr x d / dw_min, variance BL p (1 - p), for unclipped streams.

    8,000 repeats of 3 x 4 weights; 24 statistics at 4.5 standard errors: false alarm 2e-4.
    """
    x, d = torch.tensor([0.9, -0.5, 0.2, 0.0]), torch.tensor([0.8, -0.3, 0.05])
    lr, dw_min, slots, n = 0.004, 0.001, 10, 8_000
    gain = torch.tensor([math.sqrt(lr / (slots * dw_min))], dtype=torch.float64)
    streams = x.view(1, 4), d.view(1, 3), gain, gain, torch.tensor([slots])
    counts = torch.zeros(n, 12)
    for trial in range(n):
        index, count, rows = kernels.coincidences(*streams, trial)
        assert rows == 1
        counts[trial].index_add_(0, index, count.float())
    expected = -lr * torch.outer(d, x) / dw_min
    p = expected.abs().view(-1) / slots
    variance = slots * p * (1 - p)
    error = (counts.mean(0) - expected.view(-1)).abs()
    assert (error <= 4.5 * (variance / n).sqrt() + 1e-9).all()
    centred = counts - expected.view(-1)
    spread = (centred**4).mean(0) - variance**2  # variance of the squared deviation
    error = ((centred**2).mean(0) - variance).abs()
    assert (error <= 4.5 * (spread.clamp(min=0) / n).sqrt() + 1e-9).all()


@pytest.mark.parametrize("device", ["gokmen2016", "ideal", "linear"])
def test_mean_update_is_gradient_descent(device: str) -> None:
    """400 chips: the mean of dW is -lr d x^T within 5 standard errors (6 weights: 4e-6)."""
    x, d = torch.tensor([[0.7, -0.4, 0.3]]), torch.tensor([[0.5, -0.6]])
    lr = 0.1 if device == "linear" else 0.01  # its steps are a hundred times larger
    changes = torch.stack([one_step(x, d, device, seed=s, lr=lr)[0] for s in range(400)])
    expected = -lr * d.T @ x
    error = changes.std(0) / math.sqrt(len(changes))
    bias = {"linear": 0.02}.get(device, 0.0)  # write noise clipped at the lowest conductance
    assert ((changes.mean(0) - expected).abs() <= 5 * error + bias * expected.abs()).all()
    assert (changes.mean(0).abs() > 5 * error).any(), "the test would not see an update"


def gains(
    top_x: list[float], top_d: list[float], pulse_length: int, um: bool = True, blm: bool = False
) -> list[list[float]]:
    """Return gains and slots of rows with these tops, at lr 0.01 and dw_min 0.001."""
    x, d = (torch.tensor([[-top, 0.0] for top in tops]) for tops in (top_x, top_d))
    *found, total = kernels.gains(x, d, 0.01, 0.001, pulse_length, um, blm)
    assert total == found[2].sum()
    return [v.tolist() for v in found]


def test_update_management_balances_the_probabilities() -> None:
    """A tiny error against a full input: same mean, and both streams reach the same top."""
    gain_x, gain_d, slots = gains([1.0, 0.5, 0.0], [1e-4, 2.0, 1.0], 10)
    assert slots == [10, 10, 0]
    for gx, gd, x, d in zip(gain_x[:2], gain_d[:2], [1.0, 0.5], [1e-4, 2.0], strict=True):
        assert gx * x == pytest.approx(gd * d)
        assert gx * gd == pytest.approx(0.01 / (10 * 0.001))
    assert gain_x[2] == gain_d[2] == 0.0


def test_bl_management_shortens_streams() -> None:
    gain_x, gain_d, slots = gains([1.0] * 4, [0.25, 9.0, 0.0, 1e30], 31, blm=True)
    assert slots == [3, 31, 0, 31]  # ceil(2.5)
    for n, gx, gd in zip(slots[:2], gain_x, gain_d, strict=False):
        assert gx * gd == pytest.approx(0.01 / (n * 0.001))


def test_long_streams_count_every_slot() -> None:
    """More than 64 slots (one machine word): probability 1 gives exactly that many pulses."""
    x, d = torch.ones(1, 3), torch.ones(1, 2)
    change, analog = one_step(x, d, step_model(), lr=0.2, pulse_length=200)
    torch.testing.assert_close(change, torch.full((2, 3), -0.2))
    assert analog.tile.synapse.reset_pulses == 200 * 6


def test_summed_batch_equals_the_sequential_one_in_distribution_on_constant_steps() -> None:
    """200 chips each way, mean and standard deviation of 6 weights within 4.5 errors (8e-5)."""
    x, d = torch.rand(8, 3), torch.randn(8, 2)
    runs = {}
    for sequential in (True, False):
        changes = [
            one_step(x, d, step_model(dw_min_std=0.3), seed=s, sequential=sequential)[0]
            for s in range(200)
        ]
        runs[sequential] = torch.stack(changes)
    a, b = runs[True], runs[False]
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= 4.5 * error).all()
    error = a.std(0) / math.sqrt(2 * len(a)) * math.sqrt(2)
    assert ((a.std(0) - b.std(0)).abs() <= 4.5 * error).all()


def test_summed_batch_differs_on_soft_bounds_by_the_documented_amount() -> None:
    """Ups before downs end lower where the step depends on the state: the README's figure.

    32 examples of alternating sign, steps of 1 % of the range, one pulse an example in the mean:
    the sequential form stays at 0, the summed one ends 4.6 % of the range lower. 300 chips give
    the shift to 0.32 % of the range: bounds of 4.5 standard errors, false alarm 7e-6.
    """
    x = torch.ones(32, 1)
    d = torch.tensor([1.0, -1.0]).repeat(16).view(32, 1)
    soft = step_model("soft-bounds", w_max=1.0, w_min=-1.0, dw_min=0.02)
    means = {}
    for sequential in (True, False):
        options = {"lr": 0.02, "sequential": sequential}
        runs = torch.stack([one_step(x, d, soft, s, **options)[0] for s in range(300)])
        means[sequential] = (runs.mean().item(), runs.std().item() / math.sqrt(300))
    shift = (means[True][0] - means[False][0]) / 2
    error = math.hypot(means[True][1], means[False][1]) / 2
    assert abs(shift - 0.0462) < 4.5 * error
    assert shift > 5 * error


def test_rows_in_order_meet_the_bounds_as_rows_one_by_one_do() -> None:
    """12 rows that step down and 6 that step up, one pulse each in the mean, bounds 6 steps away.

    In order a device goes to its lower bound and back to about 0; ups first it would end near the
    lower bound. A batch against as many batches of one row: mean and standard deviation of 300
    chips within 4.5 errors: false alarm 1.4e-5.
    """
    x, d = torch.ones(18, 1), torch.ones(18, 1)
    d[12:] = -1.0
    device = step_model(dw_min_std=0.3, w_max=0.006, w_min=-0.006)
    ends: dict[str, list[float]] = {"batch": [], "rows": []}
    for seed in range(300):
        ends["batch"].append(one_step(x, d, device, seed, lr=0.001)[0].item())
        layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(layer.weight)
        analog = mcatrain.convert(layer, device, periphery="ideal", seed=1_000 + seed)
        optimizer = mcatrain.RPU(analog, lr=0.001, update_management=False)
        for row in range(18):
            optimizer.zero_grad()
            (analog(x[row : row + 1]) * d[row]).sum().backward()
            optimizer.step()
        ends["rows"].append(analog.weight.item())
    a, b = (torch.tensor(ends[name], dtype=torch.float64) for name in ("batch", "rows"))
    assert abs(a.mean() - b.mean()) < 4.5 * math.sqrt((a.var() + b.var()) / 300)
    spread = [((v - v.mean()) ** 2).var() / 300 for v in (a, b)]
    assert abs(a.var() - b.var()) < 4.5 * math.sqrt(sum(spread))
    summed = [one_step(x, d, device, s, lr=0.001, sequential=False)[0].item() for s in range(300)]
    assert b.mean() - sum(summed) / 300 > 0.003, "the order would not be seen"


def test_rows_of_too_many_events_are_pulsed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some events at a time: every row has its turn, in order, and none twice."""
    monkeypatch.setattr("mcatrain.kernels.reference.MOST_EVENTS", 10)
    x, d = torch.ones(9, 3), torch.ones(9, 2)
    d[5:] = -1.0
    change, analog = one_step(x, d, step_model(w_min=-0.03), lr=0.01)
    torch.testing.assert_close(change, torch.full((2, 3), 0.01))  # the bound, then 4 rows up
    synapse = analog.tile.synapse
    assert (synapse.set_pulses, synapse.reset_pulses) == (4 * 10 * 6, 5 * 10 * 6)


def layer_step(kind: str, seed: int = 0, **options: object) -> tuple[nn.Module, nn.Module]:
    """Return a torch layer with its gradient and the analog one after an RPU step of lr 0.01."""
    torch.manual_seed(0)
    layer, x = {
        "linear": (nn.Linear(3, 2), torch.rand(5, 3)),
        "convolution": (nn.Conv2d(2, 3, 2), torch.rand(2, 2, 4, 3)),
        "lstm": (nn.LSTM(3, 2), torch.rand(6, 2, 3)),
    }[kind]
    analog = mcatrain.convert(layer, step_model(), periphery="ideal", seed=seed)
    optimizer = mcatrain.RPU(analog, lr=0.01, **options)
    scale = torch.rand(20) - 0.5  # no probability above 1
    for model in (layer, analog):
        y = model(x)
        y = y[0] if kind == "lstm" else y
        (y.flatten() * scale.repeat(9)[: y.numel()]).sum().backward()
    optimizer.step()
    return layer, analog


@pytest.mark.parametrize(
    ("kind", "in_order"), [("linear", True), ("convolution", False), ("lstm", False)]
)
def test_examples_of_many_rows_are_summed_unless_told_otherwise(kind: str, in_order: bool) -> None:
    """The default is the one form or the other, bit by bit, by the layer."""
    weights = {}
    for sequential in (None, True, False):
        analog = layer_step(kind, sequential=sequential)[1]
        (tile,) = tiles(analog).values()
        weights[sequential] = tile.weights()
    assert torch.equal(weights[None], weights[in_order])
    assert not torch.equal(weights[None], weights[not in_order])


@pytest.mark.parametrize("kind", ["convolution", "lstm"])
def test_mean_update_of_many_rows_is_gradient_descent(kind: str) -> None:
    """300 chips: the mean of dW is -lr times torch's gradient within 5 errors (24 weights: 1e-5).

    Read back in torch's own layout, as `unconvert` gives it.
    """
    changes = []
    for seed in range(300):
        layer, analog = layer_step(kind, seed)
        before, after = (next(m.parameters()) for m in (layer, mcatrain.unconvert(analog)))
        changes.append(after - before)
    expected = -0.01 * before.grad
    changes = torch.stack(changes).detach()
    error = changes.std(0) / math.sqrt(len(changes))
    assert ((changes.mean(0) - expected).abs() <= 5 * error + 1e-7).all()
    assert (changes.mean(0).abs() > 5 * error).any(), "the test would not see an update"


def test_digital_parameters_get_plain_sgd() -> None:
    model = mcatrain.convert(nn.Linear(3, 2), "gokmen2016", bias="digital", periphery="ideal")
    bias = model.bias.detach().clone()
    optimizer = mcatrain.RPU(model, lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(model.bias.detach(), bias - 0.1)
    assert model.tile.chi.grad is None


def test_accumulated_examples_all_count() -> None:
    x, d = torch.ones(1, 3), torch.ones(1, 2)
    analog = mcatrain.convert(nn.Linear(3, 2, bias=False), step_model(), periphery="ideal")
    before = analog.weight.clone()
    optimizer = mcatrain.RPU(analog, lr=0.01, update_management=False)
    for _ in range(3):
        (analog(x) * d).sum().backward()
    optimizer.step()
    torch.testing.assert_close(analog.weight - before, torch.full((2, 3), -0.03))
    assert analog.tile.clock.examples == 3
    optimizer.step()  # the factors are spent
    torch.testing.assert_close(analog.weight - before, torch.full((2, 3), -0.03))


def test_not_finite_factors_touch_no_device() -> None:
    analog = mcatrain.convert(nn.Linear(3, 2), "gokmen2016")
    optimizer = mcatrain.RPU(analog, lr=0.01)
    before = analog.weight.clone()
    (analog(torch.ones(1, 3)) * float("nan")).sum().backward()
    with pytest.raises(InputError, match="not finite"):
        optimizer.step()
    assert torch.equal(analog.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lr": -1.0}, "lr = -1.0"), ({"lr": 0.1, "pulse_length": 0}, "pulse_length = 0")],
)
def test_bad_settings_of_rpu_are_named(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mcatrain.RPU(mcatrain.convert(nn.Linear(2, 2), devicemodels.load("ideal")), **options)
