"""The Fréchet distance is that of two Gaussians, and it grows with what is wrong with images."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray

from devicemodels.errors import InputError
from mcatrain.data import load_images
from mcatrain.tasks.frechet import FEATURES, FeatureSpace, Statistics

DATA = Path(__file__).parents[3] / "shared" / "data"
CPU = torch.device("cpu")


def gaussian(mean: NDArray, covariance: NDArray, seed: int) -> Statistics:
    """Return mean and covariance of 500 normal draws, moved and bent to have exactly those."""
    drawn = np.random.default_rng(seed).standard_normal((500, len(mean)))
    drawn -= drawn.mean(0)
    drawn @= np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    features = mean + drawn @ np.linalg.cholesky(covariance).T
    return features.mean(0), np.cov(features, rowvar=False)


def test_distance_of_gaussians_is_the_closed_form() -> None:
    m1, m2 = np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.0, 1.0, 0.5, 2.0])
    a, b = np.array([1.0, 4.0, 0.25, 9.0]), np.array([4.0, 1.0, 0.25, 1.0])
    # Along common axes each is a pair of Gaussians in one dimension: (s1 - s2)^2.
    found = FeatureSpace.distance(gaussian(m1, np.diag(a), 0), gaussian(m2, np.diag(b), 1))
    assert found == pytest.approx(11 + 1 + 1 + 0 + 4, rel=1e-9)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((4, 4)))[0]
    c1, c2 = np.diag(a), turn @ np.diag(b) @ turn.T
    wanted = 11 + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)
    found = FeatureSpace.distance(gaussian(m1, c1, 3), gaussian(m2, c2, 4))
    assert found == pytest.approx(wanted, rel=1e-9)
    assert FeatureSpace.distance(gaussian(m2, c2, 4), gaussian(m1, c1, 3)) == pytest.approx(found)


def test_distance_of_flat_sets() -> None:
    """Features that never fire, which ReLU has, make covariances that cannot be inverted."""
    c1, c2 = np.diag([1.0, 0.0, 0.0]), np.diag([0.0, 4.0, 0.0])
    assert FeatureSpace.distance((np.zeros(3), c1), (np.ones(3), c2)) == pytest.approx(3 + 1 + 4)


def noisy(images: torch.Tensor, spread: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + spread * noise).clamp(-1, 1)


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        pytest.param(
            "mnist",
            marks=pytest.mark.skipif(
                not (DATA / "mnist").exists(), reason="MNIST is not in ../shared/data"
            ),
        ),
    ],
)
def test_distance_grows_with_noise(name: str) -> None:
    """On real test images; one fixed noise (seed 0), so no chance is left."""
    data = load_images(name, DATA if name == "mnist" else None)
    images = data.test_x[:2000]
    space = FeatureSpace(name, CPU)
    real = space.statistics(images)
    assert [part.shape for part in real] == [(FEATURES,), (FEATURES, FEATURES)]
    assert space.distance(real, space.statistics(images.flip(0))) == pytest.approx(0, abs=1e-3)
    spreads = (0.0, 0.1, 0.3, 0.6, 1.0)
    found = [space.distance(real, space.statistics(noisy(images, s))) for s in spreads]
    assert all(low < high for low, high in pairwise(found)), found
    # Half of the set is nearer to the whole of it than to a set that is all one image.
    half = space.distance(real, space.statistics(images[::2]))
    one = space.distance(real, space.statistics(images[:1].repeat(50, 1)))
    assert half < one / 10


def test_another_set_has_no_features() -> None:
    with pytest.raises(InputError, match="no feature space for 'cifar10': give mnist or digits"):
        FeatureSpace("cifar10", CPU)


def test_features_are_named_by_their_content() -> None:
    digits, mnist = (FeatureSpace(name, CPU).sha256 for name in ("digits", "mnist"))
    assert len(digits) == 64
    assert digits != mnist
    assert FeatureSpace("digits", CPU).sha256 == digits
