"""Draws of the device's own constants beside the parameter file, as training reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import devicemodels
from calibration.export import pcm_draws, with_posterior, write_posterior
from calibration.fit import Posterior
from calibration.measurements import Measurements
from calibration.step_file import step_draws
from calibration.synthetic import measure


@pytest.fixture(scope="module")
def table() -> Measurements:
    return measure(devicemodels.load("softbounds"), 3, 4)


def drawn(**draws: list[float]) -> Posterior:
    values = {name: torch.tensor([value], dtype=torch.float64) for name, value in draws.items()}
    return Posterior("svi", values, ())


def test_a_parameter_file_finds_its_posterior(tmp_path: Path) -> None:
    posterior = drawn(c1=[1.0, 1.2, 1.4], m1=[-0.1, -0.11, -0.12], spread=[0.1, 0.2, 0.3])
    kept = tmp_path / "a.posterior.nc"
    write_posterior(kept, posterior, {"command": "x"}, pcm_draws(posterior))
    again = tmp_path / "again.nc"
    write_posterior(again, posterior, {"command": "x"}, pcm_draws(posterior))
    assert again.read_bytes() == kept.read_bytes()
    text = devicemodels.load("nandakumar2018").text
    (tmp_path / "a.toml").write_text(with_posterior(text, kept))
    model = devicemodels.load(tmp_path / "a.toml")
    assert model.posterior is not None
    assert model.posterior.sha256 == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert set(model.posterior.draws) == {"c1", "m1"}  # spread is no constant of a PCM device
    np.testing.assert_array_equal(model.posterior.draws["c1"], [1.0, 1.2, 1.4])
    assert len(model.posterior) == 3


def test_pcm_draws_stay_within_what_a_device_can_be() -> None:
    assert pcm_draws(drawn(g_max=[12.0, -3.0]))["g_max"].min() > 0


@pytest.mark.parametrize("response", ["constant", "soft-bounds"])
def test_step_draws(table: Measurements, response: str) -> None:
    """A weight of -1 to 1 is the window: a step s [µS] is 2 s / window, times the mean's factor."""
    posterior = drawn(
        step=[0.01, 0.02, 0.03], step_spread=[0.0, 0.1, 0.2], up_down=[1.0, 1.1, 1.2],
        cycle=[0.3, 0.3, 0.3], g_high=[1.0, 2.0, -2.0], g_low=[-1.0, -1.0, -1.0],
    )  # fmt: skip
    found = step_draws(response, posterior, table)
    reads = table.frame["conductance_us"]
    size = np.full(3, reads.max() - reads.min())
    kept = np.array([True, True, True])
    if response == "soft-bounds":  # the third has its bounds in the wrong order
        size, kept = np.array([2.0, 3.0, 1.0]), np.array([True, True, False])
    spread = np.array([0.0, 0.1, 0.2])
    step = 2 * np.array([0.01, 0.02, 0.03]) / size * np.exp(spread**2 / 2)
    np.testing.assert_allclose(found["dw_min"], step[kept])
    np.testing.assert_allclose(found["dw_min_dtod"], np.sqrt(np.expm1(spread**2))[kept])
    np.testing.assert_allclose(found["up_down"], np.array([1.0, 1.1, 1.2])[kept])
