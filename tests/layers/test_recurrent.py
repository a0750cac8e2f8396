"""LSTM and GRU on arrays against torch: outputs, gradients, steps of SGD."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from devicemodels import DeviceModel
from devicemodels.errors import InputError
from mcatrain import MCA, RPU, AnalogRecurrent, Periphery, convert, tiles, unconvert

TIME, BATCH, INPUTS, UNITS = 5, 3, 4, 3
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU}
#: Arguments of the layer, options of the conversion.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "stacked": ({"num_layers": 3}, {}),
    "bidirectional": ({"bidirectional": True}, {}),
    "stacked, bidirectional": ({"num_layers": 2, "bidirectional": True}, {}),
    "batch first": ({"batch_first": True, "bidirectional": True}, {}),
    "no bias": ({"num_layers": 2, "bias": False}, {}),
    "digital bias": ({"num_layers": 2, "bidirectional": True}, {"bias": "digital"}),
    "split": ({"num_layers": 2}, {"array_size": (5, 3)}),
    "split to single weights": ({}, {"array_size": (1, 1)}),
    "digital bias, split": ({}, {"bias": "digital", "array_size": (5, 3)}),
}


def start(layer: nn.RNNBase, batch: tuple[int, ...]) -> list[Tensor]:
    """Return h0, and c0 for an LSTM."""
    layers = layer.num_layers * (2 if layer.bidirectional else 1)
    count = 2 if isinstance(layer, nn.LSTM) else 1
    return [torch.randn(layers, *batch, UNITS) for _ in range(count)]


def run(layer: nn.Module, x: Tensor, state: list[Tensor] | None) -> list[Tensor]:
    """Return the outputs and the last state, as one list."""
    if state is None:
        y, last = layer(x)
    else:
        y, last = layer(x, tuple(state) if len(state) == 2 else state[0])
    return [y, *(last if isinstance(last, tuple) else [last])]


def in_array_order(layer: nn.RNNBase, suffix: str, part: str) -> tuple[Tensor, Tensor]:
    """Return torch's weights (or gradients) as rows of [x, h], and those of the bias."""
    w_x, w_h = (getattr(getattr(layer, f"weight_{p}_{suffix}"), part) for p in ("ih", "hh"))
    b_x = b_h = torch.zeros(len(w_x))
    if layer.bias:
        b_x, b_h = (getattr(getattr(layer, f"bias_{p}_{suffix}"), part) for p in ("ih", "hh"))
    if isinstance(layer, nn.LSTM):
        return torch.cat([w_x, w_h], dim=1), b_x + b_h
    two = 2 * UNITS
    top = torch.cat([w_x[:two], w_h[:two]], dim=1)
    candidate = torch.block_diag(w_x[two:], w_h[two:])
    return torch.cat([top, candidate]), torch.cat([(b_x + b_h)[:two], b_x[two:], b_h[two:]])


def assert_gradients(analog: AnalogRecurrent, layer: nn.RNNBase, gradient: Callable) -> None:
    for suffix, array in analog.arrays.items():
        weights, bias = in_array_order(layer, suffix, "grad")
        got, width = gradient(array), weights.shape[1] - UNITS
        if analog.analog_bias:
            torch.testing.assert_close(got[:, width], bias, atol=1e-5, rtol=1e-4)
            got = torch.cat([got[:, :width], got[:, width + 1 :]], dim=1)
        torch.testing.assert_close(got, weights, atol=1e-5, rtol=1e-4)
        if suffix in analog.biases:
            torch.testing.assert_close(analog.biases[suffix].grad, bias, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("given", ["zero", "state"])
@pytest.mark.parametrize("batched", ["batch", "unbatched"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_as_torch(
    kind: str, case: str, batched: str, given: str, fine: DeviceModel, gradient: Callable
) -> None:
    """Outputs, gradients to x, h0, c0 and weights, one step of MCA, and the way back."""
    torch.manual_seed(0)
    keywords, options = CASES[case]
    layer = KINDS[kind](INPUTS, UNITS, **keywords)
    analog = convert(copy.deepcopy(layer), fine, periphery="ideal", **options)
    batch = (BATCH,) if batched == "batch" else ()
    shape = (*batch, TIME) if layer.batch_first else (TIME, *batch)
    inputs = [torch.randn(*shape, INPUTS)] + (start(layer, batch) if given == "state" else [])
    mine = [t.clone().requires_grad_() for t in inputs]
    torchs = [t.clone().requires_grad_() for t in inputs]
    got = run(analog, mine[0], mine[1:] or None)
    expected = run(layer, torchs[0], torchs[1:] or None)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)

    # Weighing every output and the last state differently lets no two gradients be confused.
    loss = [torch.randn_like(t) for t in expected]
    torch.autograd.backward(got, loss)
    torch.autograd.backward(expected, loss)
    for a, b in zip(mine, torchs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)
    assert_gradients(analog, layer, gradient)

    MCA(analog, lr=0.1).step()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    back = unconvert(analog)
    assert repr(back) == repr(layer)
    for suffix in analog.arrays:
        pairs = zip(
            in_array_order(back, suffix, "data"), in_array_order(layer, suffix, "data"), strict=True
        )
        for a, b in pairs:
            torch.testing.assert_close(a, b, atol=4e-6, rtol=0)
    after = run(back, inputs[0], inputs[1:] or None)
    torch.testing.assert_close(after, run(layer, inputs[0], inputs[1:] or None), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_through_converters_that_change_little(
    kind: str, harmless: Periphery, gradient: Callable
) -> None:
    torch.manual_seed(0)
    layer = KINDS[kind](INPUTS, UNITS, 2, bias=False)
    analog = convert(copy.deepcopy(layer), "ideal", periphery=harmless)
    x = torch.randn(TIME, BATCH, INPUTS)
    got, expected = run(analog, x, None), run(layer, x, None)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    assert not torch.equal(got[0], expected[0])
    for outputs in (got, expected):
        outputs[0].square().sum().backward()
    for suffix, array in analog.arrays.items():
        weights, _ = in_array_order(layer, suffix, "grad")
        torch.testing.assert_close(gradient(array), weights, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_used_outputs_need_a_gradient(kind: str, gradient: Callable) -> None:
    """A loss on the last state alone, and an input that wants no gradient."""
    torch.manual_seed(0)
    layer, x = KINDS[kind](INPUTS, UNITS, 2), torch.randn(TIME, BATCH, INPUTS)
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    for net in (layer, analog):
        run(net, x, None)[-1].square().sum().backward()
    assert_gradients(analog, layer, gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers_in_training_only(kind: str) -> None:
    """With torch's own random numbers: its masks fall in the same places."""
    torch.manual_seed(0)
    layer, x = KINDS[kind](INPUTS, 40, 2, dropout=0.5), torch.randn(TIME, BATCH, INPUTS)
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    outputs = []
    for net in (layer, analog):
        torch.manual_seed(1)
        outputs.append(run(net, x, None))
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-4)
    assert not torch.equal(run(analog, x, None)[0], outputs[1][0])
    layer.eval()
    analog.eval()
    torch.testing.assert_close(run(analog, x, None), run(layer, x, None), atol=1e-5, rtol=1e-4)


def test_an_array_for_every_layer_and_direction() -> None:
    lstm = convert(nn.LSTM(7, 5, 2, bidirectional=True), "ideal")
    assert list(lstm.arrays) == ["l0", "l0_reverse", "l1", "l1_reverse"]
    assert [a.shape for a in lstm.arrays.values()] == [(20, 13)] * 2 + [(20, 16)] * 2
    assert len(tiles(lstm)) == 4
    bare = convert(nn.LSTM(7, 5, bias=False), "ideal")
    assert bare.arrays["l0"].shape == (20, 12)


def test_blocks_of_a_gru() -> None:
    """Rows of the candidate's two parts hold no weights for what they do not use."""
    torch.manual_seed(0)
    gru = convert(nn.GRU(7, 5), "ideal")
    array = gru.arrays["l0"]
    assert array.shape == (20, 13)
    assert [tile.shape for tile in array.parts] == [(10, 13), (5, 8), (5, 6)]
    w = array.weights()
    assert (w[10:15, 8:] == 0).all()
    assert (w[15:, :7] == 0).all()
    assert (w[10:15, :8] != 0).all()
    assert (w[15:, 7:] != 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["MCA", "MCA factored", "RPU"])
def test_sequences_are_the_examples(kind: str, rule: str) -> None:
    """The clock counts the sequences of a batch, not their time steps; every rule moves weights."""
    torch.manual_seed(0)
    layer = KINDS[kind](INPUTS, UNITS, 2, bidirectional=True)
    analog = convert(layer, "ideal", periphery="ideal", seconds_per_example=1.0)
    optimizer = RPU(analog, 0.1) if rule == "RPU" else MCA(analog, lr=0.1, factored="f" in rule)
    before = {name: tile.weights().clone() for name, tile in tiles(analog).items()}
    for shape in ((TIME, BATCH, INPUTS), (TIME, INPUTS)):
        sum(t.square().sum() for t in run(analog, torch.randn(shape), None)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.clock.examples == BATCH + 1
    assert optimizer.clock.now_s == BATCH + 1
    for name, tile in tiles(analog).items():
        assert not torch.equal(tile.weights(), before[name])


@pytest.mark.parametrize("kind", KINDS)
def test_rpu_follows_the_gradient_summed_over_time(kind: str, whole: Callable) -> None:
    """The mean of 200 changes is -lr times torch's gradient, the one bias counted once.

    Each of at most 96 weights within 5 measured standard errors: false alarm 6e-5 at a normal
    tail; weights that never moved have no gradient.
    """
    torch.manual_seed(0)
    layer, x = KINDS[kind](INPUTS, UNITS), torch.randn(3, 1, INPUTS)
    layer(x)[0].square().sum().backward()
    analog = convert(copy.deepcopy(layer), "ideal", periphery="ideal")
    array, optimizer = analog.arrays["l0"], RPU(analog, 0.01)
    first = [tile.weights().clone() for tile in array.parts]
    start = array.weights().clone()
    changes = []
    for _ in range(200):
        analog(x)[0].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        changes.append(array.weights() - start)
        for tile, weights in zip(array.parts, first, strict=True):
            tile.synapse.program(weights, 0.0)
    drawn = torch.stack(changes)
    weights, bias = in_array_order(layer, "l0", "grad")
    bias[: UNITS * (4 if kind == "LSTM" else 2)] /= 2
    expected = torch.cat([weights[:, :INPUTS], bias.unsqueeze(1), weights[:, INPUTS:]], dim=1)
    off = (drawn.mean(0) + 0.01 * expected).abs()
    # A weight with a tiny gradient may move once or never: its error is at least that of one.
    error = (drawn.std(0) / 200**0.5).clamp(min=1e-3 / 200)
    assert (off < 5 * error).all()


def test_noise_differs_at_every_time_step() -> None:
    torch.manual_seed(0)
    analog = convert(nn.LSTM(INPUTS, UNITS), periphery="ideal")
    x = torch.randn(1, 1, INPUTS).expand(1, 50, INPUTS)  # one input in 50 places of the batch
    first, second = analog(x)[0], analog(x)[0]
    assert len(first[0, :, 0].unique()) == 50
    assert not torch.equal(first, second)


def test_half_precision_sequences() -> None:
    analog = convert(nn.GRU(INPUTS, UNITS), "ideal", periphery="ideal")
    x = torch.randn(TIME, BATCH, INPUTS, dtype=torch.bfloat16, requires_grad=True)
    y, h = analog(x)
    y.sum().backward()
    assert y.dtype == h.dtype == x.grad.dtype == torch.bfloat16


def test_proj_size_is_refused() -> None:
    model = nn.Sequential(nn.LSTM(4, 3, proj_size=2))
    with pytest.raises(InputError, match=r"layer '0' .* proj_size: .*overrides=\{'0': None\}"):
        convert(model, "ideal")
    assert type(model[0]) is nn.LSTM


@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        (pack_sequence([torch.randn(3, INPUTS)]), None, "packed sequences are not supported"),
        (torch.randn(TIME, BATCH, INPUTS + 1), None, r"LSTM got .*\(5, 3, 5\).*time, 4\)"),
        (torch.randn(INPUTS), None, r"LSTM got a tensor of shape \(4,\)"),
        (torch.randn(0, BATCH, INPUTS), None, "sequence of no time steps"),
        (torch.randn(0, INPUTS), None, "sequence of no time steps"),
        (
            torch.randn(TIME, BATCH, INPUTS),
            (torch.zeros(1, BATCH + 1, UNITS),) * 2,
            r"initial state of shape \(1, 4, 3\): it wants \(1, 3, 3\)",
        ),
        (
            torch.randn(TIME, BATCH, INPUTS),
            (torch.zeros(1, BATCH, UNITS), torch.zeros(2, BATCH, UNITS)),
            r"initial state of shape \(2, 3, 3\): it wants \(1, 3, 3\)",
        ),
    ],
)
def test_impossible_sequences_are_named(x: Any, state: Any, message: str) -> None:
    analog = convert(nn.LSTM(INPUTS, UNITS), "ideal")
    with pytest.raises(InputError, match=message):
        analog(x, state)


def test_an_empty_sequence_with_the_batch_first() -> None:
    analog = convert(nn.GRU(INPUTS, UNITS, batch_first=True), "ideal")
    with pytest.raises(InputError, match="no time steps"):
        analog(torch.randn(BATCH, 0, INPUTS))
