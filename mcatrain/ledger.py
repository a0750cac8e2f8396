"""What an array was asked to do, counted exactly: reads, conversions, χ operations, pulses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mcatrain.tile import Tile

Counts = dict[str, int]


class Reads:
    """Reads of an array in one direction.

    vectors: what was multiplied. repeats: reads more than one a vector, by bound management.
    """

    __slots__ = ("repeats", "vectors")

    def __init__(self) -> None:
        self.vectors = self.repeats = 0


class Passes:
    """Reads of one purpose, through the array and through its transpose."""

    __slots__ = ("backward", "forward")

    def __init__(self) -> None:
        self.forward, self.backward = Reads(), Reads()


class Ledger:
    """Counters of one tile: Python integers, changed once a call, never by a pass over an array.

    training, evaluation: reads by the tile's mode (``model.train()``, ``model.eval()``).
    update_vectors: pairs (x, d) whose products made up the updates. chi_steps: steps that changed
    chi, every entry of it. chi_entries: entries found at or above epsilon. stream_steps, slots:
    updates by bit streams, and the slots that they lasted. refresh_checks: times that all devices
    were compared with the refresh threshold. refresh_set_pulses: of the synapse's SET pulses,
    those that wrote refreshed weights back (its RESETs are all by refresh on PCM pairs).
    """

    NAMES = (
        "update_vectors", "chi_steps", "chi_entries", "stream_steps", "slots", "refresh_checks",
        "refresh_set_pulses",
    )  # fmt: skip
    __slots__ = ("evaluation", "training", *NAMES)
    update_vectors: int
    chi_steps: int
    chi_entries: int
    stream_steps: int
    slots: int
    refresh_checks: int
    refresh_set_pulses: int

    def __init__(self) -> None:
        self.training, self.evaluation = Passes(), Passes()
        for name in self.NAMES:
            setattr(self, name, 0)

    def _reads(self) -> tuple[Reads, ...]:
        return tuple(r for p in (self.training, self.evaluation) for r in (p.forward, p.backward))

    def state(self) -> Tensor:
        """Return all counters, (15,) int64, for a checkpoint."""
        counted = [n for reads in self._reads() for n in (reads.vectors, reads.repeats)]
        return torch.tensor([*counted, *(getattr(self, name) for name in self.NAMES)])

    def restore(self, state: Tensor) -> None:
        """Take back what `state` gave."""
        values = [int(value) for value in state]
        for reads in self._reads():
            reads.vectors, reads.repeats, *values = values
        for name, value in zip(self.NAMES, values, strict=True):
            setattr(self, name, value)


def counts(tile: Tile) -> Counts:
    """Return what a tile was asked to do since it was made.

    Pulses: set_pulses, reset_pulses, refreshes (pairs), refresh_set_pulses, of all devices, as
    the synapse counts them. Forward and backward, and evaluation (forward): reads (vectors,
    repeats of bound management included), repeats (of these), dac and adc (conversions, a line
    and read each; ideal converters convert too), device_reads (reads times devices), macs
    (products of a weight and an input that a digital design would make). update_macs: products
    of the outer products d x^T. chi_accumulations: entries of chi times steps. chi_entries.
    slots: of bit streams; line_slots: times their lines. refresh_checks: devices compared with
    the refresh threshold. weight_accesses: 32-bit words that a digital design would move: each
    weight once a training step for the forward pass and the backward pass (if there is one), and
    read and written for the update. weights, devices: of the array.
    """
    ledger, synapse = tile.ledger, tile.synapse
    out, inputs = tile.shape
    weights = out * inputs
    devices = weights * synapse.devices_per_weight
    steps = ledger.chi_steps + ledger.stream_steps
    passes = 3 + (ledger.training.backward.vectors > 0)
    return {
        "weights": weights,
        "devices": devices,
        "set_pulses": synapse.set_pulses,
        "reset_pulses": synapse.reset_pulses,
        "refreshes": synapse.refreshes,
        "refresh_set_pulses": ledger.refresh_set_pulses,
        "refresh_checks": ledger.refresh_checks * devices,
        **_reads("forward", ledger.training.forward, inputs, out, devices, weights),
        **_reads("backward", ledger.training.backward, out, inputs, devices, weights),
        **_reads("evaluation", ledger.evaluation.forward, inputs, out, devices, weights),
        "update_macs": ledger.update_vectors * weights,
        "chi_accumulations": ledger.chi_steps * weights,
        "chi_entries": ledger.chi_entries,
        "slots": ledger.slots,
        "line_slots": ledger.slots * (out + inputs),
        "weight_accesses": passes * steps * weights,
    }


def _reads(name: str, r: Reads, lines: int, outputs: int, devices: int, weights: int) -> Counts:
    reads = r.vectors + r.repeats
    return {
        f"{name}_reads": reads,
        f"{name}_repeats": r.repeats,
        f"{name}_dac": reads * lines,
        f"{name}_adc": reads * outputs,
        f"{name}_device_reads": reads * devices,
        f"{name}_macs": r.vectors * weights,
    }


def total(parts: Iterable[Mapping[str, int]]) -> Counts:
    """Return the sums of several counts by name, {} of none."""
    found: Counts = {}
    for part in parts:
        for name, value in part.items():
            found[name] = found.get(name, 0) + value
    return found
