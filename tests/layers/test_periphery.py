"""Converters, noise and management around the array, one vector or a batch."""

import math

import pytest
import torch

from devicemodels import Chance
from devicemodels.errors import InputError
from mcatrain.periphery import PRESETS, Converters, matvec, preset


def test_ideal_converters_are_the_product() -> None:
    x, w = torch.randn(5, 7), torch.randn(3, 7)
    torch.testing.assert_close(matvec(x, w, None, Converters(), Chance(0, "t")), x @ w.T)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_input_levels(rows: int, bits: int) -> None:
    """n bits are 2^n - 1 levels on [-1, 1]: aihwkit's step of 2/(2^n - 2)."""
    x = torch.linspace(-1.5, 1.5, 400 - 400 % rows).view(rows, -1)
    w = torch.eye(x.shape[1])
    y = matvec(x, w, None, Converters(input_bits=bits), Chance(0, "t"))
    step = 2 / (2**bits - 2)
    expected = (x.clamp(-1, 1) / step).round() * step
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=0)
    assert len(y.unique()) <= 2**bits - 1


@pytest.mark.parametrize("rows", [1, 3])
def test_output_levels_and_bound(rows: int) -> None:
    x = torch.linspace(-30, 30, 90).view(1, -1).expand(rows, -1).contiguous()
    c = Converters(output_bits=6, output_bound=12.0)
    y = matvec(x, torch.eye(90), None, c, Chance(0, "t"))
    step = 12 / 31
    torch.testing.assert_close(y, (x.clamp(-12, 12) / step).round() * step)


def test_stochastic_rounding_is_unbiased() -> None:
    """40,000 draws of each of 5 values: 4.5 standard errors, false alarm 3e-5."""
    x = torch.tensor([-0.9, -0.31, 0.02, 0.4, 0.77])
    c = Converters(input_bits=3, input_rounding="stochastic")
    y = matvec(x.expand(40_000, 5).contiguous(), torch.eye(5), None, c, Chance(0, "t"))
    error = (1 / 3) / 2 / math.sqrt(40_000)  # a coin between neighbouring levels at most
    assert ((y.mean(0) - x).abs() < 4.5 * error).all()
    one = torch.cat([matvec(x.view(1, 5), torch.eye(5), None, c, Chance(s, "t"))
                     for s in range(2000)])  # fmt: skip
    assert ((one.mean(0) - x).abs() < 4.5 * (1 / 6) / math.sqrt(2000)).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_stochastic_rounding_of_the_output_is_unbiased(rows: int) -> None:
    """4,000 draws of each of 5 values: 4.5 standard errors, false alarm 3e-5."""
    x = torch.tensor([-0.9, -0.31, 0.02, 0.4, 0.77])
    c = Converters(output_bits=3, output_bound=1.0, output_rounding="stochastic")
    chance, batch = Chance(0, "t"), x.expand(rows, 5).contiguous()
    y = torch.cat([matvec(batch, torch.eye(5), None, c, chance) for _ in range(4000 // rows)])
    assert ((y.mean(0) - x).abs() < 4.5 * (1 / 3) / 2 / math.sqrt(4000)).all()
    assert set((y * 3).round().unique().tolist()) <= {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("rows", [1, 4])
def test_noise_management_scales_small_vectors(rows: int) -> None:
    g = torch.Generator().manual_seed(rows)
    x, w = torch.randn(rows, 20, generator=g) * 1e-6, torch.randn(6, 20, generator=g)
    plain = matvec(x, w, None, Converters(input_bits=8), Chance(0, "t"))
    managed = matvec(x, w, None, Converters(input_bits=8, noise_management=True), Chance(0, "t"))
    assert (plain == 0).all()
    # Half a level of the largest input on every line, at most.
    bound = x.abs().amax(1, keepdim=True) / 254 * w.abs().sum(1)
    assert ((managed - x @ w.T).abs() <= 1.001 * bound).all()
    zero = matvec(x * 0, w, None, Converters(input_bits=8, noise_management=True), Chance(0, "t"))
    assert (zero == 0).all()


@pytest.mark.parametrize("rows", [1, 4])
def test_bound_management_reads_large_outputs_again(rows: int) -> None:
    w = torch.randn(6, 20) * 5
    x = torch.rand(rows, 20)
    x[0] = 1.0
    w[0] = 5.0  # the first row of x gives 100
    limited = matvec(x, w, None, Converters(output_bound=12.0), Chance(0, "t"))
    assert limited[0, 0] == 12.0
    managed = Converters(output_bound=12.0, bound_management=True)
    torch.testing.assert_close(matvec(x, w, None, managed, Chance(0, "t")), x @ w.T)


@pytest.mark.parametrize("rows", [1, 2])
def test_output_noise(rows: int) -> None:
    """Mean 0, variance sigma^2 (6,000 draws x 4 outputs; 4.5 standard errors: 5e-5)."""
    c, chance = Converters(output_noise=0.06), Chance(0, "t")
    draws = 6000
    y = torch.cat([matvec(torch.zeros(rows, 3), torch.ones(4, 3), None, c, chance)
                   for _ in range(draws // rows)])  # fmt: skip
    assert (y.mean(0).abs() < 4.5 * 0.06 / math.sqrt(draws)).all()
    assert ((y.var(0) / 0.06**2 - 1).abs() < 4.5 * math.sqrt(2 / draws)).all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_read_noise_at_the_output_matches_sampling_every_device(
    rows: int, transposed: bool
) -> None:
    """Output-side Gaussian against noisy copies of the weights: mean, variance, covariance.

    20,000 draws each; 4.5 standard errors on 5 means, 5 variances and one covariance: 1e-4.
    """
    torch.manual_seed(1)
    n = 20_000
    w, s = torch.randn(5, 8), (torch.rand(5, 8) * 0.2).bfloat16()
    if transposed:
        w, s = w.T.contiguous().T, s.T.contiguous().T
    x = torch.randn(8)
    batch = x.expand(n, 8).contiguous()
    sampled = ((w + s.float().sqrt() * torch.randn(n, 5, 8)) @ x.unsqueeze(1)).squeeze(2)
    chance, c = Chance(0, "t"), Converters()
    if rows == 1:
        parts = [matvec(x.view(1, 8), w, s, c, chance) for _ in range(n)]
        y = torch.cat(parts)
    else:
        y = matvec(batch, w, s, c, chance)
    variance = (x * x) @ s.float().T
    for drawn in (sampled, y):
        assert ((drawn.mean(0) - w @ x).abs() < 4.5 * (variance / n).sqrt()).all()
        assert ((drawn.var(0) / variance - 1).abs() < 4.5 * math.sqrt(2 / n)).all()
        correlation = torch.corrcoef(drawn.T)[0, 1]
        assert abs(correlation) < 4.5 / math.sqrt(n)


def test_presets() -> None:
    assert preset("ideal").forward.ideal
    assert preset("mca").forward.input_bits == preset("mca").backward.output_bits == 8
    rpu = PRESETS["rpu2016"].forward
    assert (rpu.input_bits, rpu.output_bits, rpu.output_bound, rpu.output_noise) == (5, 9, 12, 0.06)
    with pytest.raises(InputError, match="did you mean 'rpu2016'"):
        preset("rpu2026")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_bits": 1}, "input_bits = 1"),
        ({"output_bits": 8}, "needs an output_bound"),
        ({"output_bound": 0.0}, "output_bound = 0.0"),
        ({"output_noise": -1.0}, "output_noise = -1.0"),
        ({"input_rounding": "up"}, "input_rounding 'up'"),
        ({"output_rounding": "down"}, "output_rounding 'down'"),
    ],
)
def test_impossible_converters_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Converters(**options)
