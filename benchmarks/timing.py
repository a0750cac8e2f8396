"""Times of things done in turn, so that the machine's drift hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

#: Inputs and labels.
Batch = tuple[Tensor, Tensor]
Clock = Callable[[], float]
#: wall: what a user waits for. cpu: what the thread itself worked, which others on the machine
#: disturb less; the two agree on a machine at rest. It would miss the work of a second thread.
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.thread_time}


@dataclass(frozen=True)
class Times:
    """Durations of one case [s], in the order in which they were measured."""

    seconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return 1e3 * statistics.median(self.seconds)

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """Half of all durations lie between these [ms]; of a single one, itself twice."""
        if len(self.seconds) < 2:
            return self.median_ms, self.median_ms
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return 1e3 * low, 1e3 * high

    def ratio_to(self, other: Times) -> float:
        """Return the median over the rounds of own time to the other's in the same round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(own / its for own, its in pairs)

    def figures(self) -> dict[str, float | int]:
        """Return what a results file keeps."""
        low, high = self.quartiles_ms
        return {"ms": self.median_ms, "low": low, "high": high, "rounds": len(self.seconds)}


def alternate(
    cases: Mapping[str, Callable[[Batch], object]],
    draw: Callable[[], Batch],
    *,
    warm_up: int,
    rounds: int,
    burst: int = 1,
    clock: Clock = time.perf_counter,
) -> dict[str, Times]:
    """Do the cases in turn, all on the same fresh batch; return the times after ``warm_up`` rounds.

    A turn of a case is ``burst`` steps. Of several, the first is not timed: it finds in the
    processor's cache what the case before has left there, which no training does.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(warm_up + rounds):
        batches = [draw() for _ in range(burst)]
        for name, case in cases.items():
            for place, batch in enumerate(batches):
                start = clock()
                case(batch)
                seconds = clock() - start
                if number >= warm_up and (place or burst == 1):
                    times[name].append(seconds)
    return {name: Times(tuple(values)) for name, values in times.items()}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Do one training step as users do it."""
    x, y = batch
    loss = cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
