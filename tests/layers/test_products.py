"""Products of float32 by either of torch's libraries: right, of any layout, into given memory."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch

from mcatrain.kernels import reference
from mcatrain.kernels.cpu import products


@pytest.fixture(params=["oneDNN", "MKL"])
def by(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whichever library the processor prefers, the other one too."""
    if request.param == "oneDNN" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    with mock.patch.object(products, "onednn_is_faster", return_value=request.param == "oneDNN"):
        yield request.param


@pytest.mark.parametrize("n", [1, 3, 64])
@pytest.mark.parametrize(
    "layout",
    [
        lambda out, width: torch.randn(out, width),
        lambda out, width: torch.randn(width, out).T,
        lambda out, width: torch.randn(out, 2 * width)[:, width:],  # part of a matrix
        lambda out, width: torch.randn(width, 2 * out)[:, out:].T,
    ],
    ids=["rows", "columns", "part", "part of columns"],
)
def test_product_is_that_of_float64(by: str, n: int, layout: object) -> None:
    torch.manual_seed(0)
    assert callable(layout)
    x, w = torch.randn(n, 130), layout(150, 130)
    want = x.double() @ w.double().T
    # Sums of 130 numbers of variance 1: rounding of float32 is far below.
    torch.testing.assert_close(products.product(x, w).double(), want, rtol=0, atol=1e-4)
    room = torch.full((2 * n, 150), 7.0)
    got = products.product(x, w, room[:n])
    assert got.data_ptr() == room.data_ptr()
    torch.testing.assert_close(room[:n].double(), want, rtol=0, atol=1e-4)
    assert (room[n:] == 7).all()


def test_gradient_of_strided_factors(by: str) -> None:
    torch.manual_seed(0)
    d, x = torch.randn(64, 150), torch.randn(64, 2 * 130)[:, 130:]
    got = products.product(d.T, x.T)
    torch.testing.assert_close(got.double(), d.double().T @ x.double(), rtol=0, atol=1e-4)
    assert got.is_contiguous()


@pytest.mark.parametrize("n", [2, 64])
def test_product_is_added(by: str, n: int) -> None:
    torch.manual_seed(0)
    to, d, x = torch.randn(150, 130), torch.randn(n, 150), torch.randn(n, 130)
    want = to.double() - 0.5 * d.double().T @ x.double()
    products.add_product(to, d.T, x.T, -0.5)
    torch.testing.assert_close(to.double(), want, rtol=0, atol=1e-4)


def test_small_products_stay_with_torch() -> None:
    x, w = torch.randn(2, 130), torch.randn(150, 130)
    with (
        mock.patch.object(products, "onednn_is_faster", return_value=True),
        mock.patch.object(products, "_by_onednn", side_effect=AssertionError),
    ):
        assert torch.equal(products.product(x, w), reference.product(x, w))
        with pytest.raises(AssertionError):
            products.product(torch.randn(64, 130), w)


@pytest.mark.parametrize(
    ("name", "avx512", "error", "want"),
    [
        ("AMD EPYC", True, None, True),
        ("AMD EPYC", False, None, False),
        ("Intel(R) Xeon(R) Processor", True, None, False),
        ("AMD EPYC", True, AttributeError, False),
        ("AMD EPYC", True, RuntimeError, False),
        ("AMD EPYC", True, TypeError, False),
    ],
)
def test_onednn_is_for_wide_processors_of_amd(
    name: str, avx512: bool, error: type[Exception] | None, want: bool
) -> None:
    found = {"cpu_name": name, "avx512_f": avx512}

    def by_onednn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if error is not None:
            raise error
        return x @ w.T

    with (
        mock.patch.object(torch.cpu, "get_capabilities", return_value=found, create=True),
        mock.patch.object(products, "_by_onednn", by_onednn),
    ):
        assert products.onednn_is_faster.__wrapped__() is want
