"""Multi-head attention on arrays, alone and in torch's transformer layers."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from devicemodels import DeviceModel
from devicemodels.errors import InputError
from mcatrain import MCA, RPU, AnalogAttention, convert, tiles, unconvert

BATCH, QUERIES, KEYS, WIDTH, HEADS = 3, 4, 5, 8, 2


def causal(size: int = QUERIES) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu(1)


def padding() -> Tensor:
    mask = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    mask[0, 3:], mask[2, 1:] = True, True
    return mask


def sequences(layer: nn.MultiheadAttention, batched: bool = True) -> list[Tensor]:
    sizes = [(QUERIES, WIDTH), (KEYS, layer.kdim), (KEYS, layer.vdim)]
    if not batched:
        return [torch.randn(t, width) for t, width in sizes]
    if layer.batch_first:
        return [torch.randn(BATCH, t, width) for t, width in sizes]
    return [torch.randn(t, BATCH, width) for t, width in sizes]


def assert_same(
    layer: nn.MultiheadAttention, analog: nn.Module, inputs: list[Tensor], **keywords: Any
) -> None:
    """Compare outputs, attention weights and the gradients of all three inputs."""
    answers = []
    for net in (layer, analog):
        flow = [t.clone().requires_grad_() for t in inputs]
        y, weights = net(*flow, **keywords)
        torch.manual_seed(5)
        loss = (y * torch.randn(y.shape)).sum()
        if weights is not None:
            loss = loss + (weights * torch.randn(weights.shape)).sum()
        loss.backward()
        answers.append(([y, *([] if weights is None else [weights])], [t.grad for t in flow]))
    torch.testing.assert_close(answers[1], answers[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", ["analog", "digital", "none"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6}, {"kdim": 6, "vdim": 7}])
def test_as_torch(
    sizes: dict[str, int], batch_first: bool, bias: str, fine: DeviceModel, gradient: Callable
) -> None:
    """Outputs, gradients to inputs and weights, one step of MCA, and the way back."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(
        WIDTH, HEADS, bias=bias != "none", batch_first=batch_first, **sizes
    )
    if layer.in_proj_bias is not None:  # torch starts these at 0
        nn.init.normal_(layer.in_proj_bias)
        nn.init.normal_(layer.out_proj.bias)
    where = "digital" if bias == "digital" else "analog"
    analog = convert(copy.deepcopy(layer), fine, periphery="ideal", bias=where)
    assert isinstance(analog, AnalogAttention)
    assert len(tiles(analog)) == 4
    inputs = sequences(layer)
    assert_same(layer, analog, inputs)

    if layer.in_proj_weight is not None:
        expected = list(layer.in_proj_weight.grad.chunk(3))
    else:
        expected = [getattr(layer, f"{part}_proj_weight").grad for part in "qkv"]
    expected.append(layer.out_proj.weight.grad)
    for part, weight in zip([*analog.maps.values(), analog.out_proj], expected, strict=True):
        got = gradient(part.tile)[:, : weight.shape[1]]
        torch.testing.assert_close(got, weight, atol=1e-5, rtol=1e-4)

    MCA(analog, lr=0.1).step()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    back = unconvert(analog)
    assert type(back) is nn.MultiheadAttention
    assert list(back.state_dict()) == list(layer.state_dict())
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, atol=4e-6, rtol=0)
    assert back.batch_first == batch_first
    torch.testing.assert_close(back(*inputs), layer(*inputs), atol=1e-4, rtol=0)


def masks(name: str) -> dict[str, Any]:
    """Return the keywords of a call; the generator is seeded by the test."""
    some = torch.rand(QUERIES, KEYS) < 0.4
    some[:, 0] = False  # a row without any key gives nan, here as in torch
    each = torch.rand(BATCH * HEADS, QUERIES, KEYS) < 0.4
    each[:, :, 0] = False
    return {
        "bool": {"attn_mask": some},
        "bool of each head": {"attn_mask": each},
        "float": {"attn_mask": torch.randn(QUERIES, KEYS)},
        "float of each head": {"attn_mask": torch.randn(BATCH * HEADS, QUERIES, KEYS)},
        "padding": {"key_padding_mask": padding()},
        "float padding": {"key_padding_mask": torch.randn(BATCH, KEYS)},
        "both": {"key_padding_mask": padding(), "attn_mask": some},
        "no weights": {"need_weights": False, "attn_mask": some},
        "weights of each head": {"average_attn_weights": False, "key_padding_mask": padding()},
    }[name]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "bool",
        "bool of each head",
        "float",
        "float of each head",
        "padding",
        "float padding",
        "both",
        "no weights",
        "weights of each head",
    ],
)
def test_masks(name: str, batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    assert_same(layer, analog, sequences(layer), **masks(name))


@pytest.mark.parametrize("hint", [False, True])
def test_causal(hint: bool) -> None:
    """With the mask and torch's hint; and the hint alone makes the mask."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS)
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    x = torch.randn(QUERIES, BATCH, WIDTH)
    masked: dict[str, Any] = {"attn_mask": causal(), "is_causal": hint, "need_weights": False}
    assert_same(layer, analog, [x, x, x], **masked)
    alone = analog(x, x, x, is_causal=True)
    torch.testing.assert_close(alone, analog(x, x, x, attn_mask=causal()))
    assert (alone[1][:, causal()] == 0).all()


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("masked", ["", "attn", "padding"])
def test_unbatched(masked: str, average: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    given = {
        "": {},
        "attn": {"attn_mask": torch.randn(HEADS, QUERIES, KEYS)},
        "padding": {"key_padding_mask": padding()[0]},
    }[masked]
    inputs = sequences(layer, batched=False)
    assert_same(layer, analog, inputs, average_attn_weights=average, **given)


def test_dropout_acts_on_the_attention_in_training_only() -> None:
    """With torch's own random numbers its masks fall in the same places."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5, batch_first=True)
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    inputs = sequences(layer)
    answers = []
    for net in (layer, analog):
        torch.manual_seed(1)
        answers.append(net(*inputs))
    torch.testing.assert_close(answers[1], answers[0], atol=1e-5, rtol=1e-4)
    assert (answers[1][1] == 0).any()
    layer.eval()
    analog.eval()
    torch.testing.assert_close(analog(*inputs), layer(*inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rule", ["MCA", "RPU"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_sequences_are_the_examples(batch_first: bool, rule: str) -> None:
    layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
    analog = convert(layer, "ideal", periphery="ideal")
    optimizer = RPU(analog, 0.1) if rule == "RPU" else MCA(analog, lr=0.1)
    before = {name: tile.weights().clone() for name, tile in tiles(analog).items()}
    analog(*sequences(layer))[0].square().sum().backward()
    optimizer.step()
    assert optimizer.clock.examples == BATCH
    for name, tile in tiles(analog).items():
        assert not torch.equal(tile.weights(), before[name])


@pytest.mark.parametrize("keywords", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_what_has_no_form_on_arrays_is_refused(keywords: dict[str, bool]) -> None:
    model = nn.ModuleDict({"mix": nn.MultiheadAttention(WIDTH, HEADS, **keywords)})
    with pytest.raises(InputError, match=r"layer 'mix' .*overrides=\{'mix': None\}"):
        convert(model, "ideal")
    assert type(model["mix"]) is nn.MultiheadAttention


def used(model: nn.Module, call: Callable[[], Any]) -> set[str]:
    """Return the tiles that drew read noise in a call."""
    before = {name: t.chance.generator.get_state() for name, t in tiles(model).items()}
    call()
    return {
        name
        for name, t in tiles(model).items()
        if not torch.equal(before[name], t.chance.generator.get_state())
    }


ENCODERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "gelu, norm first": {"batch_first": True, "activation": "gelu", "norm_first": True},
    "no bias": {"batch_first": True, "bias": False},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_layer(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 12, dropout=0.0, **ENCODERS[kind])
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    x = torch.randn(BATCH, KEYS, WIDTH)
    x = x if layer.self_attn.batch_first else x.transpose(0, 1)
    for net in (layer, analog):
        net(x, src_key_padding_mask=padding()).square().sum().backward()
    expected = layer(x, src_key_padding_mask=padding())
    torch.testing.assert_close(
        analog(x, src_key_padding_mask=padding()), expected, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(analog.norm1.weight.grad, layer.norm1.weight.grad)
    back = unconvert(analog)
    assert repr(back) == repr(layer)
    torch.testing.assert_close(
        back(x, src_key_padding_mask=padding()), expected, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("overrides", [{}, {"self_attn": None}, {"linear1": None}])
@pytest.mark.parametrize("bias", ["analog", "digital"])
@pytest.mark.parametrize("training", [True, False])
def test_encoder_layer_always_reads_its_arrays(
    training: bool, bias: str, overrides: dict[str, None]
) -> None:
    """torch's fused inference would take the weights and leave converters and noise out."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 12, dropout=0.0, batch_first=True)
    analog = convert(layer, periphery="ideal", bias=bias, overrides=overrides).train(training)
    x = torch.randn(BATCH, KEYS, WIDTH)
    with torch.no_grad():
        assert used(analog, lambda: analog(x)) == set(tiles(analog))
        assert not torch.equal(analog(x), analog(x))


@pytest.mark.parametrize("digital", ["", "layers.0.self_attn", "layers.1.linear1"])
@pytest.mark.parametrize("masked", ["", "padding", "causal"])
@pytest.mark.parametrize("training", [True, False])
def test_encoder(training: bool, masked: str, digital: str) -> None:
    """Train and eval, with and without gradients, are one function that reads every array."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 12, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH))
    for p in encoder.parameters():  # torch's layers begin as copies of one
        nn.init.normal_(p, std=0.5)
    x = torch.randn(BATCH, KEYS, WIDTH)
    given = {
        "": {},
        "padding": {"src_key_padding_mask": padding()},
        "causal": {"mask": causal(KEYS), "is_causal": True},
    }[masked]
    expected = encoder(x, **given)  # in training mode: torch's plain path
    overrides = {digital: None} if digital else {}
    options: dict[str, Any] = {"periphery": "ideal", "overrides": overrides, "bias": "digital"}
    analog = convert(copy.deepcopy(encoder), "ideal", **options).train(training)
    torch.testing.assert_close(analog(x, **given), expected, atol=1e-5, rtol=1e-4)
    noisy = convert(copy.deepcopy(encoder), **options).train(training)
    with torch.no_grad():
        torch.testing.assert_close(analog(x, **given), expected, atol=1e-5, rtol=1e-4)
        assert used(noisy, lambda: noisy(x, **given)) == set(tiles(noisy))


def test_decoder_layer() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 12, dropout=0.0)
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    assert len(tiles(analog)) == 10
    target, memory = torch.randn(QUERIES, BATCH, WIDTH), torch.randn(KEYS, BATCH, WIDTH)
    given = {
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(QUERIES),
        "memory_key_padding_mask": padding(),
    }
    expected = layer(target, memory, **given)
    expected.square().sum().backward()
    for net in (analog.train(), analog.eval()):
        torch.testing.assert_close(net(target, memory, **given), expected, atol=1e-5, rtol=1e-4)
    analog(target, memory, **given).square().sum().backward()
    torch.testing.assert_close(
        analog.norm1.weight.grad, layer.norm1.weight.grad, atol=1e-4, rtol=1e-4
    )
    noisy = convert(layer, periphery="ideal").eval()
    with torch.no_grad():
        assert used(noisy, lambda: noisy(target, memory, **given)) == set(tiles(noisy))


def test_a_width_that_does_not_fit_is_named() -> None:
    analog = convert(nn.MultiheadAttention(WIDTH, HEADS), "ideal")
    with pytest.raises(InputError, match=r"shape .*: it wants \(\.\.\., 8\)"):
        analog(*[torch.randn(QUERIES, BATCH, WIDTH + 1)] * 3)
