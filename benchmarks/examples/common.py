"""What the examples share: their switches, commands of mcatrain, a picture with its table."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from mcatrain.cli import main as mcatrain


def options(about: str | None, argv: list[str] | None, name: str) -> argparse.Namespace:
    """Read the switches that every figure has: --out, --smoke, --seed, --data-dir.

    Beside them: runs, the folder of the runs of figure ``name`` in this form, and place, the
    options that tell a command where the data sets are.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--smoke", action="store_true", help="a small form, of seconds, on digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", default="", help="folder of data sets; else MCATRAIN_DATA")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    given.runs = given.out / f"{name}-{'smoke' if given.smoke else 'full'}"
    given.place = ("--data-dir", given.data_dir) if given.data_dir else ()
    return given


def run(*arguments: str | Path) -> None:
    """Run one command of mcatrain, as from a shell; what has finished before is kept."""
    command = [str(part) for part in arguments if part != ""]
    if mcatrain(command):
        raise SystemExit(f"mcatrain {' '.join(command)} failed")


def save(figure: Figure, data: pd.DataFrame, out: Path, name: str) -> None:
    """Write NAME.png, and what it shows as NAME.csv."""
    figure.savefig(out / f"{name}.png", dpi=120)
    data.to_csv(out / f"{name}.csv", index=False)
    print(f"wrote {out / name}.png and .csv")
