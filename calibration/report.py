"""The page of a fit: constants, data against what the model would give, what it was made from."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from calibration.diagnostics import Line
from calibration.fit import Posterior
from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel

_STYLE = """body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse}
td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}img{max-width:100%}
.bad{background:#fdecea;padding:.6em 1em}pre{white-space:pre-wrap;background:#f6f6f6;padding:1em}"""


@dataclass(frozen=True)
class Fit:
    """All that a report shows of a fit. replicates: (n, sequences, steps) [µS]."""

    measurements: Measurements
    model: CalibrationModel
    data: Any
    posterior: Posterior
    lines: list[Line]
    complaints: list[str]
    replicates: Tensor
    command: str


def page(fit: Fit) -> str:
    """Return the report as one HTML text that needs nothing else."""
    title = f"{fit.model.name} fitted to {fit.measurements.source}"
    bad = "".join(f"<p>{html.escape(said)}</p>" for said in fit.complaints)
    return "\n".join(
        (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            f"<div class='bad'><b>Not converged.</b>{bad}</div>" if bad else "",
            "<h2>Constants</h2>",
            _constants(fit),
            "<h2>Data against the model</h2><p>Grey: 90 % of the reads of replicated experiments, "
            "each under its own draw of the posterior, with their median. Dots and bars: the "
            "measured reads.</p>",
            _image(_against(fit)),
            "<h2>Spread, and residuals</h2><p>Left: standard deviation among the "
            "measured sequences, and 90 % of the replicated experiments. Right: rank of every "
            "read among its replicates; level where the model is right.</p>",
            _image(_checks(fit)),
            "<h2>Posterior and prior</h2>",
            _image(_marginals(fit)),
            "<h2>Made from</h2>",
            f"<pre>{html.escape(fit.measurements.summary())}\nsha256 {fit.measurements.sha256}\n"
            f"{html.escape(fit.command)}</pre></body></html>",
        )
    )


def _constants(fit: Fit) -> str:
    about = {c.name: c for c in fit.model.constants}
    rows = [
        "<table><tr><th>constant</th><th>mean</th><th>std</th><th>95 % interval</th><th>R-hat</th>"
        "<th>effective draws</th><th>unit</th><th>meaning</th></tr>"
    ]
    for line in fit.lines:
        r_hat = "-" if line.r_hat is None else f"{line.r_hat:.3f}"
        effective = "-" if line.effective is None else f"{line.effective:.0f}"
        rows.append(
            f"<tr><td>{line.name}</td><td>{line.mean:.4g}</td><td>{line.deviation:.2g}</td>"
            f"<td>{line.low:.4g} to {line.high:.4g}</td><td>{r_hat}</td><td>{effective}</td>"
            f"<td>{about[line.name].unit}</td><td>{html.escape(about[line.name].about)}</td></tr>"
        )
    how = "the normal distribution around the mode (Laplace)"
    if fit.posterior.method == "nuts":
        chains, draws = next(iter(fit.posterior.draws.values())).shape
        how = f"NUTS, {chains} chains of {draws} draws, {fit.posterior.divergences} divergent"
    return "\n".join((*rows, f"</table><p>Inference: {how}.</p>"))


def _against(fit: Fit) -> Figure:
    figure = Figure(figsize=(8, 4))
    axes = figure.subplots()
    label, groups = fit.model.groups(fit.data)
    chosen = [(x, where) for x, where in groups if where.any()]
    xs = [x for x, _ in chosen]
    quantiles = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    model = torch.stack([_few(fit.replicates[:, w]).quantile(quantiles) for _, w in chosen])
    data = torch.stack([_few(fit.data.reads[w]).quantile(quantiles) for _, w in chosen])
    low, high = model[:, 0].tolist(), model[:, 2].tolist()
    axes.fill_between(xs, low, high, color="0.85", label="model, 90 %")
    axes.plot(xs, model[:, 1].tolist(), color="0.5", label="model, median")
    bars = [(data[:, 1] - data[:, 0]).tolist(), (data[:, 2] - data[:, 1]).tolist()]
    axes.errorbar(xs, data[:, 1].tolist(), bars, fmt="o", ms=4, color="C0", label="measured, 90 %")
    axes.set(xlabel=label, ylabel="conductance [µS]")
    axes.legend()
    return figure


def _few(reads: Tensor) -> Tensor:
    return reads.flatten()[:100_000]  # quantiles of more take long, and tell no more


def _checks(fit: Fit) -> Figure:
    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    label, groups = fit.model.groups(fit.data)
    chosen = [(x, where) for x, where in groups if int(where.sum()) > 1]
    spread = [torch.stack([r[w].std() for r in fit.replicates]) for _, w in chosen]
    quantiles = torch.tensor([0.05, 0.95], dtype=torch.float64)
    xs = [x for x, _ in chosen]
    if spread:
        bands = torch.stack([s.quantile(quantiles) for s in spread])
        left.fill_between(xs, bands[:, 0].tolist(), bands[:, 1].tolist(), color="0.85")
        left.plot(xs, [float(fit.data.reads[w].std()) for _, w in chosen], "o", ms=4)
    left.set(xlabel=label, ylabel="spread [µS]")
    seen = fit.data.seen
    ranks = (fit.replicates < fit.data.reads)[:, seen].double().mean(0)
    right.hist(ranks.tolist(), bins=20, range=(0, 1), color="C0")
    right.axhline(int(seen.sum()) / 20, color="0.5")
    right.set(xlabel="rank among replicates", ylabel="reads")
    return figure


def _marginals(fit: Fit) -> Figure:
    constants = fit.model.constants
    rows = -(-len(constants) // 5)
    figure = Figure(figsize=(9, 1.7 * rows))
    grid: list[Axes] = list(figure.subplots(rows, 5).flat)
    flat = fit.posterior.flat()
    for axes, constant in zip(grid, constants, strict=False):
        draws = flat[constant.name]
        axes.hist(draws.tolist(), bins=40, density=True, color="C0")
        xs = torch.linspace(*axes.get_xlim(), 100, dtype=torch.float64)
        inside = constant.prior.support.check(xs)
        xs = xs[inside]
        axes.plot(xs.tolist(), constant.prior.log_prob(xs).exp().tolist(), color="0.4", lw=1)
        axes.set_title(f"{constant.name} [{constant.unit}]", fontsize=8)
        axes.set_yticks([])
        axes.tick_params(labelsize=6)
    for axes in grid[len(constants) :]:
        axes.remove()
    return figure


def _image(figure: Figure) -> str:
    figure.set_layout_engine("tight")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    picture = base64.b64encode(content.getvalue()).decode()
    return f"<img alt='' src='data:image/png;base64,{picture}'>"
