"""Variance components: known parts are found, absent ones are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from mcatrain.run.spread import Component, components

SIDE = 5


def simulate(chance: np.random.Generator, seed_sd: float, draw_sd: float, rest_sd: float) -> dict:
    """Return the components of SIDE x SIDE values with these standard deviations."""
    columns, rows = np.tile(np.arange(SIDE), SIDE), np.repeat(np.arange(SIDE), SIDE)
    y = 3 + seed_sd * chance.normal(size=SIDE)[columns] + draw_sd * chance.normal(size=SIDE)[rows]
    y += rest_sd * chance.normal(size=SIDE**2)
    return components(y.tolist(), {"seed": columns.tolist(), "draw": rows.tolist()}, "rest")


@pytest.mark.parametrize("truth", [(1.0, 0.5, 0.7), (0.2, 2.0, 0.3)])
def test_intervals_hold_the_truth(truth: tuple[float, float, float]) -> None:
    """60 simulations, intervals of 90 %: fewer than 46 hits have a chance of 1e-3 a part."""
    chance = np.random.default_rng(0)
    hits = np.zeros(3)
    for _ in range(60):
        found = simulate(chance, *truth)
        hits += [p.low <= sd <= p.high for p, sd in zip(found.values(), truth, strict=True)]
    assert (hits >= binom.ppf(1e-3, 60, 0.9)).all(), hits


def test_a_part_that_is_absent_reaches_down_to_nothing() -> None:
    """Of 20 simulations without it, a part's interval begins under a tenth of the whole."""
    chance = np.random.default_rng(1)
    lows = [simulate(chance, 0.0, 1.0, 1.0)["seed"].low for _ in range(20)]
    present = [simulate(chance, 2.0, 1.0, 1.0)["seed"].low for _ in range(20)]
    assert np.median(lows) < 0.15
    assert np.median(present) > 0.7


def test_scale_and_shift_do_not_matter() -> None:
    levels = {"seed": [0, 1, 0, 1]}
    plain = components([1.0, 2.0, 1.2, 2.3], levels, "rest")
    other = components([510.0, 520.0, 512.0, 523.0], levels, "rest")
    for name, part in plain.items():
        assert other[name].sd == pytest.approx(10 * part.sd)
        assert other[name].high == pytest.approx(10 * part.high)


def test_equal_values_have_no_spread() -> None:
    assert components([0.5] * 4, {"seed": [0, 1, 0, 1]}, "rest")["seed"] == Component(0, 0, 0)


def test_many_chips_are_weighed_in_parts() -> None:
    chance = np.random.default_rng(2)
    columns = np.arange(60) % 7
    y = chance.normal(size=7)[columns] + 0.1 * chance.normal(size=60)
    part = components(y.tolist(), {"seed": columns.tolist()}, "rest")["rest"]
    assert part.low < 0.1 < part.high
