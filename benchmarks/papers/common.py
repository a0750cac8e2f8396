"""The command line that every script of this folder has, and the runs behind it."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.papers.output import setting, write
from benchmarks.papers.table import BUDGETS, Row, Table
from devicemodels.errors import InputError
from mcatrain.run.config import TrainConfig
from mcatrain.run.loop import Interrupted, train
from mcatrain.run.processes import run_all

RESULTS = Path(__file__).parents[1] / "results" / "papers"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


def main(table: Table, argv: list[str] | None = None) -> int:
    """Make a table; return 0 done, 1 interrupted, 2 bad usage or input (one line on stderr)."""
    kept = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _make(table, _parser(table).parse_args(argv))
    except InputError as error:
        print(f"{table.name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        print(f"{table.name}: interrupted: the same command goes on with it", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, kept)
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser(table: Table) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m benchmarks.papers.{table.name}",
        description=f"{table.title}. {table.paper}.",
        epilog="A table that was stopped goes on where it was when the command is given again.",
    )
    about = "; ".join(f"{name}: about {b.minutes:g} min" for name, b in table.budgets.items())
    parser.add_argument("--budget", required=True, help=f"{' | '.join(BUDGETS)} ({about})")
    parser.add_argument("--data-dir", default="", help="folder of data sets; else MCATRAIN_DATA")
    parser.add_argument("--seeds", help="e.g. 0,1,2; default: the budget's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each a process")
    parser.add_argument("--out", help=f"folder of the runs; default paper-runs/{table.name}-BUDGET")
    return parser


def _make(table: Table, given: argparse.Namespace) -> None:
    budget = table.budget(given.budget)
    seeds = budget.seeds if given.seeds is None else _seeds(given.seeds)
    if given.jobs < 1:
        raise InputError(f"--jobs {given.jobs}: give at least 1")
    out = Path(given.out or f"paper-runs/{table.name}-{given.budget}")
    runs = table.runs(given.budget, seeds, out, given.data_dir)
    where = setting()  # before training: the tree may move on meanwhile
    results = _train(runs, given.jobs)
    command = ["python", "-m", f"benchmarks.papers.{table.name}", "--budget", given.budget]
    command += ["--seeds", ",".join(map(str, seeds))]
    if given.data_dir:
        command += ["--data-dir", "DATA"]  # results are published, and folders are the user's own
    print(write(table, given.budget, runs, results, shlex.join(command), where, RESULTS))


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {text!r}: give different whole numbers of 0 or more, as 0,1,2")
    return seeds


def _train(runs: dict[Row, list[TrainConfig]], jobs: int) -> dict[Row, list[dict[str, Any]]]:
    """Make all runs that are not yet there; return the results by row, in the seeds' order."""
    configs = [config for row in runs.values() for config in row]
    found = iter(run_all(configs, jobs)) if jobs > 1 else map(_announced, configs)
    return {row: [next(found) for _ in mine] for row, mine in runs.items()}


def _announced(config: TrainConfig) -> dict[str, Any]:
    print(config.out, file=sys.stderr, flush=True)
    return train(config)
