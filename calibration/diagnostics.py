"""Whether draws can be trusted, and whether the model would have given such data."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calibration.fit import Posterior
from calibration.models.base import CalibrationModel, Values

with warnings.catch_warnings():  # arviz announces its next version at every first import of a day
    warnings.simplefilter("ignore")
    import arviz

#: Limits of a sound run of NUTS (Vehtari et al., Bayesian Analysis 16, 667, 2021: 1.01 and 400
#: for publication; these are for a parameter file).
_R_HAT, _EFFECTIVE, _DIVERGENT = 1.05, 100.0, 0.01
#: Reads that are replicated in all, and steps, which models go through one by one.
_REPLICATED, _STEPPED = 4_000_000, 20_000


def inference_data(posterior: Posterior) -> Any:
    """Return the draws as arviz InferenceData with a posterior group."""
    return arviz.from_dict(posterior={k: v.numpy() for k, v in posterior.draws.items()})


@dataclass(frozen=True)
class Line:
    """A constant's posterior in figures; r_hat and effective are None for one chain."""

    name: str
    mean: float
    deviation: float
    low: float
    high: float
    r_hat: float | None
    effective: float | None


def summary(posterior: Posterior) -> list[Line]:
    """Return mean, standard deviation and 95 % interval of each constant, with R-hat and ESS."""
    found = []
    for name, draws in posterior.draws.items():
        if draws.dim() > 2:  # an array, of which the constants are figures
            continue
        flat = draws.flatten()
        low, high = torch.quantile(flat, flat.new_tensor([0.025, 0.975])).tolist()
        r_hat = effective = None
        if posterior.method == "nuts":
            effective = float(arviz.ess(draws.numpy()))
            r_hat = float(arviz.rhat(draws.numpy())) if len(draws) > 1 else None
        found.append(Line(name, float(flat.mean()), float(flat.std()), low, high, r_hat, effective))
    return found


def in_words(lines: list[Line]) -> str:
    """Return means and 95 % intervals of the constants in one line."""
    return "; ".join(f"{x.name} {x.mean:.4g} ({x.low:.4g} to {x.high:.4g})" for x in lines)


def complaints(posterior: Posterior, lines: Sequence[Line] | None = None) -> list[str]:
    """Return why the draws cannot be trusted, a line each; none for a fit that converged.

    lines: the `summary` of the constants, where it is there already.
    """
    said = list(posterior.remarks)
    for line in summary(posterior) if lines is None else lines:
        if line.r_hat is not None and not line.r_hat < _R_HAT:
            said.append(f"{line.name}: R-hat {line.r_hat:.3f} is not below {_R_HAT}")
        if line.effective is not None and not line.effective > _EFFECTIVE:
            said.append(f"{line.name}: {line.effective:.0f} effective draws are too few")
        known = line.deviation > 0 or posterior.method == "exact"
        if not (torch.isfinite(posterior.draws[line.name]).all() and known):
            said.append(f"{line.name}: the draws are not finite, or all the same")
    total = math.prod(next(iter(posterior.draws.values())).shape[:2])
    if posterior.divergences > _DIVERGENT * total:
        said.append(f"{posterior.divergences} of {total} draws diverged")
    return said


def enough(reads: Tensor) -> int:
    """Return how many replicates of reads (sequences, steps) a report shows: some seconds' work."""
    return max(20, min(200, _REPLICATED // reads.numel(), _STEPPED // reads.shape[1]))


def replicates(
    model: CalibrationModel, posterior: Posterior, data: Any, number: int, seed: int
) -> Tensor:
    """Return reads of the same experiment under ``number`` draws, (number, *reads)."""
    chance = torch.Generator().manual_seed(seed)
    flat = posterior.flat()
    chosen = torch.randperm(len(next(iter(flat.values()))), generator=chance)[:number]
    return torch.stack([model.replicate(_one(flat, k), data, chance) for k in chosen.tolist()])


def prior_replicates(model: CalibrationModel, data: Any, number: int, seed: int) -> Tensor | None:
    """Return reads of the same experiment under draws of the priors, (up to number, *reads).

    A draw so far out that its covariance has no root is left out. None for a model with figures
    among its constants that have no prior.
    """
    if not model.constants or any(c.prior is None for c in model.constants):
        return None
    chance, found = torch.Generator().manual_seed(seed), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = [{c.name: c.prior.sample() for c in model.constants} for _ in range(number)]
    for values in drawn:
        with contextlib.suppress(torch.linalg.LinAlgError):
            found.append(model.replicate(values, data, chance))
    return torch.stack(found) if found else None


def _one(flat: Values, k: int) -> dict[str, Tensor]:
    return {name: value[k] for name, value in flat.items()}
