"""Training on MNIST against the acceptance numbers of Nandakumar et al. 2020 (slow).

Budgets are cut to an epoch or two; the full figures are in the README. The bound of MCA is the
project's acceptance number (three seeds gave 95.1 to 95.4 %). The others lie below single runs by
a margin that was chosen, not derived: their spread over seeds was not measured.
"""

from pathlib import Path

import pytest

from mcatrain.run.config import TrainConfig
from mcatrain.run.loop import train

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "mnist").exists(), reason="MNIST is not in ../shared/data"),
]


def accuracy(tmp_path: Path, **options: object) -> float:
    config = TrainConfig(data="mnist", data_dir=str(DATA), out=str(tmp_path / "run"), **options)
    return train(config)["metrics"]["test_accuracy"]


def test_mca_after_one_epoch(tmp_path: Path) -> None:
    assert accuracy(tmp_path, rule="mca", epochs=1) >= 0.93


def test_float32_after_one_epoch(tmp_path: Path) -> None:
    assert accuracy(tmp_path, rule="fp32", epochs=1) >= 0.945


@pytest.mark.parametrize(
    "options",
    [
        {"base_optimizer": "momentum", "lr": 0.04, "loss": "cross-entropy"},
        # On the coarse PCM pair Adam reaches 46 %, and momentum with mse 44 % at best (README):
        # what is tested is that both train chi where float32 does, not that every pairing works.
        {"base_optimizer": "adam", "lr": 1e-3, "device_model": "ideal"},
    ],
    ids=["momentum", "adam"],
)
def test_other_optimizers_train_chi(tmp_path: Path, options: dict) -> None:
    """Ten thousand examples in batches of 10, twice."""
    common = {"rule": "mca", "epochs": 2, "batch_size": 10, "train_limit": 10_000}
    assert accuracy(tmp_path, **common, **options) >= 0.88


def test_rpu_on_the_pcm_pair_is_far_below_mca(tmp_path: Path) -> None:
    common = {"epochs": 1, "train_limit": 20_000}
    mca = accuracy(tmp_path / "mca", rule="mca", **common)
    rpu = accuracy(tmp_path / "rpu", rule="rpu", lr=0.03, **common)
    assert mca > rpu + 0.05


def test_rpu_on_its_own_device_follows_float32(tmp_path: Path) -> None:
    """784-256-128-10, cross-entropy, one epoch: within 1.5 points (0.5 after training longer)."""
    common = {"hidden": "256,128", "loss": "cross-entropy", "lr": 0.01, "epochs": 1}
    exact = accuracy(tmp_path / "fp32", rule="fp32", **common)
    rpu = accuracy(tmp_path / "rpu", rule="rpu", device_model="gokmen2016", **common)
    assert rpu >= exact - 0.015
