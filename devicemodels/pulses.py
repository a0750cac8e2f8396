"""The seam between a rule and a synapse: which weights get how many pulses, and of which sign."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PulseEvents:
    """Sparse pulses for one synapse, in the order in which they are applied.

    index: int64 (n,), flat positions in the weight matrix (row-major, out x in), none twice.
    count: int64 (n,), signed number of pulses, never 0; the sign is the sign of the weight change.
    """

    index: Tensor
    count: Tensor

    def __len__(self) -> int:
        return self.index.numel()

    @property
    def total(self) -> int:
        """Number of pulses, both signs together."""
        return int(self.count.abs().sum()) if len(self) else 0

    @staticmethod
    def from_counts(counts: Tensor) -> PulseEvents:
        """Collect the nonzero entries of a dense tensor of signed counts, of any shape."""
        flat = counts.reshape(-1)
        index = flat.nonzero().squeeze(1)
        return PulseEvents(index, flat[index].to(torch.int64))
