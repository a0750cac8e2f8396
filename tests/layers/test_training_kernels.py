"""Every fast kernel against the reference, given the same random numbers."""

import pytest
import torch

from devicemodels import kernels as device_kernels
from mcatrain import kernels
from mcatrain.periphery import Converters

CONVERTERS = {
    "ideal": Converters(),
    "8 bits, NM": Converters(input_bits=8, output_bits=8, output_bound=4.0, noise_management=True),
    "2016": Converters(input_bits=5, output_bits=9, output_bound=12.0, output_noise=0.06),
    "stochastic": Converters(
        input_bits=4,
        input_rounding="stochastic",
        output_noise=0.1,
        output_bits=6,
        output_bound=8.0,
        output_rounding="stochastic",
    ),
}


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("divisor", [1.0, 4.0])
def test_convert(name: str, transposed: bool, noisy: bool, divisor: float) -> None:
    torch.manual_seed(0)
    c = CONVERTERS[name]
    levels = c.output_bound / c.output_levels if c.output_levels else 0.0
    for _ in range(20):
        x = torch.randn(1, 30) * (torch.rand(1, 30) < 0.6)
        w, s = torch.randn(17, 30), torch.rand(17, 30) * 0.01 if noisy else None
        if transposed:
            w, s = w.T.contiguous().T, None if s is None else s.T.contiguous().T
        dither = torch.rand(1, 30) if c.input_rounding == "stochastic" else None
        later = torch.rand(1, 17) if c.output_rounding == "stochastic" else None
        normals = torch.randn(1, 17) if noisy or c.output_noise else None
        with device_kernels.use("reference"):
            expected, hit = kernels.convert(x, w, s, c, divisor, dither, normals, later)
        with device_kernels.use("cpu"):
            got, hit_cpu = kernels.convert(x, w, s, c, divisor, dither, normals, later)
        assert (hit is None) == (hit_cpu is None)
        # Sums in another order may fall on the other side of a rounding edge: one level, rarely.
        scale = divisor * (x.abs().max() if c.noise_management else 1.0)
        off = (got - expected).abs() > 1e-4
        assert off.sum() <= 1
        assert (got - expected).abs().max() <= 1.001 * levels * scale + 1e-4


@pytest.mark.parametrize("epsilon", [0.096, 1e-3, 3.0])
def test_spend(epsilon: float) -> None:
    torch.manual_seed(0)
    chi = torch.randn(70, 91) * 0.2
    chi[0, 0], chi[1, 1] = epsilon, -epsilon  # exactly one pulse each
    other = chi.clone()
    with device_kernels.use("reference"):
        index, count = kernels.spend(chi, epsilon)
    with device_kernels.use("cpu"):
        index_cpu, count_cpu = kernels.spend(other, epsilon)
    assert torch.equal(index, index_cpu)
    assert torch.equal(count, count_cpu)
    assert torch.equal(chi, other)
    assert (chi.abs() < epsilon).all()
    with device_kernels.use("cpu"):
        assert len(kernels.spend(other, epsilon)[0]) == 0


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_accumulate(density: float) -> None:
    torch.manual_seed(0)
    chi = torch.rand(20, 40) * 0.18 - 0.09
    other = chi.clone()
    for _ in range(30):
        x, d = torch.randn(40) * (torch.rand(40) < density), torch.randn(20)
        d[3] = 0.0
        with device_kernels.use("reference"):
            index, count = kernels.accumulate(chi, x, d, -0.05, 0.096)
        with device_kernels.use("cpu"):
            index_cpu, count_cpu = kernels.accumulate(other, x, d, -0.05, 0.096)
        assert torch.equal(index, index_cpu)
        assert torch.equal(count, count_cpu)
        torch.testing.assert_close(chi, other, atol=2e-7, rtol=0)


@pytest.mark.parametrize("slots", [1, 10, 64, 65, 200])
def test_coincidences(slots: int) -> None:
    torch.manual_seed(0)
    for _ in range(10):
        x, d = torch.randn(23) * (torch.rand(23) < 0.5), torch.randn(11) * 0.3
        chance_x, chance_d = torch.rand(slots, 23), torch.rand(slots, 11)
        with device_kernels.use("reference"):
            index, count = kernels.coincidences(x, d, 0.7, 1.3, chance_x, chance_d)
        with device_kernels.use("cpu"):
            index_cpu, count_cpu = kernels.coincidences(x, d, 0.7, 1.3, chance_x, chance_d)
        assert torch.equal(index, index_cpu)
        assert torch.equal(count, count_cpu)
        assert len(index) > 0
