"""mcatrain fit: a measured table in, a parameter file, its posterior and a report out."""

from __future__ import annotations

import argparse
import inspect
import shlex
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

import devicemodels
from calibration import diagnostics, export, files, ranking, report, rivals
from calibration.fit import METHODS, Posterior, fit
from calibration.measurements import Measurements, read
from calibration.models import MODELS
from calibration.models.base import CalibrationModel
from calibration.models.step_response import RESPONSES, StepResponse
from calibration.models.table import Table
from calibration.step_file import step_draws, step_file
from calibration.table_file import table_draws, table_file
from devicemodels.devices.pcm import PCMParameters
from devicemodels.errors import InputError, closest
from devicemodels.model import DeviceModel

#: Draws of the priors of which a report shows the experiments.
_PRIORS = 100


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see mcatrain fit --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mcatrain fit",
        description="Fit a device model to a measured table (CSV or Parquet, one read a row).",
        epilog="Writes PARAMS.toml, PARAMS.posterior.nc and PARAMS.report.html.",
    )
    parser.add_argument("measurements", help="table of reads: .csv (also .gz, .xz) or .parquet")
    parser.add_argument("--model", required=True, help=" | ".join(MODELS))
    parser.add_argument("--method", default="svi", help=" | ".join(METHODS))
    parser.add_argument("--out", required=True, help="parameter file to write, PARAMS.toml")
    parser.add_argument(
        "--base", default="nandakumar2018", help="device model for what was not measured"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600, help="most batches of the search (svi)")
    parser.add_argument("--draws", type=int, default=1000, help="draws of the posterior in all")
    parser.add_argument("--chains", type=int, default=2, help="chains of nuts")
    parser.add_argument("--warmup", type=int, default=200, help="steps of warm-up a chain (nuts)")
    parser.add_argument(
        "--heavy-tails", action="store_true", help="Student-t write noise (set-response)"
    )
    parser.add_argument("--response", help=f"{' | '.join(RESPONSES)} (step-response)")
    parser.add_argument(
        "--compare",
        default="auto",
        metavar="auto|none|all|NAMES",
        help="models to compare on held-out reads, by commas, NAME or NAME:RESPONSE; auto: all "
        f"that describe the same reads, of tables up to {rivals.MOST_READS:,} reads",
    )
    parser.add_argument("--force", action="store_true", help="write PARAMS.toml in any case")
    return parser


def main(command: list[str]) -> int:
    """Run ``mcatrain fit ...``; return 0, or 1 for a fit that has not converged."""
    given = _parser().parse_args(command[2:])
    _check(given)
    out = Path(given.out)
    measurements, base = read(given.measurements), devicemodels.load(given.base)
    model = _model(given, base)
    words = shlex.join(["mcatrain", *command[1:]])
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = _fitted(given, model, measurements, base, words)
        page = report.page(found)
    finally:
        torch.set_default_dtype(before)
    posterior, lines, complaints = found.posterior, found.lines, found.complaints
    about = {"command": words, "source": measurements.source, "sha256": measurements.sha256}
    kept = export.posterior_file(out)
    export.write_posterior(kept, posterior, about, _device_draws(model, posterior, measurements))
    files.replace(out.with_suffix(".report.html"), page.encode())
    for line in lines:
        print(f"{line.name:12} {line.mean:10.4g}  95 % {line.low:.4g} to {line.high:.4g}")
    if isinstance(found.ranking, ranking.Ranking):
        print("\n".join(found.ranking.in_words()))
    else:
        print(f"models compared: none. {found.ranking}")
    print(f"report: {out.with_suffix('.report.html')}")
    for said in complaints:
        print(f"mcatrain fit: not converged: {said}", file=sys.stderr)
    if complaints and not given.force:
        print("mcatrain fit: no parameter file is written; --force writes it", file=sys.stderr)
        return 1
    if not model.device_type:
        print(
            f"no device model holds the constants of {model.name} yet: the posterior is in {kept}"
        )
        return 0
    source = f"{given.model} by {posterior.method}, data sha256 {measurements.sha256}, {words}"
    title = f"{given.model} fitted to {measurements.source}"
    if isinstance(model, StepResponse):
        text = step_file(model.response, lines, title, source, measurements)
    elif isinstance(model, Table):
        text = table_file(posterior, lines, title, source, measurements)
    else:
        text = export.pcm_file(lines, base, title, source, measurements.source)
    files.replace(out, export.with_posterior(text, kept).encode())
    print(f"parameters: {out}")
    return 0


def _fitted(
    given: argparse.Namespace,
    model: CalibrationModel,
    measurements: Measurements,
    base: DeviceModel,
    words: str,
) -> report.Fit:
    """Fit, compare and replicate; in float64."""
    data = model.prepare(measurements)
    own = rivals.Candidate(rivals.name_of(model), model, data)
    candidates, why = rivals.gather(own, measurements, given.compare, _options(base))
    posterior = fit(
        model, data, given.method, seed=given.seed, steps=given.steps, draws=given.draws,
        chains=given.chains, warmup=given.warmup, progress=_say,
    )  # fmt: skip
    order: ranking.Ranking | str | None = why
    if candidates:
        order = ranking.rank(
            candidates, posterior, seed=given.seed, steps=given.steps, draws=given.draws,
            progress=_say,
        )  # fmt: skip
    number = diagnostics.enough(data.reads)
    lines = diagnostics.summary(posterior)
    return report.Fit(
        measurements,
        model,
        data,
        posterior,
        lines,
        diagnostics.complaints(posterior, lines),
        diagnostics.replicates(model, posterior, data, number, given.seed),
        diagnostics.prior_replicates(model, data, min(number, _PRIORS), given.seed),
        order or "The table holds too few reads to hold any out.",
        words,
    )


def _device_draws(
    model: CalibrationModel, posterior: Posterior, measurements: Measurements
) -> dict[str, NDArray[np.float64]]:
    """Return draws of the constants of the device that the fit describes, if there is one."""
    if isinstance(model, StepResponse):
        return step_draws(model.response, posterior, measurements)
    if isinstance(model, Table):
        return table_draws(posterior)
    return export.pcm_draws(posterior) if model.device_type == "pcm" else {}


def _model(given: argparse.Namespace, base: DeviceModel) -> CalibrationModel:
    """Make the model with the options that were given and that it has."""
    kind = MODELS[given.model]
    has = inspect.signature(kind).parameters
    options = {"heavy_tails": given.heavy_tails, "response": given.response}
    chosen = {name: value for name, value in options.items() if value}
    for name in chosen.keys() - has:
        raise InputError(
            f"--{name.replace('_', '-')}: {given.model} has no such option: leave it out"
        )
    chosen |= {name: value for name, value in _options(base).items() if name in has}
    model = kind(**chosen)
    if model.device_type == "pcm" and not isinstance(base.device, PCMParameters):
        raise InputError(f"--base {given.base}: a {base.device_type} device: give a pcm file")
    return model


def _options(base: DeviceModel) -> dict[str, float]:
    """Return what models take from the base, by the name of their argument."""
    return {"t0_s": base.device.t0_s} if isinstance(base.device, PCMParameters) else {}


def _check(given: argparse.Namespace) -> None:
    if given.model not in MODELS:
        raise InputError(f"--model {given.model!r}: {closest(given.model, MODELS)}")
    if given.method not in METHODS:
        raise InputError(f"--method {given.method!r}: {closest(given.method, METHODS)}")
    if not given.out.endswith(".toml"):
        raise InputError(f"--out {given.out!r}: name a parameter file, PARAMS.toml")
    if not Path(given.out).parent.is_dir():
        raise InputError(f"--out {given.out!r}: no folder {Path(given.out).parent}: make it first")
    rivals.chosen(given.compare)
    for name, least in (("seed", 0), ("steps", 1), ("draws", 10), ("chains", 1), ("warmup", 1)):
        if getattr(given, name) < least:
            raise InputError(f"--{name} {getattr(given, name)}: give at least {least}")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
