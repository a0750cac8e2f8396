"""Inference: from a model and its data to posterior draws, by SVI (Laplace) or NUTS."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from pyro.optim import ClippedAdam
from torch import Tensor
from torch.distributions import MultivariateNormal

from calibration.laplace import laplace
from calibration.models.base import CalibrationModel, Values
from calibration.models.data import Data
from calibration.unconstrained import Unconstrained

METHODS = ("svi", "nuts")
#: Devices in a step of the search for the mode.
_BATCH = 256
#: Steps of the search after which it is asked whether the last so many went down.
_WINDOW = 25
#: Devices, drawn at random, of which curvatures are taken on the way if there are twice as many.
_FEW = 2_000


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
    start: Values | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Posterior:
    """Return the posterior; float64, the same for the same seed.

    svi: the mode by stochastic gradients of ``steps`` batches of devices at most (a Pyro SVI with a
    point guide), then Newton's method (curvatures on the way are those of a random part of many
    devices) and the normal distribution of the curvature there, over unbounded coordinates.
    nuts: ``chains`` of ``warmup`` and ``draws`` / ``chains`` steps of the No-U-Turn sampler,
    started from draws of the former. A model whose posterior is known exactly is not searched for
    by either. start: constants of shape () to begin at, if not the model's own.
    """
    known = model.exact(data, draws, torch.Generator().manual_seed(seed))
    if known is not None:
        return Posterior("exact", {name: value[None] for name, value in known.items()}, ())
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    begin, taken = _search(model, data, steps, start)
    progress(f"near the mode after {taken} batches")
    space = Unconstrained(model, data)
    part = space
    if len(data) > 2 * _FEW:
        chance = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(data), generator=chance)[:_FEW].sort().values
        part = Unconstrained(model, data.take(chosen), len(data) / _FEW)
    normal, remarks = laplace(space, part, space.from_values(begin))
    progress("curvature at the mode")
    if method == "nuts":
        return _nuts(space, normal, seed, max(1, draws // chains), chains, warmup)
    found = space.to_values(normal.sample((draws,)))
    kept = {name: value.detach()[None] for name, value in found.items()}
    return Posterior("svi", kept, tuple(remarks))


def _search(
    model: CalibrationModel, data: Data, steps: int, begin: Values | None
) -> tuple[Values, int]:
    """Return constants near the mode of the posterior, and after how many steps of ``steps``."""
    batch = _BATCH if len(data) > 2 * _BATCH else None
    start = init_to_value(values=dict(begin or model.start(data)))
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


def _nuts(
    space: Unconstrained,
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
