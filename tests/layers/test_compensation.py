"""Factors on outputs that make up for drift, and batch norm measured anew."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import mcatrain
from devicemodels import InputError, load
from mcatrain.compensation import Calibration, recalibrate_batchnorm
from mcatrain.nn import native, sequence

YEAR_S = 365 * 86_400.0


def drifting(layer: nn.Module, spread: float = 0.0, **options: object) -> nn.Module:
    """Return the layer on PCM that drifts by 0.05 ± spread, without read noise."""
    model = load("nandakumar2018").without("read-noise").vary(nu_mean=0.05, nu_std=spread)
    given = {"periphery": "ideal", "drift_tolerance": 0.0, **options}
    return mcatrain.convert(layer, model, seed=3, **given)


def pass_time(model: nn.Module, seconds: float) -> None:
    next(iter(mcatrain.tiles(model).values())).clock.advance(seconds)


LAYERS = {
    "linear": (lambda: nn.Linear(30, 20), (7, 30)),
    "conv": (lambda: nn.Conv2d(3, 5, 3), (4, 3, 8, 8)),
    "lstm": (lambda: nn.LSTM(6, 5, batch_first=True), (3, 4, 6)),
}


def answer(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = model(x)
    found: Tensor = y[0] if isinstance(y, tuple) else y
    return found


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("array_size", [None, (11, 13)])
@pytest.mark.parametrize("kind", ["global", "column"])
def test_factors_undo_a_drift_that_is_common_to_all_devices(
    layer: str, array_size: tuple[int, int] | None, kind: str
) -> None:
    """All devices fall by the same factor, so that the outputs come back exactly, whatever path
    a layer takes through its arrays, split or not."""
    torch.manual_seed(1)
    make, shape = LAYERS[layer]
    model, x = drifting(make(), array_size=array_size), torch.rand(shape)
    fresh = answer(model, x)
    calibration = Calibration(model)
    pass_time(model, YEAR_S)
    late = answer(model, x)
    assert (late - fresh).abs().max() > 0.05 * fresh.abs().max()
    factors = calibration.factors()[kind]
    calibration.use(factors)
    torch.testing.assert_close(answer(model, x), fresh, rtol=2e-4, atol=2e-4)
    age = YEAR_S / 38.6
    for factor in factors:
        torch.testing.assert_close(factor, torch.full_like(factor, age**0.05), rtol=1e-3, atol=0)
    # Reads of a calibration are without the scale that is in force.
    again = calibration.factors()[kind]
    assert all(map(torch.equal, again, factors))
    calibration.use(None)
    assert torch.equal(answer(model, x), late)


def test_a_factor_is_the_quotient_of_summed_outputs() -> None:
    """One an array, one an output; by hand from the same vectors, on devices that differ."""
    torch.manual_seed(1)
    model = drifting(nn.Linear(30, 20), spread=0.02)
    (tile,) = mcatrain.tiles(model).values()
    calibration = Calibration(model)
    (x,) = calibration._vectors
    then = (x.double() @ tile.weights().double().T).abs().sum(0)
    pass_time(model, YEAR_S)
    now = (x.double() @ tile.weights().double().T).abs().sum(0)
    found = calibration.factors()
    assert found["global"][0].shape == (1,)
    assert found["column"][0].shape == (20,)
    torch.testing.assert_close(found["global"][0].double()[0], then.sum() / now.sum())
    torch.testing.assert_close(found["column"][0].double(), then / now)
    assert found["column"][0].std() > 0.005


def test_a_dead_output_keeps_the_factor_one() -> None:
    layer = nn.Linear(6, 3)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    factors = Calibration(drifting(layer)).factors()
    assert torch.equal(factors["column"][0], torch.ones(3))
    assert torch.equal(factors["global"][0], torch.ones(1))


def test_off_by_default_and_no_part_of_the_state() -> None:
    """Without a scale the fast paths stay; a scale is not saved, but copied with the model."""
    model = drifting(nn.Conv2d(3, 5, 3))
    (tile,) = mcatrain.tiles(model).values()
    assert tile.output_scale is None
    assert native.NativeConvolution.serves(tile)
    assert sequence.InputsFirst.serves(tile)
    names = set(model.state_dict())
    tile.output_scale = torch.tensor([2.0])
    assert not native.NativeConvolution.serves(tile)
    assert not sequence.InputsFirst.serves(tile)
    assert set(model.state_dict()) == names
    (twin,) = mcatrain.tiles(copy.deepcopy(model)).values()
    assert twin.output_scale is not None


class Normed(nn.Module):
    """A linear layer, dropout and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop, self.norm = nn.Linear(8, 5), nn.Dropout(0.5), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.drop(self.linear(x)))
        return y


def test_batchnorm_takes_the_statistics_of_what_it_is_fed() -> None:
    torch.manual_seed(2)
    model = Normed().eval()
    batches = [torch.randn(40, 8) for _ in range(3)]
    weight = model.norm.weight.detach().clone()
    recalibrate_batchnorm(model, lambda: [model(x) for x in batches])
    with torch.no_grad():
        outputs = [model.linear(x) for x in batches]  # dropout was off
    mean = torch.stack([y.mean(0) for y in outputs]).mean(0)
    variance = torch.stack([y.var(0) for y in outputs]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, mean)
    torch.testing.assert_close(model.norm.running_var, variance)
    assert not model.norm.training
    assert model.norm.momentum == 0.1
    assert torch.equal(model.norm.weight, weight)


def test_batchnorm_is_left_as_it_was_when_the_feed_fails() -> None:
    model = Normed().eval()

    def fail() -> None:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        recalibrate_batchnorm(model, fail)
    assert not model.norm.training
    assert model.norm.momentum == 0.1
    with pytest.raises(InputError, match="no batch norm"):
        recalibrate_batchnorm(nn.Linear(2, 2), fail)
