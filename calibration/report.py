"""The page of a fit: constants, data against what the model would give, what it was made from."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from calibration import pictures
from calibration.diagnostics import Line
from calibration.fit import Posterior
from calibration.measurements import Measurements
from calibration.models.base import CalibrationModel
from calibration.ranking import Ranking
from devicemodels import page as frame

#: Dots an inch of the pictures: enough to look closer, and little enough for one file.
_DPI = 220
_CONSTANT_COLUMNS = (
    "constant", "mean", "std", "95 % interval", "R-hat", "effective draws", "unit", "meaning",
)  # fmt: skip
_RANK_COLUMNS = (
    "model", "nats a read", "standard error", "behind the best", "standard error of that", "note",
)  # fmt: skip


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


@dataclass(frozen=True)
class Picture:
    """A picture of the page: title, caption, and the image in its one panel."""

    title: str
    caption: str
    panels: tuple[Markup]
    shape: str
    """How it lies in its card: ``single``, beside another, or ``whole``, as wide as the page."""


def page(fit: Fit) -> str:
    """Return the report as one HTML text that needs nothing else."""
    template = _environment().get_template("fit.html")
    summary = fit.measurements.summary()
    return template.render(
        style=frame.style(),
        script=frame.script(),
        title=f"{fit.model.name} fitted to {fit.measurements.source}",
        facts=summary.splitlines()[0],
        complaints=fit.complaints,
        constant_columns=_CONSTANT_COLUMNS,
        constants=_constants(fit),
        inference=_inference(fit.posterior),
        marginals=_marginals(fit),
        pictures=_pictures(fit),
        ranking=fit.ranking,
        rank_columns=_RANK_COLUMNS,
        ranks=[] if isinstance(fit.ranking, str) else _ranks(fit.ranking),
        summary=summary,
        sha256=fit.measurements.sha256,
        command=fit.command,
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("calibration"), jinja2.FileSystemLoader(frame.FOLDER)]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = frame.unbroken
    return environment


def _constants(fit: Fit) -> list[tuple[str, ...]]:
    about = {c.name: c for c in fit.model.constants}
    return [
        (
            line.name,
            f"{line.mean:.4g}",
            f"{line.deviation:.2g}",
            f"{line.low:.4g} to {line.high:.4g}",
            "—" if line.r_hat is None else f"{line.r_hat:.3f}",
            "—" if line.effective is None else f"{line.effective:.0f}",
            frame.micro(about[line.name].unit),
            about[line.name].about,
        )
        for line in fit.lines
    ]


def _inference(posterior: Posterior) -> str:
    chains, draws = next(iter(posterior.draws.values())).shape[:2]
    ways = {
        "svi": "the normal distribution around the mode (Laplace)",
        "exact": f"the posterior in closed form (conjugate priors), {chains * draws} draws",
        "nuts": f"NUTS, {chains} chains of {draws} draws, {posterior.divergences} divergent",
    }
    return ways[posterior.method]


def _ranks(ranking: Ranking) -> list[tuple[str, ...]]:
    """Return the rows of the table; the best is behind nothing."""
    return [
        (
            row.name,
            f"{row.nats:.4f}",
            f"{row.error:.2g}",
            f"{row.behind:.4f}" if place else "—",
            f"{row.behind_error:.2g}" if place else "—",
            row.note,
        )
        for place, row in enumerate(ranking.rows)
    ]


def _marginals(fit: Fit) -> Picture:
    names = ", ".join(constant.name for constant in fit.model.constants)
    return _picture(
        "Posterior and prior",
        "Draws of each constant's posterior, and its prior as a line where it has one.",
        f"Posterior and prior of each constant: {names}",
        pictures.marginals(fit.model.constants, fit.posterior),
        "whole",
    )


def _pictures(fit: Fit) -> list[Picture]:
    """Return the pictures of the data: as measured, against the model, and what it adds."""
    reads = pictures.measured(fit.model, fit.data)
    over = f"conductance [µS] over {reads.label}"
    number = len(fit.replicates)
    found = [
        _picture(
            "Measured",
            "The reads as they are, a line a sequence.",
            "Measured conductance [µS], a line a sequence",
            pictures.sequences(fit.measurements),
        ),
        _picture(
            "Replicated experiments",
            f"Grey: 90 % of the reads of {number} replicated experiments, each under its own draw "
            "of the posterior, with their median. Dots and bars: the measured reads.",
            f"Measured and replicated {over}, by draws of the posterior",
            pictures.against(reads, fit.replicates, "model"),
        ),
        _picture(
            "Spread, and residuals",
            "Left: standard deviation among the measured sequences, and 90 % of the replicated "
            "experiments. Right: rank of every read among its replicates; level where the model "
            "is right.",
            f"Spread of measured and replicated {over}, and ranks of reads among replicates",
            pictures.checks(reads, fit.replicates),
        ),
        *(
            _picture(title, f"{shows}.", f"{title}: {shows}", figure)
            for title, shows, figure in fit.model.pictures(fit.posterior, fit.data)
        ),
    ]
    if fit.prior is not None:
        priors = _picture(
            "What the priors alone would give",
            "Experiments replicated under draws of the priors: they should hold the data, and "
            "more. The axis is cut to the data's surroundings.",
            f"Measured and replicated {over}, by draws of the priors",
            pictures.against(reads, fit.prior, "priors", cut=True),
        )
        found.append(priors)
    return found


def _picture(title: str, caption: str, alt: str, figure: Figure, shape: str = "single") -> Picture:
    figure.set_layout_engine("tight")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    image = base64.b64encode(content.getvalue()).decode()
    panel = Markup('<img alt="{}" src="data:image/png;base64,{}">').format(alt, image)
    return Picture(title, caption, (panel,), shape)
