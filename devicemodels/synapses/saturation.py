"""Which pairs of PCM devices may read as saturated: known without looking at all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from devicemodels import kernels
from devicemodels.devices.pcm import PCMParameters

#: Reads further than this many standard deviations from a threshold are not drawn (p < 1e-14).
_CERTAIN = 8.0


class Candidates:
    """The pairs of ``size`` that may read as saturated: one device above ``above_us``, and the
    other less than ``below_us`` under it.

    A conductance only grows by pulses, and drift only lowers it: a pair may be saturated if its
    undrifted conductances are high enough, and between two looks only what was pulsed changes.
    """

    def __init__(self, size: int, device: PCMParameters, above_us: float, below_us: float) -> None:
        self._size = size

        def least(threshold: float) -> float:  # from here on a read, g + (m3 g + c3) z, is above
            return (threshold - _CERTAIN * device.c3) / (1 + _CERTAIN * device.m3)

        #: A candidate has one device above ``high_us`` and both above ``both_us``, undrifted.
        self.high_us, self.both_us = least(above_us), least(above_us - below_us)
        self.forget()

    def forget(self) -> None:
        """Take back all that is known: the devices were changed otherwise than by pulses."""
        #: As of the last look; None: never looked.
        self._found: Tensor | None = None
        #: Those pulsed since then; None: too many to tell.
        self._pulsed: list[Tensor] | None = []
        self._held = 0

    def pulsed(self, index: Tensor) -> None:
        """Note pairs whose devices were pulsed or written."""
        if self._found is not None and self._pulsed is not None:
            self._pulsed.append(index)
            self._held += index.numel()
            if self._held > self._size // 8:
                self.many_pulsed()

    def many_pulsed(self) -> None:
        """Note that so many pairs were pulsed that a look at all costs no more."""
        if self._found is not None:
            self._pulsed = None

    def look(self, conductance_us: Tensor) -> Tensor:
        """Return the candidates (m,), int64, ascending. conductance_us: as in `read_pairs`."""
        g, found = conductance_us, self._found
        if found is None or found.device != g.device or self._pulsed is None:
            found = kernels.high_pairs(g, self.high_us, self.both_us)
        elif self._pulsed:
            index = torch.cat([found, *self._pulsed])
            plus, minus = g[index], g[index + self._size]
            high = torch.maximum(plus, minus) > self.high_us
            found = index[high & (torch.minimum(plus, minus) > self.both_us)]
            if found.numel():
                found = found.unique()
        self._found, self._pulsed, self._held = found, [], 0
        return found
