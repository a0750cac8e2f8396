"""Laplace's approximation: the mode of a posterior, and the normal distribution around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from calibration.unconstrained import Unconstrained

_NEWTON = 30
#: Half of the Newton decrement, in units of log density, at which the mode is found.
_AT_MODE = 1e-4
#: From where the curvature is as good as at the mode; from where one is not taken anew.
_NEAR, _OFF = 0.05, 3.0
#: Points of an integral along one constant, from and to which power of ten.
_POINTS, _REACH = 48, (-5.0, 1.5)


def laplace(
    space: Unconstrained, part: Unconstrained, z: Tensor
) -> tuple[MultivariateNormal, list[str]]:
    """Go to the mode by damped Newton steps; return the normal distribution of its curvature.

    part: all devices, or some that stand for all: their mode is near, and curvatures on the way
    are theirs. The last steps, and the last curvature, are those of all.
    """
    curvature = _curvature(part, z)
    if part is not space:
        z, curvature, _, _ = _descend(part, part, z, curvature)
    z, curvature, moved, decrement = _descend(space, part, z, curvature)
    if moved > _NEAR or part is not space:
        curvature = _curvature(space, z)
    z, curvature = _unfolded(part, z, curvature)
    remarks = [f"the mode was not found (Newton decrement {decrement:.2g}): more --steps, or nuts"]
    return MultivariateNormal(z, precision_matrix=curvature), remarks if decrement > _NEAR else []


def _descend(
    space: Unconstrained, part: Unconstrained, z: Tensor, curvature: Tensor
) -> tuple[Tensor, Tensor, float, float]:
    """Return the mode, the curvature there as known, the way since it was taken, the decrement."""
    before, decrement, moved = math.inf, math.inf, 0.0
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
    return z, curvature, moved, decrement


def _learned(curvature: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """Return the curvature that agrees with the change of the slope over a step (BFGS)."""
    turned = curvature @ step
    if change @ step < 0.01 * (step @ turned):  # it would fall, or nearly so
        return curvature
    curvature = curvature + torch.outer(change, change) / (change @ step)
    return curvature - torch.outer(turned, turned) / (step @ turned)


def _unfolded(part: Unconstrained, z: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
    """Return mode and curvature with constants |z| whose mode is 0 as wide as they are.

    There the potential has a kink, and its curvature tells nothing of the width: the second
    moment along |z|, the others at the mode, takes its place. part: as of `laplace`.
    """
    z, curvature = z.clone(), curvature.clone()
    near = part.folded & (z.abs() * curvature.diagonal().sqrt() < 1)
    v = torch.cat([torch.zeros(1), torch.logspace(*_REACH, _POINTS)])
    for k in near.nonzero().flatten().tolist():
        along = z.repeat(len(v), 1)
        along[:, k] = v
        potential = part.potentials(along)
        weight = (potential.min() - potential).exp()
        moment = torch.trapezoid(weight * v**2, v) / torch.trapezoid(weight, v)
        if z[k] ** 2 < moment / 4:
            z[k] = 0.0
            curvature[k], curvature[:, k] = 0.0, 0.0
            curvature[k, k] = 1 / moment
    return z, curvature


def _curvature(space: Unconstrained, z: Tensor) -> Tensor:
    """Return the Hessian of the potential by differences of its slope.

    Directions in which it falls are turned over (saddle-free Newton): a step goes down them too.
    """
    width = 1e-4
    here, up = space.slope(torch.cat([z[None], z + width * torch.eye(len(z))])).split([1, len(z)])
    hessian = (up - here) / width
    values, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
    # No direction is wider than the priors, which have a unit curvature or so.
    return vectors @ torch.diag(values.abs().clamp(min=0.05)) @ vectors.T
