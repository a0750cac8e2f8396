"""Time of one training step of MLPs, a CNN and an LSTM by both rules, beside plain torch."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.cases import FLOAT32, cases
from benchmarks.networks import MLP, NETWORKS, Network
from benchmarks.part import Effort, Part, Table
from benchmarks.timing import Times, alternate, train


def measure(effort: Effort) -> Part:
    """Time every case of every network."""
    tables, figures = [], {}
    for network in (MLP,) if effort.smoke else NETWORKS:
        found = {batch: _time(network, batch, effort) for batch in network.rounds}
        tables.append(_table(network, found))
        figures[network.title] = {
            batch: {
                name: t.figures() | {"ratio": t.ratio_to(of[FLOAT32])} for name, t in of.items()
            }
            for batch, of in found.items()
        }
    return Part("Time of a training step", tables, figures)


def _time(network: Network, batch: int, effort: Effort) -> dict[str, Times]:
    torch.manual_seed(0)
    steps = {
        name: partial(train, *make(network.make()))
        for name, make in cases(network.pcm, network.lr).items()
    }
    return alternate(
        steps,
        partial(network.draw, batch, torch.Generator().manual_seed(batch)),
        warm_up=1 if effort.smoke else network.warm_up,
        rounds=effort.of(network.rounds[batch]),
        burst=network.burst,
        clock=effort.clock,
    )


def _table(network: Network, found: dict[int, dict[str, Times]]) -> Table:
    counts = ", ".join(str(len(of[FLOAT32].seconds)) for of in found.values())
    rows = []
    for name in cases(network.pcm, network.lr):
        row = [name]
        for of in found.values():
            low, high = of[name].quartiles_ms
            ratio = of[name].ratio_to(of[FLOAT32])
            row.append(f"{of[name].median_ms:.2f} ({low:.2f}-{high:.2f}), {ratio:.2f}x")
        rows.append(row)
    return Table(
        network.title,
        f"ms a step: median of {counts} steps (quartiles), and the ratio to float32 in the same "
        "round.",
        ["", *(f"batch {batch}" for batch in found)],
        rows,
    )
