"""A picture of a table: quantiles of the change of a pulse over the state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from calibration.models.table_data import TableData
from calibration.models.table_quantiles import FRACTIONS, WAYS, states, tables

#: Quantiles that bound the bands, and most pulses drawn as dots.
_BANDS = ((0.05, 0.95), (0.25, 0.75))
_DOTS = 3000
#: What the picture shows, in words.
SHOWS = (
    "Change of a pulse over the state before it, up pulses left and down pulses right; dots are "
    "measured pulses, bands the middle 90 and 50 % of the model's, lines its median with its 95 % "
    "interval dashed"
)


def table_figure(draws: Mapping[str, Tensor], data: TableData) -> Figure:
    """Return quantiles of the change [µS] over the state [µS], up and down, with the pulses.

    draws: as of `tables`, (draws, ...) each. Bands: 5 to 95 and 25 to 75 % of pulses, posterior
    mean; line: median, dashed its 95 % interval over the draws.
    """
    figure = Figure(figsize=(7, 3.5))
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    change = tables(draws)
    x = states(draws["base_up"][0]).tolist()
    for axes, (way, kind) in zip(figure.subplots(1, 2), WAYS.items(), strict=True):
        mean = change[way].mean(0)
        at, moved = data.changes(kind)
        every = max(1, -(-len(at) // _DOTS))
        axes.plot(at[::every].tolist(), moved[::every].tolist(), ".", ms=2, color="C0", alpha=0.4)
        for (low, high), grey in zip(_BANDS, ("0.85", "0.65"), strict=True):
            rows = [mean[FRACTIONS.index(fraction)].tolist() for fraction in (low, high)]
            axes.fill_between(x, *rows, color=grey, alpha=0.7, label=f"{low:.0%} to {high:.0%}")
        middle = change[way][:, FRACTIONS.index(0.5)]
        axes.plot(x, middle.mean(0).tolist(), color="k", lw=1, label="median")
        for row in torch.quantile(middle, ends, dim=0):
            axes.plot(x, row.tolist(), color="k", lw=0.7, ls="--")
        axes.set(xlabel="state before [µS]", ylabel="change [µS]", title=f"{way} pulses")
    axes.legend(fontsize=7)
    return figure
