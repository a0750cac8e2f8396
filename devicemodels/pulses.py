"""The seam between a rule and a synapse: which weights get how many pulses, and of which sign."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from devicemodels import kernels


@dataclass(frozen=True)
class PulseEvents:
    """Sparse pulses for one synapse, in the order in which they are applied.

    index: int64 (n,), flat positions in the weight matrix (row-major, out x in). count: int64 (n,),
    signed number of pulses, never 0; the sign is the sign of the weight change. repeats: False if
    no position occurs twice. The order matters only among the events of one weight.
    """

    index: Tensor
    count: Tensor
    repeats: bool = False

    def __len__(self) -> int:
        return self.index.numel()

    @property
    def total(self) -> int:
        """Number of pulses, both signs together."""
        return sum(kernels.tally(self.count))

    @staticmethod
    def from_counts(counts: Tensor) -> PulseEvents:
        """Collect the nonzero entries of a dense tensor of signed counts, of any shape."""
        flat = counts.reshape(-1)
        index = flat.nonzero().squeeze(1)
        return PulseEvents(index, flat[index].to(torch.int64))


def rounds(index: Tensor) -> Iterator[Tensor]:
    """Split the places of ``index`` (n,), whose values may repeat, into parts without repeats.

    The k-th part (m,), int64, has the k-th occurrence of every value that occurs so often: done
    one after the other, the parts do the events of each value in their order.
    """
    # A stable sort lays the events of a value side by side in their order.
    ordered, place = index.sort(stable=True)
    here = torch.arange(len(index), device=index.device)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    turn = here - torch.where(starts, here, 0).cummax(0).values if len(index) else here
    for k in range(int(turn.max()) + 1 if len(index) else 0):
        yield place[turn == k]
