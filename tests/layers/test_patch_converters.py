"""Converters around patches and around lines in turn: every form does what `convert` does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from devicemodels import kernels as device_kernels
from mcatrain import kernels
from mcatrain.kernels import patchwise, reference
from mcatrain.kernels.cpu import digits
from mcatrain.kernels.cpu import patchwise as cpu
from mcatrain.kernels.windows import Geometry, patches_at
from mcatrain.periphery import Converters

_EIGHT: dict[str, Any] = {"input_bits": 8, "output_bits": 8}
CONVERTERS = {
    "no DAC": Converters(noise_management=True, output_bits=8, output_bound=4.0),
    "8 bits": Converters(**_EIGHT, output_bound=4.0, noise_management=True, bound_management=True),
    "2016": Converters(input_bits=5, output_bits=9, output_bound=3.0, output_noise=0.06),
    "10 bits": Converters(input_bits=10, noise_management=True),
    "dither": Converters(**_EIGHT, output_bound=5.0, output_rounding="stochastic"),
    "dither twice": Converters(
        **_EIGHT, output_bound=5.0, input_rounding="stochastic", output_rounding="stochastic"
    ),
}
GEOMETRIES = {
    "plain": Geometry((3, 3), (1, 1), (1, 1)),
    "stride": Geometry((3, 2), (2, 3), (1, 1)),
    "dilation": Geometry((2, 3), (1, 2), (3, 2)),
}


class Drawn:
    """Chance of given rows, handed out in order."""

    def __init__(self, n: int, inputs: int, outputs: int, noisy: bool, c: Converters) -> None:
        self.all = (
            torch.rand(n, inputs) if c.dithers[0] else None,
            torch.randn(n, outputs) if noisy or c.output_noise else None,
            torch.rand(n, outputs) if c.dithers[1] else None,
        )
        self.at = 0

    def __call__(self, n: int) -> Any:
        part = slice(self.at, self.at + n)
        self.at += n
        return tuple(None if v is None else v[part] for v in self.all)


def few_differ(found: Tensor, expected: Tensor, most: int) -> None:
    """Sums in another order may fall on the other side of a rounding edge: rarely."""
    assert torch.equal(found.isnan(), expected.isnan())
    assert ((found - expected).abs() > 1e-4).sum() <= most


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("int8", [False, True])
def test_patches_there_and_back(
    name: str, geometry: str, noisy: bool, int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three images of 9 x 11 pixels, two at a time; with a bias, and rows at the bound."""
    if int8 and not digits.multiplies_int8():
        pytest.skip("this processor does not multiply int8")
    monkeypatch.setattr(cpu, "multiplies_int8", lambda: int8)
    torch.manual_seed(0)
    c, g = CONVERTERS[name], GEOMETRIES[geometry]
    images = torch.randn(3, 9, 11, 4) * (torch.rand(3, 9, 11, 1) < 0.7)
    images[2, 8, 0, 1] = math.nan
    high, wide = g.output(9, 11)
    n, inputs, outputs = 3 * high * wide, g.kernel[0] * g.kernel[1] * 4 + 1, 5
    w = 0.7 * torch.randn(outputs, inputs)
    s = (torch.rand(outputs, inputs) * 0.01).bfloat16() if noisy else None
    drawn = Drawn(n, inputs, outputs, noisy, c)
    rows = torch.ones(n, inputs)
    reference.patches(images, g, rows)
    expected, hit = reference.convert(rows, w, s, c, 1.0, *drawn(n))
    monkeypatch.setattr(patchwise, "CHUNK", 2 * high * wide * inputs)
    for form in ("reference", "cpu"):
        drawn.at = 0
        with device_kernels.use(form):
            y, clipped = kernels.convert_patches(images, g, w, s, c, drawn)
        few_differ(y, expected, 2)
        assert (hit is None) == (clipped is None)
        assert hit is None or torch.equal(hit, clipped)
    if hit is not None:
        assert 0 < len(hit) < n
        assert torch.equal(patches_at(images, g, hit).nan_to_num(), rows[hit, :-1].nan_to_num())

    d = torch.randn(n, outputs)
    d[1] = 0
    transposed = None if s is None else s.T
    drawn = Drawn(n, outputs, inputs, noisy, c)
    back, hit = reference.convert(d, w.T, transposed, c, 1.0, *drawn(n))
    if hit is not None and c.bound_management:
        assert 0 < len(hit) < n
        back[hit] = 0
    pixels = torch.zeros_like(images)
    reference.add_patches(back, g, pixels)
    for form in ("reference", "cpu"):
        drawn.at, found = 0, torch.zeros_like(images)
        with device_kernels.use(form):
            left = kernels.convert_to_patches(d, g, w.T, transposed, c, drawn, found)
        few_differ(found, pixels, 2)
        if c.bound_management:
            assert (hit is None) == (left is None)
            assert hit is None or torch.equal(hit, left)


def test_digits_are_as_exact_as_float32() -> None:
    """Against float64: 2^-24 of a row's largest weight a term, and a rounding of the sums."""
    if not digits.multiplies_int8():
        pytest.skip("this processor does not multiply int8")
    torch.manual_seed(0)
    w = torch.randn(6, 200) * torch.logspace(-4, 2, 6).unsqueeze(1)
    w[2] = 0
    lines = torch.zeros(50, 256, dtype=torch.int8)
    lines[:, :200] = torch.randint(-127, 128, (50, 200))
    y = torch.empty(50, 6)
    digits.Digits(w, 256, 1 / 127).products(lines, y)
    x = lines[:, :200].double() / 127
    expected = x @ w.double().T
    most = x.abs().sum(1, keepdim=True) * w.abs().amax(1).double()
    assert ((y - expected).abs() <= 2**-24 * most + 3 * 2**-24 * expected.abs()).all()
    assert (y[:, 2] == 0).all()


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize("ahead", [0, 6])
@pytest.mark.parametrize("noisy", [False, True])
def test_lines_in_turn(name: str, ahead: int, noisy: bool) -> None:
    """Later columns come when their turn does; of step 3 they are above those from the start."""
    torch.manual_seed(0)
    c = CONVERTERS[name]
    steps, n, inputs, outputs = 5, 7, 17, 9
    full = torch.randn(steps, n, inputs)
    full[:, :, 0] = 3.0
    full[3, 2, 8], full[4, 1, 9] = -5.0, math.nan
    w = 0.7 * torch.randn(outputs, inputs)
    s = (torch.rand(outputs, inputs) * 0.01).bfloat16() if noisy else None
    drawn = [Drawn(n, inputs, outputs, noisy, c).all for _ in range(steps)]
    hits = 0
    for form in ("reference", "cpu"):
        lines = torch.full_like(full, 9.0)
        lines[:, :, :ahead] = full[:, :, :ahead]
        with device_kernels.use(form):
            convert = kernels.convert_lines(lines, ahead, w, s, c)
            for t in range(steps):
                lines[t] = full[t]
                y, clipped = convert(t, *drawn[t])
                expected, hit = reference.convert(full[t], w, s, c, 1.0, *drawn[t])
                right = expected.isnan() == y.isnan()
                assert right.all()
                # The variances of two parts are rounded once more: 0.4 % of a step's noise.
                level = c.output_bound / c.output_levels if c.output_levels else 0.0
                off = (y - expected).nan_to_num().abs()
                assert (off > 1e-2 * noisy + 1e-4).sum() <= 1 + 3 * noisy
                assert (off <= 6 * level + 1e-2 * noisy + 1e-4).all()
                assert (hit is None) == (clipped is None)
                hits += 0 if hit is None else len(hit)
    assert hits > 0 or math.isinf(c.output_bound)
