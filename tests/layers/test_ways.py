"""Faster ways through an array: images in parts, inputs before the recurrence; the same physics."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mcatrain
from mcatrain import Converters, Periphery
from mcatrain.grid import product
from mcatrain.kernels import patchwise
from mcatrain.nn.patches import Patches
from mcatrain.nn.sequence import Converted, InputsFirst, StepByStep


def converted(layer: nn.Module, *without: str, periphery: str | Periphery) -> Any:
    from devicemodels import load

    model = load("nandakumar2018").without(*without)
    return mcatrain.convert(layer, model, periphery=periphery, beta="7sd")


#: 8-bit converters so narrow that many vectors are read again.
_C = Converters(
    input_bits=8, output_bits=8, output_bound=0.25, noise_management=True, bound_management=True
)
NARROW = Periphery(forward=_C, backward=_C)


@pytest.mark.parametrize("chunk", [1, 3000, 2**19])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("periphery", ["mca", NARROW])
def test_streamed_convolution_is_the_product_of_all_patches(
    chunk: int, stride: int, periphery: str | Periphery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8-bit converters without read noise: one image at a time, a few, all at once."""
    torch.manual_seed(0)
    layer = converted(nn.Conv2d(3, 5, 3, stride), "read-noise", periphery=periphery)
    monkeypatch.setattr(patchwise, "CHUNK", chunk)
    x = torch.randn(7, 3, 9, 8, requires_grad=True)
    y = layer(x)
    d = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, layer.tile.chi], d)
    reads = [copy(r) for r in (layer.tile.reads.forward, layer.tile.reads.backward)]
    rows = Patches.apply(x, layer.geometry, 1, True)
    plain = product(layer.tile, rows, len(x)).view(7, *y.shape[2:], 5).permute(0, 3, 1, 2)
    expected = torch.autograd.grad(plain, [x, layer.tile.chi], d)
    assert torch.equal(y, plain)
    # Pixels are sums over patches, taken in another order.
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)
    assert layer.tile.examples == 14
    for counted, r in zip(
        reads, (layer.tile.reads.forward, layer.tile.reads.backward), strict=True
    ):
        assert (r.vectors, r.repeats) == (2 * counted.vectors, 2 * counted.repeats)
        assert (counted.repeats > 0) == (periphery is NARROW)


@pytest.mark.parametrize("periphery", ["mca", NARROW])
def test_lines_through_converters_are_read_like_any_vectors(periphery: str | Periphery) -> None:
    """An LSTM's lines without read noise, in turn and as plain vectors; reads counted alike."""
    torch.manual_seed(0)
    tile = converted(nn.LSTM(3, 4), "read-noise", periphery=periphery).arrays["l0"]
    lines, d = torch.randn(5, 6, 8), torch.randn(5, 6, 16)
    found, counted = [], []
    for kind in (StepByStep, Converted):
        before = [copy(r) for r in (tile.reads.forward, tile.reads.backward)]
        found.append(through(kind(tile, lines, 4), d))
        after = tile.reads.forward, tile.reads.backward
        counted.append(
            [
                (a.vectors - b.vectors, a.repeats - b.repeats)
                for a, b in zip(after, before, strict=True)
            ]
        )
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-5, atol=1e-6)
    assert counted[0] == counted[1]
    assert all((repeats > 0) == (periphery is NARROW) for _, repeats in counted[0])


def test_lines_through_converters_are_read_with_the_same_noise() -> None:
    """2,000 reads of one line: as with inputs first, but each output is rounded, by 1 / sqrt(12).

    Steps of 8-bit converters are coarse beside the noise, those of 12 bits are not.
    """
    torch.manual_seed(0)
    n = 2_000
    c = Converters(input_bits=8, output_bits=14, output_bound=8.0, noise_management=True)
    layer = converted(nn.LSTM(3, 4), periphery=Periphery(forward=c, backward=c))
    tile = layer.arrays["l0"]
    lines, d = torch.randn(2, 1, 8).repeat(1, n, 1), torch.randn(2, 1, 16).repeat(1, n, 1)
    weights, variance = tile.synapse.read(0.0)
    w, s = weights.double(), variance.double()
    y, dh, dx = through(Converted(tile, lines, 4), d)
    back = torch.cat([dx, dh.flip(0)], 2)
    for t in range(2):
        for values, line, w_of, s_of in ((y[t], lines[t, 0], w, s), (back[t], d[t, 0], w.T, s.T)):
            top = line.abs().max()
            driven = (line / top * 127).round().double() / 127
            mean, spread = w_of @ driven * top, s_of @ driven.square() * top**2
            got = values.double()
            assert ((got.var(0) / spread - 1).abs() < 5 * math.sqrt(2 / n) + 0.016).all()
            assert ((got.mean(0) - mean).abs() < 5 * (spread / n).sqrt() + 1e-5).all()


def ways(lines: Tensor, *without: str) -> tuple[StepByStep, InputsFirst]:
    layer = converted(nn.LSTM(3, 4), *without, periphery="ideal")
    tile = layer.arrays["l0"]
    return StepByStep(tile, lines, 4), InputsFirst(tile, lines, 4)


def through(way: StepByStep, d: Tensor) -> list[Tensor]:
    """Return outputs, what goes back to h, and to [x, 1], of all steps."""
    way.start_forward()
    y = torch.stack([way.forward(t) for t in range(len(d))])
    way.start_backward(d)
    dh = torch.stack([way.backward(t, d[t]) for t in reversed(range(len(d)))])
    return [y, dh, way.to_inputs(d)]


def test_inputs_first_computes_the_same_sums() -> None:
    torch.manual_seed(0)
    lines, d = torch.randn(5, 6, 8), torch.randn(5, 6, 16)
    one, other = (through(way, d) for way in ways(lines, "read-noise"))
    for expected, found in zip(one, other, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_inputs_first_reads_with_the_same_noise() -> None:
    """2,000 reads of one line: variances of 16 outputs, 4 of h and 4 of [x, 1], and their means.

    The relative error of a variance of n normals is sqrt(2 / n); 24 of them within 5 of it, and 24
    means within 5 standard errors: false alarm below 3e-5.
    """
    torch.manual_seed(0)
    n = 2_000
    lines, d = torch.randn(1, 1, 8).repeat(1, n, 1), torch.randn(1, 1, 16).repeat(1, n, 1)
    _, way = ways(lines)
    weights, variance = way.array.synapse.read(0.0)
    assert variance is not None
    w, s = weights.double(), variance.double()
    line, out = lines[0, 0].double(), d[0, 0].double()
    back, back_variance = w.T @ out, s.T @ out.square()
    expected = [
        (w @ line, s @ line.square()),
        (back[4:], back_variance[4:]),
        (back[:4], back_variance[:4]),
    ]
    for found, (mean, spread) in zip(through(way, d), expected, strict=True):
        values = found[0].double()
        assert ((values.var(0) / spread - 1).abs() < 5 * math.sqrt(2 / n) + 0.012).all()
        assert ((values.mean(0) - mean).abs() < 5 * (spread / n).sqrt() + 1e-5).all()
