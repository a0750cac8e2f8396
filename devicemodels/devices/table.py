"""A bipolar device known by measured tables: the change of a pulse, in distribution, by state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from devicemodels.errors import InputError
from devicemodels.pulses import rounds
from devicemodels.quantities import Parameters, quantity
from devicemodels.state import Chance
from devicemodels.wear import DeviceArray

_CHANGE = (
    "change not exceeded by each fraction of pulses, from each state: [table][fraction][state]"
)


@dataclass(frozen=True, kw_only=True)
class TableParameters(Parameters):
    """Quantiles of the change that one pulse makes, given the state, of one or several devices.

    granularity: what a rule takes a pulse to do [weight], usually `mean_step`. states: (n,)
    rising [weight]; a device stays between the first and the last. fractions: (m,) rising from
    0 to 1. change_up, change_down: (tables, m, n) [weight], not falling along m; every simulated
    device follows one table, drawn at random. Construction raises InputError for arrays that are
    otherwise. A look-up table of this kind: Agarwal et al., VLSI 2017.
    """

    granularity: float = quantity("weight", 1e-12, 1e3, "mean change of a pulse in its direction")
    states: tuple[float, ...] = quantity("weight", -1e6, 1e6, "grid of states: [state]", dims=1)
    fractions: tuple[float, ...] = quantity("1", 0, 1, "grid of fractions: [fraction]", dims=1)
    change_up: tuple[Any, ...] = quantity("weight", -1e6, 1e6, f"up pulse: {_CHANGE}", dims=3)
    change_down: tuple[Any, ...] = quantity("weight", -1e6, 1e6, f"down pulse: {_CHANGE}", dims=3)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("states", "fractions"):
            grid = _double(getattr(self, name))
            if len(grid) < 2 or not (grid.diff() > 0).all():
                raise InputError(f"{name}: give at least two values, each above the one before")
        if (self.fractions[0], self.fractions[-1]) != (0, 1):
            raise InputError("fractions: the first must be 0 and the last 1")
        shape = (len(self.change_up), len(self.fractions), len(self.states))
        for name in ("change_up", "change_down"):
            change = _double(getattr(self, name))
            if change.shape != shape:
                raise InputError(
                    f"{name}: holds {_by(change.shape)} values: {_by(shape)} are needed, tables as "
                    "change_up has, then fractions, then states"
                )
            if not (change.diff(dim=1) >= 0).all():
                raise InputError(f"{name}: falls along the fractions: sort each state's changes")

    def means(self) -> Tensor:
        """Return the mean changes, (tables, 2, n) float64 [weight]: of down, then of up pulses."""
        change = torch.stack([_double(self.change_down), _double(self.change_up)], 1)
        return torch.trapezoid(change, _double(self.fractions), dim=2)

    @property
    def mean_step(self) -> float:
        """Mean change of a pulse in its own direction [weight]: over tables, states, up and down.

        Of a noisy device it is far below the mean size of a change: noise takes no part in it.
        It is below 0 where up and down are exchanged, or not told apart by the measurements.
        """
        states, (down, up) = _double(self.states), self.means().mean(0)
        return float(torch.trapezoid((up - down) / 2, states) / (states[-1] - states[0]))


class TableArray(DeviceArray):
    """``size`` devices at weight 0, or the end of the grid nearest to it.

    weight: (size,) float32, state. which: (size,) int64, the table that each device follows.
    """

    weight: Tensor
    which: Tensor
    states: Tensor
    fractions: Tensor
    change: Tensor
    chance: Chance

    def __init__(self, size: int, parameters: TableParameters, chance: Chance) -> None:
        super().__init__()
        self.physics = p = parameters
        self.borrow("chance", chance)
        tables = len(p.change_up)
        self.register_buffer("which", (chance.uniform(size) * tables).long().clamp(max=tables - 1))
        # Constants of the file: they move with the device state, but are no part of it.
        change = torch.stack([_double(p.change_down), _double(p.change_up)], 1).float()
        for name, value in (
            ("states", _double(p.states).float()),
            ("fractions", _double(p.fractions).float()),
            ("change", change.contiguous()),
        ):
            self.register_buffer(name, value.to(chance.device), persistent=False)
        self.register_buffer("weight", torch.zeros(size, dtype=torch.float32, device=chance.device))
        self.weight.clamp_(self.states[0], self.states[-1])

    def write(self, weight: Tensor) -> None:
        """Set the states to ``weight`` (size,), clipped to the ends of the grid."""
        self.weight.copy_(weight).clamp_(self.states[0], self.states[-1])

    def pulse(self, index: Tensor, count: Tensor, repeats: bool = False) -> None:
        """Apply ``count`` (n,) signed pulses, one after the other, to the devices ``index`` (n,).

        repeats: whether a device may occur more than once; its events keep their order. A pulse
        draws a fraction u ~ U(0, 1) and changes the state by the table's value at u and the state,
        linear in either between the points of the grid; the grid's ends are the bounds.
        """
        if repeats:
            for part in rounds(index):
                self.pulse(index[part], count[part])
            return
        if not len(count):
            return
        if self.wear is not None:
            self.wear.add(index, count)
        w, which, up, left = self.weight[index], self.which[index], count > 0, count.abs()
        for k in range(int(left.max())):
            now = (left > k).nonzero().squeeze(1)
            w[now] = self._moved(w[now], which[now], up[now])
        self.weight[index] = w

    def _moved(self, w: Tensor, which: Tensor, up: Tensor) -> Tensor:
        i, a = _place(self.chance.uniform(len(w)), self.fractions)
        j, b = _place(w, self.states)
        m, n = self.change.shape[2:]
        change, corner = self.change.view(-1), ((which * 2 + up.long()) * m + i) * n + j
        low = torch.lerp(change[corner], change[corner + 1], b)
        high = torch.lerp(change[corner + n], change[corner + n + 1], b)
        return (w + torch.lerp(low, high, a)).clamp(self.states[0], self.states[-1])

    def symmetry_point(self) -> Tensor:
        """Return where the mean up and down changes of each device cancel, (size,) float32.

        As `StepArray.symmetry_point`; by bisection in each table: where they cancel more than
        once, one of these states. Raises InputError if in no table the sum falls from the lower
        to the upper end of the grid.
        """
        excess = self.physics.means().sum(1)  # (tables, n)
        grid = _double(self.physics.states)
        if not (excess[:, 0] > excess[:, -1]).any():
            raise InputError(
                "up and down pulses of these tables have no symmetry point: their mean changes do "
                "not come closer towards the ends; take a soft-bounds model"
            )
        low = grid[0].expand(len(excess)).contiguous()
        high = grid[-1].expand(len(excess)).contiguous()
        for _ in range(40):  # halvings of the range: beyond float32
            middle = (low + high) / 2
            j, b = _place(middle, grid)
            rows = torch.arange(len(excess))
            rises = torch.lerp(excess[rows, j], excess[rows, j + 1], b) > 0
            low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
        return middle.float().to(self.weight.device)[self.which]


def _place(x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the point of the grid below x, and how far x is towards the next."""
    low = (torch.searchsorted(grid, x, right=True) - 1).clamp(0, len(grid) - 2)
    return low, (x - grid[low]) / (grid[low + 1] - grid[low])


def _double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _by(shape: Any) -> str:
    return " x ".join(str(length) for length in shape)
