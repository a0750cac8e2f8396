"""table: the change of a pulse, in distribution, from each state, without a formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant, Values
from calibration.models.polya_tree import cell_of, draw
from calibration.models.step_data import UP
from calibration.models.table_base import fractions
from calibration.models.table_data import TableData, gather
from calibration.models.table_quantiles import FRACTIONS, STATES, WAYS, constants, tables
from calibration.models.table_resolution import best_resolution, counts, range_of

if TYPE_CHECKING:
    from calibration.fit import Posterior

#: Places along the axis of reports.
_PLACES = 25
#: Bases that are drawn at least, and their number times that of pulses from there on.
_BASES, _LANES = 50, 4_000_000


class Table(CalibrationModel):
    """Changes y of a pulse given the state x before it, in the conductance of the table [µS].

    For up and for down pulses by themselves, with F0, f0 of the base t distribution around a
    polynomial in x (`table_base`), and the window of states cut into equal ranges:

        p(y | x) = f0(y | x) g_j(F0(y | x)),   x in range j,   g_j ~ Polya tree(c)

    E[g_j] = 1 before the data: the base is the mean of the prior, and a range without pulses keeps
    the prior's width. Given the base the posterior is exact: counts add to the parameters of the
    trees' Beta distributions. The base is drawn from the normal distribution around its fit to the
    same pulses. Degrees of the base, number of ranges and c are those that predict pulses left
    out best.

    The state is the read (the mean, of several after a pulse): noise of reads counts as change,
    twice. Pulses depend on the state alone, not on history. All devices follow one table: their
    differences widen it. Read noise and devices of their own are what step-response can tell.
    """

    name = "table"
    device_type = "table"
    family = "pulses"

    def __init__(self) -> None:
        self.constants = (
            Constant("mean_up", "uS", "mean change of an up pulse, over the window", None),
            Constant("mean_down", "uS", "mean change of a down pulse, over the window", None),
            Constant("spread_up", "uS", "spread of up pulses around their mean", None),
            Constant("spread_down", "uS", "spread of down pulses around their mean", None),
            Constant("symmetric", "uS", "state where mean up and down cancel, or end", None),
        )

    def prepare(self, measurements: Measurements) -> TableData:
        """Return the states between pulses; set counts as up, reset as down."""
        return gather(measurements)

    def exact(
        self, data: TableData, draws: int, chance: torch.Generator
    ) -> dict[str, Tensor] | None:
        """Return draws of the cells (draws, ranges, cells), bases and constants (draws,)."""
        found: dict[str, Tensor] = {}
        for way, kind in WAYS.items():
            x, y = data.changes(kind)
            best = best_resolution(x, y, data.window)
            bases = best.base.draw(min(draws, max(_BASES, _LANES // max(1, len(x)))), chance)
            held = torch.stack(
                [counts(x, fractions(x, y, b)[0], b, best.ranges, best.cells) for b in bases]
            )
            which = torch.arange(draws) % len(bases)
            found[f"cells_{way}"] = draw(held[which], best.concentration, 1, chance)[0]
            found[f"base_{way}"] = bases[which]
        return constants(found) | found

    def log_likelihood(self, values: Values, data: TableData) -> Tensor:
        """Return ln p(changes | starts, tables), (draws..., devices)."""
        shape = values["base_up"].shape[:-1]
        found = torch.zeros(*shape, len(data), dtype=torch.float64).view(-1, len(data))
        device = data.device[:, None].expand(-1, data.kind.shape[1] - 1)
        for way, kind in WAYS.items():
            x, y = data.changes(kind)
            whose = device[data.kind[:, 1:] == kind]
            bases = values[f"base_{way}"].reshape(len(found), -1)
            cells = values[f"cells_{way}"].reshape(len(found), *values[f"cells_{way}"].shape[-2:])
            where = range_of(x, bases[0], cells.shape[1])
            for total, base, each in zip(found, bases, cells, strict=True):
                u, log_base = fractions(x, y, base)
                density = each[where, cell_of(u, each.shape[1])] * each.shape[1]
                total.index_add_(0, whose, density.log() + log_base)
        return found.view(*shape, len(data))

    def replicate(self, values: Values, data: TableData, chance: torch.Generator) -> Tensor:
        """Return states (sequences, states) from the same starts, as the device of the file."""
        one = tables({name: value[None] for name, value in values.items()})
        change = np.stack([one["down"][0].numpy(), one["up"][0].numpy()])  # (2, m, n)
        kind, reads = data.kind.numpy(), np.zeros(data.reads.shape)
        reads[:, 0] = data.reads[:, 0]
        low, high = (float(end) for end in values["base_up"][:2])
        u = torch.rand(reads.shape, generator=chance, dtype=torch.float64).numpy()
        grid = np.array(FRACTIONS)
        row = np.clip(np.searchsorted(grid, u, side="right") - 1, 0, len(grid) - 2)
        part = (u - grid[row]) / np.diff(grid)[row]
        for k in range(1, reads.shape[1]):
            place = np.clip((reads[:, k - 1] - low) / (high - low), 0, 1) * (STATES - 1)
            column = np.minimum(place.astype(int), STATES - 2)
            up, i, a, b = (kind[:, k] == UP).astype(int), row[:, k], part[:, k], place - column
            lower = change[up, i, column] * (1 - b) + change[up, i, column + 1] * b
            upper = change[up, i + 1, column] * (1 - b) + change[up, i + 1, column + 1] * b
            reads[:, k] = np.clip(reads[:, k - 1] + lower * (1 - a) + upper * a, low, high)
        return torch.where(data.seen, torch.as_tensor(reads), data.reads)

    def groups(self, data: TableData) -> tuple[str, list[tuple[float, Tensor]]]:
        pulse = data.seen.cumsum(1)
        width = max(1, -(-int(pulse.max()) // _PLACES))
        found = []
        for first in range(1, int(pulse.max()) + 1, width):
            where = data.seen & (pulse >= first) & (pulse < first + width)
            found.append((first + (width - 1) / 2, where))
        return "pulses since the first read", found

    def pictures(self, posterior: Posterior, data: TableData) -> list[tuple[str, str, Figure]]:
        # Here, as the picture needs this package.
        from calibration.table_picture import SHOWS, table_figure

        return [("Changes by state", SHOWS, table_figure(posterior.flat(), data))]
