"""Conv1d and Conv2d on arrays against torch, as a native convolution and by patches."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from devicemodels import DeviceModel
from devicemodels.errors import InputError
from mcatrain import MCA, RPU, AnalogConv, Periphery, Tile, convert, unconvert
from mcatrain.nn.native import NativeConvolution

#: Layer, its arguments (3 channels in where there are no groups), image.
CASES: dict[str, tuple[type, tuple, dict[str, Any], tuple[int, ...]]] = {
    "plain": (nn.Conv2d, (3, 4, 3), {}, (2, 3, 7, 6)),
    "1x1": (nn.Conv2d, (3, 4, 1), {}, (2, 3, 4, 5)),
    "flat kernel": (nn.Conv2d, (3, 4, (2, 3)), {"stride": (2, 1)}, (2, 3, 7, 6)),
    "stride leaves a rest": (nn.Conv2d, (3, 4, 3), {"stride": 2, "padding": 1}, (2, 3, 8, 7)),
    "padding in two sizes": (nn.Conv2d, (3, 4, 3), {"padding": (2, 1)}, (2, 3, 5, 6)),
    "dilation": (nn.Conv2d, (3, 4, 3), {"dilation": (2, 1), "padding": 2}, (2, 3, 6, 5)),
    "same, even kernel": (
        nn.Conv2d,
        (3, 4, (2, 4)),
        {"padding": "same", "dilation": (1, 2)},
        (2, 3, 6, 7),
    ),
    "valid": (nn.Conv2d, (3, 4, 3), {"padding": "valid"}, (2, 3, 6, 5)),
    "reflect": (nn.Conv2d, (3, 4, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 3, 5, 4)),
    "replicate": (
        nn.Conv2d,
        (3, 4, 3),
        {"padding": (1, 2), "padding_mode": "replicate"},
        (2, 3, 5, 4),
    ),
    "circular": (nn.Conv2d, (3, 4, 3), {"padding": 1, "padding_mode": "circular"}, (2, 3, 5, 4)),
    "groups": (nn.Conv2d, (4, 6, 3), {"groups": 2, "padding": 1, "stride": 2}, (2, 4, 5, 6)),
    "depthwise": (nn.Conv2d, (3, 6, 3), {"groups": 3}, (2, 3, 5, 6)),
    "unbatched": (nn.Conv2d, (3, 4, 3), {"padding": 1}, (3, 5, 6)),
    "signal": (nn.Conv1d, (3, 4, 3), {"stride": 2, "padding": 1, "dilation": 2}, (2, 3, 9)),
    "signal, same": (nn.Conv1d, (3, 4, 4), {"padding": "same"}, (2, 3, 9)),
    "signal, reflect": (
        nn.Conv1d,
        (3, 4, 3),
        {"padding": 2, "padding_mode": "reflect"},
        (2, 3, 9),
    ),
    "signal, circular": (
        nn.Conv1d,
        (3, 4, 3),
        {"padding": 2, "padding_mode": "circular"},
        (2, 3, 9),
    ),
    "signal, groups": (nn.Conv1d, (4, 6, 3), {"groups": 2}, (2, 4, 9)),
    "signal, unbatched": (nn.Conv1d, (3, 4, 3), {}, (3, 9)),
}
BIASES = {"analog": (True, "analog"), "digital": (True, "digital"), "none": (False, "analog")}


def in_array_order(layer: nn.Module, part: str = "data") -> Tensor:
    """Return a layer's weights (or their gradients) as the rows of its arrays."""
    w, bias, groups = getattr(layer.weight, part), layer.bias, layer.groups
    w = w.unsqueeze(2) if w.dim() == 3 else w
    rows = w.permute(0, 2, 3, 1).flatten(1)
    if bias is not None:
        rows = torch.cat([rows, getattr(bias, part).unsqueeze(1)], dim=1)
    return torch.block_diag(*rows.chunk(groups))


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("path", ["native", "converters", "split"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own layer copies its image
def test_as_torch(
    case: str,
    path: str,
    bias: str,
    fine: DeviceModel,
    harmless: Periphery,
    gradient: Callable[..., Tensor],
) -> None:
    """Forward, both gradients, and one step of MCA, whose weights unconvert."""
    torch.manual_seed(0)
    kind, arguments, keywords, shape = CASES[case]
    has_bias, where = BIASES[bias]
    layer = kind(*arguments, bias=has_bias, **keywords)
    options: dict[str, Any] = {"native": {}, "converters": {"periphery": harmless}}.get(
        path, {"array_size": (3, 5)}
    )
    analog = convert(copy.deepcopy(layer), fine, **{"periphery": "ideal", "bias": where, **options})
    native = isinstance(analog.tile, Tile) and NativeConvolution.serves(analog.tile)
    assert native == (path == "native" and layer.groups == 1)

    image = torch.randn(shape)
    x, x_torch = image.clone().requires_grad_(), image.clone().requires_grad_()
    y, expected = analog(x), layer(x_torch)
    # A level of the 24-bit ADC is 8e-6 of a vector's largest entry.
    close = {"atol": 2e-4 if path == "converters" else 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(y, expected, **close)
    d = torch.randn_like(expected)
    y.backward(d)
    expected.backward(d)
    torch.testing.assert_close(x.grad, x_torch.grad, **close)

    plain = copy.deepcopy(layer)
    plain.weight.grad = layer.weight.grad
    if bias == "digital":
        torch.testing.assert_close(analog.bias.grad, layer.bias.grad, **close)
        plain.bias = None
    elif bias == "analog":
        plain.bias.grad = layer.bias.grad
    torch.testing.assert_close(gradient(analog.tile), in_array_order(plain, "grad"), **close)

    MCA(analog, lr=0.05).step()
    torch.optim.SGD(layer.parameters(), lr=0.05).step()
    back = unconvert(analog)
    assert repr(back) == repr(layer)
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, atol=1e-5, rtol=0)


def test_weights_in_the_order_of_the_array() -> None:
    layer = nn.Conv2d(2, 3, (2, 3))
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    assert isinstance(analog, AnalogConv)
    assert analog.weight.shape == (3, 2 * 3 * 2 + 1)
    torch.testing.assert_close(analog.weight, in_array_order(layer))


@pytest.mark.parametrize("path", ["native", "must", "split"])
def test_read_noise_is_independent_at_every_position(
    path: str, whole: Callable[..., Tensor]
) -> None:
    """Mean, variance and correlation of every output and of every pixel of the gradient.

    4,000 draws of 27 outputs and 50 input pixels on PCM pairs. 77 means and 77 variances within
    5 standard errors (5.7e-7 each) and 1,576 correlations within 5.5 (3.8e-8): false alarm 2e-4.
    """
    n = 4000
    torch.manual_seed(3)
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    size = (2, 10) if path == "split" else None
    analog = convert(copy.deepcopy(layer), periphery="ideal", array_size=size, seed=7)
    if path == "must":
        analog.tile.factors = "must"
    native = isinstance(analog.tile, Tile) and NativeConvolution.serves(analog.tile)
    assert native == (path == "native")

    plain = unconvert(copy.deepcopy(analog))
    variance = whole(analog.tile, lambda tile: tile.synapse.read_variance(0.0))
    spread = variance[:, :-1].view(3, 3, 3, 2).permute(0, 3, 1, 2)
    image = torch.randn(1, 2, 5, 5)
    x = image.expand(n, -1, -1, -1).clone().requires_grad_()
    y = analog(x)
    d = torch.randn(1, 3, 3, 3)
    y.backward(d.expand(n, -1, -1, -1))

    pixels = image.clone().requires_grad_()
    mean = plain(pixels)
    mean.backward(d)
    noise = conv2d(image.square(), spread, variance[:, -1], 2, 1)
    squares = image.clone().requires_grad_()
    conv2d(squares, spread, None, 2, 1).backward(d.square())
    assert_gaussian(y.detach(), mean.detach(), noise)
    assert_gaussian(x.grad, pixels.grad, squares.grad)


def assert_gaussian(drawn: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Compare the moments of n draws (n, ...) with those they should have (1, ...)."""
    n, drawn, mean, variance = len(drawn), drawn.flatten(1), mean.flatten(), variance.flatten()
    assert (variance > 0).all()
    assert ((drawn.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all()
    assert ((drawn.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / n)).all()
    assert torch.corrcoef(drawn.T).triu(1).abs().max() < 5.5 / math.sqrt(n)


def test_noise_is_fresh_in_every_pass_and_seeded() -> None:
    x = torch.randn(2, 3, 5, 5)
    a, b = (convert(nn.Conv2d(3, 4, 3), periphery="ideal", seed=1) for _ in range(2))
    b.load_state_dict(a.state_dict())
    first, second = a(x), a(x)
    assert not torch.equal(first, second)
    assert torch.equal(first, b(x))
    assert torch.equal(second, b(x))


@pytest.mark.parametrize("rule", ["MCA", "MCA factored", "RPU"])
@pytest.mark.parametrize("groups", [1, 3])
def test_images_are_the_examples(rule: str, groups: int) -> None:
    """The clock counts images, not positions; an unbatched image is one."""
    layer = nn.Conv2d(3, 6, 3, groups=groups)
    analog = convert(layer, "ideal", periphery="ideal", seconds_per_example=1.0)
    optimizer = RPU(analog, 0.1) if rule == "RPU" else MCA(analog, lr=0.1, factored="f" in rule)
    before = analog.weight.clone()
    for shape in ((4, 3, 6, 6), (3, 6, 6)):
        analog(torch.randn(shape)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert analog.tile.parts[0].clock.examples == 5
    assert not torch.equal(analog.weight, before)


def test_rpu_follows_the_gradient_summed_over_positions() -> None:
    """The mean of 600 changes is -lr times torch's gradient.

    Each of 57 weights within 5 measured standard errors: false alarm 3e-5 at a normal tail.
    """
    torch.manual_seed(0)
    layer, image = nn.Conv2d(2, 3, 3), torch.rand(1, 2, 5, 5)
    d = torch.randn(1, 3, 3, 3) * 0.1
    layer(image).backward(d)
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    optimizer = RPU(analog, 0.01)
    changes = []
    for _ in range(600):
        before = analog.weight.clone()
        analog(image).backward(d)
        optimizer.step()
        optimizer.zero_grad()
        changes.append(analog.weight - before)
    drawn = torch.stack(changes)
    error = drawn.std(0) / math.sqrt(len(drawn))
    off = drawn.mean(0) + 0.01 * in_array_order(layer, "grad")
    assert (off.abs() < 5 * error).all()
    assert (error > 0).all()


def test_half_precision_images() -> None:
    analog = convert(nn.Conv2d(3, 4, 3), "ideal", periphery="ideal", bias="digital")
    analog = analog.to(torch.bfloat16)
    x = torch.randn(2, 3, 5, 5, dtype=torch.bfloat16, requires_grad=True)
    y = analog(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert analog.tile.chi.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Conv2d(3, 4, 3), (2, 5, 6, 6), r"Conv2d got .*\(2, 5, 6, 6\).*3 channels, height"),
        (nn.Conv2d(3, 4, 3), (6, 6), r"Conv2d got a tensor of shape \(6, 6\)"),
        (nn.Conv1d(3, 4, 3), (2, 4, 6), r"Conv1d got .*\(2, 4, 6\).*3 channels, length"),
        (nn.Conv2d(3, 4, 3, dilation=2), (2, 3, 4, 9), "4x9 .* smaller than the kernel's 5x5"),
        (nn.Conv1d(3, 4, 5), (2, 3, 4), "1x4 .* smaller than the kernel's 1x5"),
    ],
)
@pytest.mark.parametrize("size", [None, (2, 4)])
def test_impossible_images_are_named(
    layer: nn.Module, shape: tuple, message: str, size: tuple | None
) -> None:
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal", array_size=size)
    with pytest.raises(InputError, match=message) as caught:
        analog(torch.randn(shape))
    assert "\n" not in str(caught.value)
