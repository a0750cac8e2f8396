"""The energy so far, quickly: a budget asks after every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from mcatrain.ledger import Ledger, counts, total
from mcatrain.tile import Tile

#: What a tile's energy is made of: counters of its ledger, and of its synapse. A SET pulse costs
#: the same in a refresh.
_OF_LEDGER = ("update_vectors", "chi_steps", "slots", "refresh_checks")
_OF_SYNAPSE = ("set_pulses", "reset_pulses")


class Meter:
    """Sums counters times what one more of each costs, found out once.

    energy: that of counts as `ledger.counts` has them, summed [J]: linear in them, but that outer
    products cost nothing where no chi takes them. uses_chi: whether the rule has one. `read`
    rounds otherwise than ``energy`` of the counts themselves: near a limit, ask for that.
    """

    def __init__(
        self, tiles: Iterable[Tile], energy: Callable[[Mapping[str, int]], float], uses_chi: bool
    ) -> None:
        arrays = list(tiles)
        self._weights = total(map(counts, arrays))["weights"]
        self._energy, self._uses_chi = energy, uses_chi
        self._tiles = [(tile, self._prices(tile)) for tile in arrays]

    def _prices(self, tile: Tile) -> tuple[float, ...]:
        """Return the price [J] of a read forward, one backward, and one more of each counter."""
        found = []
        for name in ("forward", "backward", *_OF_LEDGER, *_OF_SYNAPSE):
            costs = []
            for amount in (0, 1):
                given = SimpleNamespace(
                    shape=tile.shape,
                    ledger=Ledger(),
                    synapse=SimpleNamespace(
                        devices_per_weight=tile.synapse.devices_per_weight,
                        set_pulses=0, reset_pulses=0, refreshes=0,
                    ),
                )  # fmt: skip
                given.ledger.chi_steps = int(self._uses_chi)
                _add(given, name, amount)
                work = counts(given)  # type: ignore[arg-type]
                costs.append(self._energy(work | {"weights": self._weights}))
            found.append(costs[1] - costs[0])
        return tuple(found)

    def read(self) -> float:
        """Return the energy so far [J]."""
        whole = 0.0
        for tile, (ahead, back, outer, chi, slot, check, up, down) in self._tiles:
            ledger, synapse = tile.ledger, tile.synapse
            forward, backward = ledger.training.forward, ledger.training.backward
            whole += (
                ahead * (forward.vectors + forward.repeats)
                + back * (backward.vectors + backward.repeats)
                + outer * ledger.update_vectors
                + chi * ledger.chi_steps
                + slot * ledger.slots
                + check * ledger.refresh_checks
                + up * synapse.set_pulses
                + down * synapse.reset_pulses
            )
        return whole


def _add(given: Any, name: str, amount: int) -> None:
    if name in _OF_SYNAPSE:
        setattr(given.synapse, name, amount)
    elif name in _OF_LEDGER:
        setattr(given.ledger, name, getattr(given.ledger, name) + amount)
    else:
        getattr(given.ledger.training, name).vectors += amount
