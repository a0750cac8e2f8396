"""The least-squares baseline: closed forms are what a loop over devices and numpy give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from calibration import mean_curve

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("clips", [False, True])
def test_mean_curve_is_brute_force(clips: bool) -> None:
    """Five devices, seven sequences of other lengths, reads of 0, places where one was alone."""
    chance = np.random.default_rng(0)
    device = torch.tensor([0, 0, 1, 2, 2, 3, 4])
    lengths = torch.tensor([6, 3, 6, 5, 6, 4, 9])
    reads = torch.as_tensor(chance.uniform(1, 9, (7, 9)))
    reads[[0, 3], [2, 3]] = 0.0
    scored = (torch.arange(9) > 0) & (torch.arange(9) < lengths[:, None])
    place = torch.arange(9).expand(7, 9) // 2
    found = mean_curve.by_others(reads, scored, place, device, clips)
    for k in range(5):
        others, own = scored & (device != k)[:, None], scored & (device == k)[:, None]
        curve = {p: reads[others & (place == p)] for p in range(5)}
        curve = {p: y for p, y in curve.items() if len(y)}
        rest = sum(float(((y - y.mean()) ** 2).sum()) for y in curve.values())
        variance = rest / sum(len(y) - 1 for y in curve.values())
        total = 0.0
        for y, p in zip(reads[own].tolist(), place[own].tolist(), strict=True):
            near = curve[p] if p in curve else curve[max(q for q in curve if q < p)]
            n = len(near) if p in curve else 1
            density = torch.distributions.Normal(
                float(near.mean()), math.sqrt(variance * (1 + 1 / n))
            )
            below = math.log(density.cdf(torch.tensor(0.0)))
            total += below if clips and y <= 0 else float(density.log_prob(torch.tensor(y)))
        assert found[k].item() == pytest.approx(total, rel=1e-6), k


def test_mean_curve_of_two_devices_joins_places() -> None:
    reads = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [1.1, 2.1, 3.1, 4.1, 5.1]])
    scored, place = torch.ones(2, 5, dtype=torch.bool), torch.arange(5).expand(2, 5)
    scored[:, 0] = False
    found = mean_curve.by_others(reads, scored, place, torch.arange(2))
    # pairs of places: 1 | 2, 3 | 4, of which one alone leaves a residual: 2 * 0.5² / 1
    wanted = torch.distributions.Normal(
        torch.tensor([2.1, 3.6, 3.6, 5.1]), (0.5 * torch.tensor([2.0, 1.5, 1.5, 2.0])).sqrt()
    )
    assert found[0].item() == pytest.approx(wanted.log_prob(reads[0, 1:]).sum().item(), rel=1e-6)


def test_place_of_reads_between_groups() -> None:
    groups = [(0.0, torch.tensor([[True, False, False, False]] * 2))]
    groups.append((1.0, torch.tensor([[False, False, True, False]] * 2)))
    found = mean_curve.places(groups, torch.ones(2, 4, dtype=torch.bool))
    assert found.tolist() == [[0, 1, 1, 1]] * 2


def test_polynomial_is_numpys() -> None:
    """A bent curve: the degree is the one that foresees the third quarter best, here not 0 or 1."""
    x = np.arange(80.0)
    y = 1 + 0.3 * x - 0.002 * x**2 + 0.05 * np.random.default_rng(0).normal(size=80)
    reads, at = torch.as_tensor(y)[None], torch.arange(80)[None]
    half, train = at < 40, at < 60
    found = mean_curve.extrapolated(reads, at, half, train, ~train)
    again = [y[40:60] - np.polyval(np.polyfit(x[:40], y[:40], d), x[40:60]) for d in range(4)]
    variance, degree = min((float((one**2).mean()), d) for d, one in enumerate(again))
    assert degree >= 2
    error = y[60:] - np.polyval(np.polyfit(x[:60], y[:60], degree), x[60:])
    wanted = -0.5 * (error**2 / variance + np.log(2 * np.pi * variance))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3)
