"""Models of one table in order of what they say of held-out reads: log predictive densities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from calibration.fit import Posterior
from calibration.held_out import Devices, LastQuarter, Refit, Score
from calibration.rivals import Candidate

BASELINE = "mean curve"


@dataclass(frozen=True)
class Row:
    """A model's score [nats a read] and how far it is behind the best, each with standard error.

    Standard errors are over what was held out, devices or blocks, so that of few they are rough.
    """

    name: str
    nats: float
    error: float
    behind: float
    behind_error: float
    note: str


@dataclass(frozen=True)
class Ranking:
    """Models, the best first. how: what was held out. remarks: models that could not be scored."""

    how: str
    reads: int
    rows: list[Row]
    remarks: tuple[str, ...] = ()

    def in_words(self) -> list[str]:
        """Return a line that says what was scored, a line a model, the best first, and remarks."""
        width = max(len(row.name) for row in self.rows)
        found = [f"compared on {self.reads:,} reads, nats a read: {self.how}"]
        for k, row in enumerate(self.rows):
            behind = f"behind by {row.behind:.4g} +- {row.behind_error:.2g}" if k else "best"
            note = f"  ({row.note})" if row.note else ""
            found.append(f"{row.name:{width}} {row.nats:9.4f} +- {row.error:.2g}  {behind}{note}")
        return [*found, *self.remarks]


def rank(
    candidates: Sequence[Candidate],
    posterior: Posterior,
    *,
    seed: int = 0,
    steps: int = 600,
    draws: int = 1000,
    progress: Callable[[str], None] = lambda _: None,
) -> Ranking | None:
    """Return the candidates and a mean curve by the density of held-out reads; None: too few reads.

    The first read of every sequence is given, as some models take it so: scored are the others,
    of all models the same, in the table's unit. Of ten devices or more, each in turn is left out
    by Pareto-smoothed importance sampling (PSIS-LOO), or a fit without it where Pareto k is above
    0.7; of fewer, by a fit without it; of one, the last quarter of each sequence is predicted from
    a fit to the rest. posterior: of the first candidate. seed, steps, draws: as of `fit`. What a
    model takes from the whole table before any fit (a window, a reference) stays as it is.
    """
    task = (LastQuarter if len(candidates[0].data) == 1 else Devices)(
        candidates[0], Refit(seed, steps, draws)
    )
    if len(task.reads) < 2:
        return None
    scores, remarks = {BASELINE: task.baseline()}, []
    for k, candidate in enumerate(candidates):
        progress(f"comparing {candidate.name}")
        try:
            scores[candidate.name] = task.score(candidate, posterior if k == 0 else None)
        except (RuntimeError, ValueError) as error:  # torch's, of a matrix that has no root
            said = str(error).splitlines()[0][:100]
            remarks.append(f"{candidate.name}: not scored, as a fit failed: {said}")
    return Ranking(task.how, int(task.reads.sum()), _rows(scores, task.reads), tuple(remarks))


def _rows(scores: dict[str, Score], reads: Tensor) -> list[Row]:
    total = float(reads.sum())
    order = sorted(scores, key=lambda name: -float(scores[name].nats.sum()))
    best = scores[order[0]].nats

    def mean(nats: Tensor) -> tuple[float, float]:
        found = float(nats.sum()) / total
        return found, float((nats - found * reads).std()) * math.sqrt(len(nats)) / total

    return [
        Row(name, *mean(scores[name].nats), *mean(best - scores[name].nats), scores[name].note)
        for name in order
    ]
