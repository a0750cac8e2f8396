"""Patches of images and gates of an LSTM: the CPU form against the reference, exactly."""

from __future__ import annotations

import pytest
import torch

from devicemodels import kernels as device_kernels
from mcatrain import kernels
from mcatrain.kernels.windows import Geometry

GEOMETRIES = {
    "plain": Geometry((3, 3), (1, 1), (1, 1)),
    "stride": Geometry((3, 2), (2, 3), (1, 1)),
    "dilation": Geometry((2, 3), (1, 2), (3, 2)),
    "one pixel": Geometry((1, 1), (1, 1), (1, 1)),
    "line": Geometry((1, 5), (1, 1), (1, 1)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("group", [False, True])
def test_patches_and_the_way_back(name: str, group: bool) -> None:
    """Three images of 9 x 11 pixels; a group of channels is no contiguous image."""
    g = GEOMETRIES[name]
    torch.manual_seed(0)
    images = torch.randn(3, 9, 11, 6)[..., 1:5] if group else torch.randn(3, 9, 11, 4)
    high, wide = g.output(9, 11)
    size = g.kernel[0] * g.kernel[1] * 4
    made, back = [], []
    given = torch.randn(3 * high * wide, size + 1)
    for form in ("reference", "cpu"):
        rows = torch.full((3 * high * wide, size + 1), 7.0)
        # Pixels of every other column of a wider tensor where the images are a group.
        pixels = torch.zeros(3, 9, 11, 6)[..., 1:5] if group else torch.zeros(3, 9, 11, 4)
        with device_kernels.use(form):
            kernels.patches(images, g, rows)
            kernels.add_patches(given, g, pixels)
        made.append(rows)
        back.append(pixels)
    assert torch.equal(made[0], made[1])
    assert (made[1][:, -1] == 7.0).all()  # the bias column is left alone
    torch.testing.assert_close(back[0], back[1], rtol=1e-6, atol=1e-6)
    # The way back is the transpose: <patches(a), b> = <a, add_patches(b)>.
    left = (made[1][:, :-1].double() * given[:, :-1].double()).sum()
    right = (images.double() * back[1].double()).sum()
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-4)
    # One patch by hand: the last position of the last image.
    y, x = (high - 1) * g.stride[0], (wide - 1) * g.stride[1]
    ys = [y + k * g.dilation[0] for k in range(g.kernel[0])]
    xs = [x + k * g.dilation[1] for k in range(g.kernel[1])]
    assert torch.equal(made[1][-1, :-1], images[2][ys][:, xs].reshape(-1))


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_lstm_backward(scale: float) -> None:
    """Against the reference and, through it, autograd; saturated gates as well."""
    torch.manual_seed(0)
    raw = (scale * torch.randn(5, 4 * 7)).requires_grad_()
    before = torch.randn(5, 7, requires_grad=True)
    i, f, g, o = raw.split(7, 1)
    c = f.sigmoid() * before + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    dh, dc = torch.randn(2, 5, 7)
    expected = torch.autograd.grad([h, c], [raw, before], [dh, dc])
    gates = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], 1).detach()
    for form in ("reference", "cpu"):
        d = torch.full_like(gates, 9.0)
        with device_kernels.use(form):
            back = kernels.lstm_backward(gates, before.detach(), c.detach(), dh, dc, d)
        torch.testing.assert_close(d, expected[0], rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(back, expected[1], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_lstm_forward(value: float | None) -> None:
    """Against autograd's parts; saturated gates, a cell far out, and what is no finite number."""
    torch.manual_seed(0)
    raw = 10 * torch.randn(5, 4 * 7)
    raw[0, 0], raw[1, 8], before = -1e4, 1e4, 30 * torch.randn(5, 7)
    if value is not None:
        raw[2, 3] = value
    i, f, g, o = raw.split(7, 1)
    expected = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], 1)
    c = f.sigmoid() * before + i.sigmoid() * g.tanh()
    for form in ("reference", "cpu"):
        gates = raw.clone()
        with device_kernels.use(form):
            got = kernels.lstm_forward(gates, before)
        for left, right in zip((gates, *got), (expected, o.sigmoid() * c.tanh(), c), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=2e-6, equal_nan=True)
    assert bool(got[0].isnan().any()) == (value is not None and value != value)
