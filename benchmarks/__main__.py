"""The speed suite: one command that prints its tables and keeps them with their date.

    OMP_NUM_THREADS=1 python -m benchmarks [--only step,memory] [--rounds N]

Writes benchmarks/results/speed-DATE.md and .json; a part measured again on the same day takes the
place of what it found before. Times of a machine that others use too, or of more than one thread,
are not to be trusted: a warning says so, and the load stands beside the figures. There --clock cpu
helps, which counts what the thread itself worked.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.machine import setting
from benchmarks.part import Effort
from benchmarks.results_file import RESULTS, keep
from benchmarks.timing import CLOCKS

#: Modules with a function ``measure(effort) -> Part | None``; None says on its own why not.
PARTS = {
    "step": "benchmarks.step",
    "peers": "benchmarks.peers.aihwkit",
    "memory": "benchmarks.memory",
    "scaling": "benchmarks.scaling",
    "chips": "benchmarks.chips",
    "ledger": "benchmarks.ledger",
    "profile": "benchmarks.profile",
}
#: Load of a machine at rest.
_QUIET = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Measure the parts asked for, print their tables and keep them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The speed suite.")
    parser.add_argument(
        "--only", help=f"parts with commas between: {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--rounds", type=int, help="rounds of every case, in place of its own")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: work of the thread, on a busy machine"
    )
    parser.add_argument("--smoke", action="store_true", help="the least that shows that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the files")
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else list(PARTS)
    for name in names:
        if name not in PARTS:
            parser.error(f"--only: no part {name!r}: choose of {', '.join(PARTS)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: give at least 1")
    where = setting(given.clock)
    if where["threads"] != "1":
        print("warning: more than one thread: set OMP_NUM_THREADS=1", file=sys.stderr)
    if float(where["load"]) > _QUIET:
        print(f"warning: others are at work here (load {where['load']})", file=sys.stderr)
    effort = Effort(given.rounds, given.smoke, CLOCKS[given.clock])
    for name in names:
        part = importlib.import_module(PARTS[name]).measure(effort)
        if part is None:
            continue
        print(f"\n## {part.title}")
        for table in part.tables:
            print(f"\n{table.markdown()}", flush=True)
        print(f"\nwritten: {keep(name, part, where, given.out)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
