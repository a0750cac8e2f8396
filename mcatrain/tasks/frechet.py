"""The Fréchet distance of two sets of images in the feature space of a fixed classifier."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from devicemodels.errors import InputError

#: Width of the feature space, the classifier's last hidden layer.
FEATURES = 64
_SIDES = {"mnist": 28, "digits": 8}

Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]


def classifier(name: str) -> nn.Sequential:
    """Return the untrained classifier of the image set ``name``: pixels (n, side^2) in [-1, 1].

    Two convolutions 3x3 of 16 and 32 channels, each with ReLU and max-pool, 64 features, ReLU,
    10 scores. `benchmarks.features` trains it.
    """
    side = _SIDES[name]
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (side // 4) ** 2, FEATURES),
        nn.ReLU(),
        nn.Linear(FEATURES, 10),
    )


class FeatureSpace:
    """Features of images: the outputs of the classifier's last hidden layer, after its ReLU.

    The distance of two sets is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), m and C the mean
    and covariance of their features (Dowson & Landau 1982; Heusel et al. 2017 on another
    network). It compares with nobody's numbers but those of the same classifier (``sha256``).
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in _SIDES:
            raise InputError(f"no feature space for {name!r}: give {' or '.join(_SIDES)}")
        file = resources.files("mcatrain.tasks") / "features" / f"{name}.safetensors"
        content = file.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        network = classifier(name)
        network.load_state_dict(load(content))
        self._network = network[:-1].to(device).eval()

    def statistics(self, images: Tensor) -> Statistics:
        """Return mean (64,) and covariance (64, 64) of the features of images (n, pixels)."""
        with torch.no_grad():
            found = torch.cat([self._network(part * 2 - 1) for part in images.split(1000)])
        features = found.double().cpu().numpy()
        return features.mean(0), np.cov(features, rowvar=False)

    @staticmethod
    def distance(one: Statistics, other: Statistics) -> float:
        """Return the Fréchet distance of two sets, in squared units of the features."""
        (m1, c1), (m2, c2) = one, other
        # tr (C1 C2)^(1/2) by the symmetric form, whose eigenvalues cannot be complex.
        root = _root(c1)
        cross = np.sqrt(np.clip(scipy.linalg.eigvalsh(root @ c2 @ root), 0, None)).sum()
        return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross)


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = scipy.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
