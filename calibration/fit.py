"""Inference: from a model and its data to posterior draws, by SVI (Laplace) or NUTS."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro.distributions import HalfNormal
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from pyro.optim import ClippedAdam
from torch import Tensor
from torch.distributions import MultivariateNormal, biject_to
from torch.distributions.transforms import AbsTransform

from calibration.models.base import CalibrationModel, Values
from calibration.models.data import Data

METHODS = ("svi", "nuts")
#: Devices in a step of the search for the mode.
_BATCH = 256
#: Steps of the search after which it is asked whether the last so many went down.
_WINDOW = 25
#: Devices, drawn at random, of which curvatures are taken on the way if there are twice as many.
_FEW = 2_000
#: Devices times points of which slopes are taken at once.
_LANES = 4_000
_NEWTON = 30
#: Half of the Newton decrement, in units of log density, at which the mode is found.
_AT_MODE = 1e-4
#: From where the curvature is as good as at the mode; from where one is not taken anew.
_NEAR, _OFF = 0.05, 3.0


@dataclass(frozen=True)
class Posterior:
    """Draws of the constants, each (chains, draws) float64, and how they were made.

    remarks: what keeps the draws from being trusted; none when the fit has converged.
    """

    method: str
    draws: dict[str, Tensor]
    remarks: tuple[str, ...]
    divergences: int = 0

    def flat(self) -> dict[str, Tensor]:
        """Return the draws of all chains, (chains * draws, ...) each."""
        return {name: value.flatten(0, 1) for name, value in self.draws.items()}


class _Unconstrained:
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


def fit(
    model: CalibrationModel,
    data: Data,
    method: str = "svi",
    *,
    seed: int = 0,
    steps: int = 600,
    draws: int = 1000,
    chains: int = 2,
    warmup: int = 200,
    progress: Callable[[str], None] = lambda _: None,
) -> Posterior:
    """Return the posterior; float64, the same for the same seed.

    svi: the mode by stochastic gradients of ``steps`` batches of devices at most (a Pyro SVI with a
    point guide), then Newton's method (curvatures on the way are those of a random part of many
    devices) and the normal distribution of the curvature there, over unbounded coordinates.
    nuts: ``chains`` of ``warmup`` and ``draws`` / ``chains`` steps of the No-U-Turn sampler,
    started from draws of the former. A model whose posterior is known exactly is not searched for
    by either.
    """
    known = model.exact(data, draws, torch.Generator().manual_seed(seed))
    if known is not None:
        return Posterior("exact", {name: value[None] for name, value in known.items()}, ())
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    start, taken = _search(model, data, steps)
    progress(f"near the mode after {taken} batches")
    space = _Unconstrained(model, data)
    part = space
    if len(data) > 2 * _FEW:
        chance = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(data), generator=chance)[:_FEW].sort().values
        part = _Unconstrained(model, data.take(chosen), len(data) / _FEW)
    normal, remarks = _laplace(space, part, space.from_values(start))
    progress("curvature at the mode")
    if method == "nuts":
        return _nuts(space, normal, seed, max(1, draws // chains), chains, warmup)
    found = space.to_values(normal.sample((draws,)))
    kept = {name: value.detach()[None] for name, value in found.items()}
    return Posterior("svi", kept, tuple(remarks))


def _search(model: CalibrationModel, data: Data, steps: int) -> tuple[Values, int]:
    """Return constants near the mode of the posterior, and after how many steps of ``steps``."""
    batch = _BATCH if len(data) > 2 * _BATCH else None
    start = init_to_value(values=model.start(data))
    guide = AutoDelta(pyro.poutine.block(model.program, hide=["devices"]), init_loc_fn=start)
    rate = {"lr": 0.05, "betas": (0.9, 0.99), "lrd": 0.05 ** (1 / steps)}
    svi = SVI(model.program, guide, ClippedAdam(rate), Trace_ELBO())
    losses: list[float] = []
    while len(losses) < steps:
        losses.append(svi.step(data, batch))
        if len(losses) % _WINDOW == 0 and _flat(losses):
            break
    found = guide.median()
    return {c.name: found[c.name].detach() for c in model.constants}, len(losses)


def _flat(losses: list[float]) -> bool:
    """Return whether the loss of the last steps is no less than before: Newton's method is next."""
    late = torch.tensor(losses[-_WINDOW:])
    early = torch.tensor(losses[-2 * _WINDOW : -_WINDOW])
    if not len(early):
        return False
    error = float((late.var() + early.var()).sqrt()) / math.sqrt(_WINDOW)
    return float(early.mean() - late.mean()) < max(error, 0.5)


def _laplace(
    space: _Unconstrained, part: _Unconstrained, z: Tensor
) -> tuple[MultivariateNormal, list[str]]:
    """Go to the mode by damped Newton steps; return the normal distribution of its curvature.

    part: of what curvatures are taken on the way, all devices or some that stand for all; values,
    slopes and the last curvature are those of all.
    """
    curvature, moved = _curvature(part, z), 0.0
    before = decrement = math.inf
    value, slope = space.at(z)
    for _ in range(_NEWTON):
        step = torch.linalg.solve(curvature, slope)
        decrement = float(slope @ step) / 2
        if decrement < _AT_MODE:
            break
        down, length, there, new = decrement <= max(before / 4, _OFF), 1.0, value, slope
        while down and not there < value and length > 1e-3:
            there, new = space.at(z - length * step)
            length /= 2
        if not there < value:
            if not moved:
                break
            # A new curvature where the old leads nowhere.
            curvature, moved, before = _curvature(part, z), 0.0, math.inf
            continue
        step = -2 * length * step
        curvature = _learned(curvature, step, new - slope)
        z, value, slope = z + step, there, new
        before, moved = decrement, moved + decrement
    if moved > _NEAR or part is not space:
        curvature = _curvature(space, z)
    remarks = [f"the mode was not found (Newton decrement {decrement:.2g}): more --steps, or nuts"]
    return MultivariateNormal(z, precision_matrix=curvature), remarks if decrement > _NEAR else []


def _learned(curvature: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """Return the curvature that agrees with the change of the slope over a step (BFGS)."""
    turned = curvature @ step
    if change @ step < 0.01 * (step @ turned):  # it would fall, or nearly so
        return curvature
    curvature = curvature + torch.outer(change, change) / (change @ step)
    return curvature - torch.outer(turned, turned) / (step @ turned)


def _curvature(space: _Unconstrained, z: Tensor) -> Tensor:
    """Return the Hessian of the potential by differences of its slope.

    Directions in which it falls are turned over (saddle-free Newton): a step goes down them too.
    """
    width = 1e-4
    here, up = space.slope(torch.cat([z[None], z + width * torch.eye(len(z))])).split([1, len(z)])
    hessian = (up - here) / width
    values, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
    # No direction is wider than the priors, which have a unit curvature or so.
    return vectors @ torch.diag(values.abs().clamp(min=0.05)) @ vectors.T


def _nuts(
    space: _Unconstrained,
    normal: MultivariateNormal,
    seed: int,
    draws: int,
    chains: int,
    warmup: int,
) -> Posterior:
    root = torch.linalg.cholesky(normal.covariance_matrix)

    def potential(parameters: dict[str, Tensor]) -> Tensor:
        return space.potential(normal.mean + root @ parameters["u"])

    found, divergences = [], 0
    for chain in range(chains):
        pyro.set_rng_seed(seed + 1000 * (chain + 1))
        kernel = NUTS(potential_fn=potential, target_accept_prob=0.85, max_tree_depth=6)
        begin = {"u": torch.randn(len(normal.mean))}
        run = MCMC(kernel, draws, warmup, initial_params=begin, disable_progbar=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.run()
        u = run.get_samples()["u"]
        divergences += len(run.diagnostics()["divergences"]["chain 0"])
        found.append(normal.mean + u @ root.T)
    values = space.to_values(torch.stack(found))
    return Posterior("nuts", {k: v.detach() for k, v in values.items()}, (), divergences)
