"""The page of a fit: constants, data against what the model would give, what it was made from."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from calibration import pictures
from calibration.diagnostics import Line
from calibration.fit import Posterior
from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel
from calibration.ranking import Ranking

# Pictures are drawn for white paper, and stay on it where the rest is dark.
_STYLE = """:root{color-scheme:light dark;--line:light-dark(#ddd,#2d3641)}
body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;
color:light-dark(#222,#e4e8ee);background:light-dark(#fff,#10141a)}
table{border-collapse:collapse}.wide{overflow-x:auto}
td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid var(--line)}
td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}
td:nth-child(-n+4){white-space:nowrap}
img{max-width:100%;background:#fff;border-radius:6px}
.bad{background:light-dark(#fdecea,#40201d);padding:.6em 1em}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:light-dark(#f6f6f6,#181e26);padding:1em}
@media print{:root{color-scheme:light}}"""


@dataclass(frozen=True)
class Fit:
    """All that a report shows of a fit.

    replicates: of the posterior, (n, sequences, reads) [µS]; prior: the same of the priors, or
    None. ranking: how rivals do, or in words why there are none.
    """

    measurements: Measurements
    model: CalibrationModel
    data: Any
    posterior: Posterior
    lines: list[Line]
    complaints: list[str]
    replicates: Tensor
    prior: Tensor | None
    ranking: Ranking | str
    command: str


def page(fit: Fit) -> str:
    """Return the report as one HTML text that needs nothing else."""
    title = f"{fit.model.name} fitted to {fit.measurements.source}"
    bad = "".join(f"<p>{html.escape(said)}</p>" for said in fit.complaints)
    reads = pictures.measured(fit.model, fit.data)
    return "\n".join(
        (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            f"<div class='bad'><b>Not converged.</b>{bad}</div>" if bad else "",
            "<h2>Measured</h2>",
            _image(pictures.sequences(fit.measurements)),
            "<h2>Constants</h2>",
            _constants(fit),
            "<h2>Data against the model</h2><p>Grey: 90 % of the reads of "
            f"{len(fit.replicates)} replicated experiments, each under its own draw of the "
            "posterior, with their median. Dots and bars: the measured reads.</p>",
            _image(pictures.against(reads, fit.replicates, "model")),
            "<h2>Spread, and residuals</h2><p>Left: standard deviation among the "
            "measured sequences, and 90 % of the replicated experiments. Right: rank of every "
            "read among its replicates; level where the model is right.</p>",
            _image(pictures.checks(reads, fit.replicates)),
            *(
                f"<h2>{html.escape(name)}</h2>\n{_image(figure)}"
                for name, figure in fit.model.pictures(fit.posterior, fit.data)
            ),
            "<h2>Models compared</h2>",
            _compared(fit.ranking),
            "<h2>Posterior and prior</h2>",
            _image(pictures.marginals(fit.model.constants, fit.posterior)),
            *_prior(fit, reads),
            "<h2>Made from</h2>",
            f"<pre>{html.escape(fit.measurements.summary())}\nsha256 {fit.measurements.sha256}\n"
            f"{html.escape(fit.command)}</pre></body></html>",
        )
    )


def _constants(fit: Fit) -> str:
    about = {c.name: c for c in fit.model.constants}
    rows = [
        "<div class='wide'><table><tr><th>constant</th><th>mean</th><th>std</th>"
        "<th>95 % interval</th><th>R-hat</th>"
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
    return "\n".join((*rows, f"</table></div><p>Inference: {_inference(fit.posterior)}.</p>"))


def _inference(posterior: Posterior) -> str:
    chains, draws = next(iter(posterior.draws.values())).shape[:2]
    ways = {
        "svi": "the normal distribution around the mode (Laplace)",
        "exact": f"the posterior in closed form (conjugate priors), {chains * draws} draws",
        "nuts": f"NUTS, {chains} chains of {draws} draws, {posterior.divergences} divergent",
    }
    return ways[posterior.method]


def _compared(ranking: Ranking | str) -> str:
    if isinstance(ranking, str):
        return f"<p>{html.escape(ranking)}</p>"
    rows = [
        f"<p>Log predictive density of {ranking.reads:,} reads, the first of each sequence given: "
        f"{html.escape(ranking.how)}. More is better. Where a difference is within a few of its "
        "standard errors, the table does not tell the models apart.</p>",
        "<div class='wide'><table><tr><th>model</th><th>nats a read</th><th>standard error</th>"
        "<th>behind the best"
        "</th><th>standard error</th><th>note</th></tr>",
    ]
    for k, row in enumerate(ranking.rows):
        behind = f"{row.behind:.4f}</td><td>{row.behind_error:.2g}" if k else "-</td><td>-"
        rows.append(
            f"<tr><td>{html.escape(row.name)}</td><td>{row.nats:.4f}</td><td>{row.error:.2g}</td>"
            f"<td>{behind}</td><td>{html.escape(row.note)}</td></tr>"
        )
    said = [f"<p>{html.escape(remark)}</p>" for remark in ranking.remarks]
    return "\n".join((*rows, "</table></div>", *said))


def _prior(fit: Fit, reads: pictures.Measured) -> list[str]:
    if fit.prior is None:
        return []
    return [
        "<h2>What the priors alone would give</h2><p>As above, with draws of the priors: they "
        "should hold the data, and more. The axis is cut to the data's surroundings.</p>",
        _image(pictures.against(reads, fit.prior, "priors", cut=True)),
    ]


def _image(figure: Figure) -> str:
    figure.set_layout_engine("tight")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    picture = base64.b64encode(content.getvalue()).decode()
    return f"<img alt='' src='data:image/png;base64,{picture}'>"
