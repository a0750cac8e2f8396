"""The smooth base of a table: a t distribution whose place and width follow the state."""

from __future__ import annotations

import math

import torch
from scipy import stats
from torch import Tensor
from torch.distributions import StudentT

#: A base in numbers: window [µS] (2), place (4), ln width (4), degrees of freedom.
SIZE = 11
_PLACE, _WIDTH = slice(2, 6), slice(6, 10)
#: Least width, in windows: a table without noise has no density.
_LEAST = 1e-6


def standard(x: Tensor, base: Tensor) -> Tensor:
    """Return states [µS] on the scale where the window is -1 to 1, held inside it."""
    return ((2 * x - base[0] - base[1]) / (base[1] - base[0])).clamp(-1, 1)


def place_and_width(x: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Return place and width of the change from each state [µS]."""
    powers = _powers(standard(x, base))
    return powers @ base[_PLACE], (powers @ base[_WIDTH]).exp() + _LEAST * (base[1] - base[0])


def fractions(x: Tensor, y: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Return F0(y | x) and ln f0(y | x) [1/µS] of changes y from states x [µS]."""
    place, width = place_and_width(x, base)
    z, freedom = (y - place) / width, float(base[10])
    return torch.as_tensor(stats.t.cdf(z.numpy(), freedom)), _log_t(z, base[10]) - width.log()


def top_density(x: Tensor, base: Tensor) -> float:
    """Return the median over states x of the base's highest density [1/µS]."""
    _, width = place_and_width(x, base)
    return float((_log_t(torch.zeros(()), base[10]).exp() / width).median())


class BaseFit:
    """The base of changes y from states x [µS], at the mode, and how well the changes tell it.

    With X the state on the scale of -1 to 1 and d the standard deviation of all y,

        y = d (a_0 + a_1 X + ...) + d exp(b_0 + b_1 X + ...) t_nu,   a ~ N(0, 3), b ~ N(0, 1.5),
        ln nu ~ N(ln 8, 1)

    degrees: of the two polynomials, 3 at most.
    """

    def __init__(
        self, x: Tensor, y: Tensor, window: tuple[float, float], degrees: tuple[int, int]
    ) -> None:
        self._window, size = window, window[1] - window[0]
        self._unit = max(float(y.std()) if len(y) > 1 else 0.0, _LEAST * size)
        self._middle = float(y.median())
        self._powers = _powers(standard(x, torch.tensor(window, dtype=torch.float64)))
        self._scaled, self._least = (y - self._middle) / self._unit, _LEAST * size / self._unit
        free = torch.zeros(9, dtype=torch.bool)
        free[: degrees[0] + 1] = free[4 : 5 + degrees[1]] = free[8] = True
        self._free = free
        z = torch.zeros(int(free.sum()), dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([z], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            search.zero_grad()
            value = self._potential(z)
            value.backward()
            return value

        search.step(loss)
        self._mode = z.detach()

    @property
    def mode(self) -> Tensor:
        """The base (SIZE,) at the mode."""
        return self._bases(self._mode[None])[0]

    def draw(self, number: int, chance: torch.Generator) -> Tensor:
        """Return bases (number, SIZE) from the normal distribution around the mode."""
        hessian = torch.autograd.functional.hessian(self._potential, self._mode)
        values, vectors = torch.linalg.eigh(hessian)
        deviations = (
            torch.randn(number, len(self._mode), generator=chance, dtype=torch.float64)
            / values.clamp(min=0.05).sqrt()
        )  # no direction is wider than the priors
        return self._bases(self._mode + deviations @ vectors.T)

    def _all(self, z: Tensor) -> Tensor:
        """Return a, b and ln nu (..., 9), those that are not free 0."""
        return z.new_zeros(*z.shape[:-1], 9).index_copy(-1, self._free.nonzero()[:, 0], z)

    def _potential(self, z: Tensor) -> Tensor:
        v = self._all(z)
        width = (self._powers @ v[4:8]).exp() + self._least
        freedom = 2 + 6 * v[8].clamp(-6, 4).exp()
        density = _log_t((self._scaled - self._powers @ v[:4]) / width, freedom) - width.log()
        prior = (v[:4] / 3).square().sum() + (v[4:8] / 1.5).square().sum() + v[8].square()
        return 0.5 * prior - density.sum()

    def _bases(self, z: Tensor) -> Tensor:
        v = self._all(z)
        base = v.new_zeros(len(v), SIZE)
        base[:, 0], base[:, 1] = self._window
        base[:, _PLACE], base[:, _WIDTH] = self._unit * v[:, :4], v[:, 4:8]
        base[:, 2] += self._middle
        base[:, 6] += math.log(self._unit)
        base[:, 10] = 2 + 6 * v[:, 8].clamp(-6, 4).exp()
        return base


def quantiles(u: Tensor, base: Tensor) -> Tensor:
    """Return the standard quantiles of the base's t distribution at fractions u."""
    return torch.as_tensor(stats.t.ppf(u.numpy(), float(base[10])))


def _log_t(z: Tensor, freedom: Tensor) -> Tensor:
    return StudentT(freedom, validate_args=False).log_prob(z)


def _powers(x: Tensor) -> Tensor:
    return torch.stack([x**k for k in range(4)], -1)
