"""The normal approximation where a posterior has a kink at 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import HalfNormal, Normal

from calibration.fit import fit
from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.data import Data
from calibration.models.priors import half_normal, normal

pytestmark = pytest.mark.usefixtures("double")


@dataclass(frozen=True)
class Numbers(Data):
    """A number a device."""

    per_row: ClassVar = ("reads",)
    reads: Tensor
    device: Tensor
    number: int


class Wider(CalibrationModel):
    """reads ~ N(mean, 1 + s): of numbers narrower than 1, s is most likely 0."""

    name, device_type = "wider", ""
    constants = (
        Constant("s", "1", "what the spread has above 1", half_normal(1.0)),
        Constant("mean", "1", "mean", normal(0.0, 1.0)),
    )

    def prepare(self, measurements: Measurements) -> Numbers:
        raise NotImplementedError

    def log_likelihood(self, values: Values, data: Any) -> Tensor:
        spread = 1 + values["s"][..., None]
        return Normal(values["mean"][..., None], spread).log_prob(data.reads[:, 0])

    def replicate(self, values: Values, data: Any, chance: torch.Generator) -> Tensor:
        raise NotImplementedError

    def groups(self, data: Any) -> tuple[str, list[tuple[float, Tensor]]]:
        raise NotImplementedError


@pytest.mark.parametrize(("spread", "tolerance"), [(0.7, 0.2), (0.9, 0.2), (2.0, 0.1)])
def test_a_constant_that_may_be_0(spread: float, tolerance: float) -> None:
    """Mean and 95 % point of s, 4,000 draws, against a sum over a grid, the mean integrated out.

    0.7 and 0.9: the mode is 0. The shape is that of a folded normal, not of the posterior, hence
    the tolerance; without the second moment the interval is a thousandth of the exact one.
    """
    x = torch.linspace(-2, 2, 60)
    x = spread * (x - x.mean()) / x.std(correction=0)
    data = Numbers(x[:, None], torch.arange(60), 60)
    posterior = fit(Wider(), data, steps=100, draws=4000)
    assert not posterior.remarks
    s = torch.linspace(0, 3, 6001)
    precision = 60 / (1 + s) ** 2 + 1  # of the mean, whose prior is N(0, 1); the numbers' is 0
    log = HalfNormal(torch.tensor(1.0)).log_prob(s) - 60 * (1 + s).log() - precision.log() / 2
    weight = (log - 30 * (spread / (1 + s)) ** 2).exp()
    total = weight.cumsum(0) / weight.sum()
    mean, high = float((s * weight).sum() / weight.sum()), float(s[total > 0.95][0])
    draws = posterior.flat()["s"]
    assert float(draws.mean()) == pytest.approx(mean, rel=tolerance)
    assert float(draws.quantile(0.95)) == pytest.approx(high, rel=tolerance)
