"""Pictures of a fit: data against replicated experiments, their spread, posterior and prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from calibration.fit import Posterior
from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel, Constant
from calibration.models.data import runs_of
from devicemodels.page import micro

#: Sequences of a table that are drawn, and along what.
_LINES = 60
_AXES = {"amplitude_v": "pulse voltage [V]", "time_s": "time [s]", "step": "step"}
#: Width and height [inches]: two beside each other are read without a glass.
_SIZE = (6.5, 3.3)
#: Reads that quantiles are taken of: more take long, and tell no more.
_FEW = 100_000


def sequences(measurements: Measurements) -> Figure:
    """Draw the reads of a table as they are, a line a sequence, of many some."""
    frame = measurements.frame
    # Along what was changed from read to read: voltage, or else time, or else the step.
    axis, label = next(
        (name, label)
        for name, label in _AXES.items()
        if name in frame and frame[name].nunique() > max(1, frame["step"].nunique() // 4)
    )
    runs = runs_of(measurements)
    shown = runs[:: -(-len(runs) // _LINES)]
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    for run in shown:
        axes.plot(run.rows[axis].to_numpy(), run.reads, ".-", lw=0.8, ms=3, alpha=0.5)
    if axis == "time_s":
        axes.set_xscale("symlog", linthresh=1.0)
    axes.set_title(f"{len(shown)} of {len(runs)} sequences", fontsize=9, loc="left")
    axes.set(xlabel=label, ylabel="conductance [µS]")
    return figure


@dataclass(frozen=True)
class Measured:
    """Reads as pictures show them: the axis' label, and the reads of each place along it."""

    data: Any
    label: str
    places: list[tuple[float, Tensor]]


def measured(model: CalibrationModel, data: Any) -> Measured:
    """Return the reads at the model's places, those without a read left out."""
    label, groups = model.groups(data)
    return Measured(data, label, [(x, where) for x, where in groups if where.any()])


def against(reads: Measured, replicates: Tensor, what: str, cut: bool = False) -> Figure:
    """Draw measured reads and 90 % of replicated ones, (n, sequences, reads), along the places.

    what: what gave the replicates. cut: keep the axis within twice the range of the reads.
    """
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots()
    xs = [x for x, _ in reads.places]
    quantiles = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    given = torch.stack([_few(replicates[:, w]).quantile(quantiles) for _, w in reads.places])
    data = torch.stack([_few(reads.data.reads[w]).quantile(quantiles) for _, w in reads.places])
    low, high = given[:, 0].tolist(), given[:, 2].tolist()
    axes.fill_between(xs, low, high, color="0.85", label=f"{what}, 90 %")
    axes.plot(xs, given[:, 1].tolist(), color="0.5", label=f"{what}, median")
    bars = [(data[:, 1] - data[:, 0]).tolist(), (data[:, 2] - data[:, 1]).tolist()]
    axes.errorbar(xs, data[:, 1].tolist(), bars, fmt="o", ms=4, color="C0", label="measured, 90 %")
    if cut:
        ends = torch.aminmax(data)
        size = float(ends.max - ends.min) or 1.0
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, float(ends.min) - size), min(top, float(ends.max) + size))
    axes.set(xlabel=reads.label, ylabel="conductance [µS]")
    axes.legend()
    return figure


def _few(reads: Tensor) -> Tensor:
    flat = reads.flatten()
    return flat[:: -(-len(flat) // _FEW)].nan_to_num()


def checks(reads: Measured, replicates: Tensor) -> Figure:
    """Draw the spread at each place, and the ranks of the reads among their replicates."""
    figure = Figure(figsize=_SIZE)
    left, right = figure.subplots(1, 2)
    chosen = [(x, where) for x, where in reads.places if int(where.sum()) > 1]
    if chosen:
        xs = [x for x, _ in chosen]
        quantiles = torch.tensor([0.05, 0.95], dtype=torch.float64)
        bands = torch.stack([replicates[:, w].std(1).quantile(quantiles) for _, w in chosen])
        left.fill_between(xs, bands[:, 0].tolist(), bands[:, 1].tolist(), color="0.85")
        left.plot(xs, [float(reads.data.reads[w].std()) for _, w in chosen], "o", ms=4)
    left.set(xlabel=reads.label, ylabel="spread [µS]")
    ranks = _ranks(replicates[:, reads.data.seen], reads.data.reads[reads.data.seen])
    right.hist(ranks.tolist(), bins=20, range=(0, 1), color="C0")
    right.axhline(len(ranks) / 20, color="0.5")
    right.set(xlabel="rank among replicates", ylabel="reads")
    return figure


def _ranks(replicates: Tensor, reads: Tensor) -> Tensor:
    """Return the ranks from 0 to 1, level where both are of one distribution, (reads,).

    Among equals, and within a step of 1 / (n + 1), a rank is drawn by chance.
    """
    below, equal = ((replicates < reads).sum(0), (replicates == reads).sum(0))
    chance = torch.rand(len(reads), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (below + chance * (equal + 1)) / (len(replicates) + 1)


def marginals(constants: Sequence[Constant], posterior: Posterior) -> Figure:
    """Draw the posterior of each constant, and its prior."""
    rows = -(-len(constants) // 5)
    figure = Figure(figsize=(9, 1.7 * rows))
    grid: list[Axes] = list(figure.subplots(rows, 5).flat)
    for axes, constant in zip(grid, constants, strict=False):
        draws = posterior.draws[constant.name].flatten()
        axes.hist(draws.tolist(), bins=40, density=True, color="C0")
        if constant.prior is not None:
            xs = torch.linspace(*axes.get_xlim(), 100, dtype=torch.float64)
            xs = xs[constant.prior.support.check(xs)]
            axes.plot(xs.tolist(), constant.prior.log_prob(xs).exp().tolist(), color="0.4", lw=1)
        axes.set_title(f"{constant.name} [{micro(constant.unit)}]", fontsize=8)
        axes.set_yticks([])
        axes.tick_params(labelsize=6)
    for axes in grid[len(constants) :]:
        axes.remove()
    return figure
