"""A model's posterior over coordinates without bounds, as searches and samplers want it."""

from __future__ import annotations

import torch
from pyro.distributions import HalfNormal
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import AbsTransform

from calibration.models.base import CalibrationModel, Values
from calibration.models.data import Data

#: Devices times points of which slopes are taken at once.
_LANES = 4_000


class Unconstrained:
    """The posterior over vectors z (..., constants) without bounds, one entry a constant.

    A spread that may be 0 (half-normal prior) is |z|: around 0 its posterior is a folded normal,
    where in ln z it would have a tail without end. weight: devices that one of the data stands for.
    """

    def __init__(self, model: CalibrationModel, data: Data, weight: float = 1.0) -> None:
        self._model, self._data, self._weight = model, data, weight
        self._priors = {c.name: c.prior for c in model.constants}
        self._maps = {
            name: AbsTransform() if isinstance(prior, HalfNormal) else biject_to(prior.support)
            for name, prior in self._priors.items()
        }

    def potential(self, z: Tensor) -> Tensor:
        """Return -ln p(z, reads), (...,)."""
        values = self.to_values(z)
        total = self._weight * self._model.log_likelihood(values, self._data).sum(-1)
        for k, (name, prior) in enumerate(self._priors.items()):
            value = values[name]
            total = total + prior.log_prob(value)
            if self._maps[name].bijective:
                total = total + self._maps[name].log_abs_det_jacobian(z[..., k], value)
        return -total

    @property
    def folded(self) -> Tensor:
        """Which constants are |z|, (constants,) bool."""
        return torch.tensor([not change.bijective for change in self._maps.values()])

    def potentials(self, z: Tensor) -> Tensor:
        """Return `potential` of many points (n, constants), a few at a time, without a graph."""
        with torch.no_grad():
            size = max(1, _LANES // len(self._data))
            return torch.cat([self.potential(part) for part in z.split(size)])

    def at(self, z: Tensor) -> tuple[float, Tensor]:
        """Return the potential at one point z (constants,), and its gradient."""
        z = z.detach().requires_grad_()
        value = self.potential(z)
        (slope,) = torch.autograd.grad(value, z)
        return value.item(), slope

    def slope(self, z: Tensor) -> Tensor:
        """Return the gradient at z (..., constants); of many points a few at a time."""
        flat, found = z.detach().view(-1, z.shape[-1]), []
        for part in flat.split(max(1, _LANES // len(self._data))):
            part.requires_grad_()
            found += torch.autograd.grad(self.potential(part).sum(), part)
        return torch.cat(found).view_as(z)

    def from_values(self, values: Values) -> Tensor:
        return torch.stack([self._maps[name].inv(values[name]) for name in self._priors])

    def to_values(self, z: Tensor) -> dict[str, Tensor]:
        """Return the constants, (...,) each."""
        return {name: self._maps[name](z[..., k]) for k, name in enumerate(self._priors)}
