"""Faster ways through an array: images in parts, inputs before the recurrence; the same physics."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mcatrain
from mcatrain.grid import product
from mcatrain.kernels import patchwise
from mcatrain.nn.patches import Patches
from mcatrain.nn.sequence import InputsFirst, StepByStep


def converted(layer: nn.Module, *without: str, periphery: str) -> Any:
    from devicemodels import load

    model = load("nandakumar2018").without(*without)
    return mcatrain.convert(layer, model, periphery=periphery, beta="7sd")


@pytest.mark.parametrize("chunk", [1, 3000, 2**19])
@pytest.mark.parametrize("stride", [1, 2])
def test_streamed_convolution_is_the_product_of_all_patches(
    chunk: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8-bit converters without read noise: one image at a time, a few, all at once."""
    torch.manual_seed(0)
    layer = converted(nn.Conv2d(3, 5, 3, stride), "read-noise", periphery="mca")
    monkeypatch.setattr(patchwise, "CHUNK", chunk)
    x = torch.randn(7, 3, 9, 8, requires_grad=True)
    y = layer(x)
    d = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, layer.tile.chi], d)
    rows = Patches.apply(x, layer.geometry, 1, True)
    plain = product(layer.tile, rows, len(x)).view(7, *y.shape[2:], 5).permute(0, 3, 1, 2)
    expected = torch.autograd.grad(plain, [x, layer.tile.chi], d)
    assert torch.equal(y, plain)
    # Pixels are sums over patches, taken in another order.
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)
    assert layer.tile.examples == 14


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
