"""Accuracy after training against time: drift, with and without one factor an array.

    python -m benchmarks.examples.joshi2020_accuracy_over_time --out figures [--smoke]

In the manner of the figures on accuracy retention of Joshi et al., Nat. Commun. 11:2473 (2020), doi
10.1038/s41467-020-16108-9 (their numbers could not be verified, so that none is named): a network
is trained in float32, its weights are written to PCM pairs once, and read over a year. The paper's
networks are ResNets that were trained with noise; here it is a perceptron that was not, on MNIST,
with --smoke on the 8x8 digits. The devices are the paper's (`joshi2020`).
"""

from __future__ import annotations

import sys

import pandas as pd
from matplotlib.figure import Figure

import mcatrain
from benchmarks.examples.common import options, run, save

NAME = "joshi2020_accuracy_over_time"
FULL = ("--data", "mnist", "--epochs", "2")
SMOKE = ("--data", "digits", "--epochs", "4", "--hidden", "32")
TIMES = "1s,1m,1h,1d,30d,1y"


def main(argv: list[str] | None = None) -> int:
    given = options(__doc__, argv, NAME)

    # 1. Train in float32: PCM does not take part.
    run("train", "--rule", "fp32", *(SMOKE if given.smoke else FULL), *given.place,
        "--seed", str(given.seed), "--out", given.runs, "--resume")  # fmt: skip

    # 2. Write the weights to chips, and read each at all times, in both ways.
    run("evaluate", "--times", TIMES, "--compensation", "none,global",
        "--chips", "5", *given.place, given.runs)  # fmt: skip

    # 3. What was read, a row a time and compensation.
    found = mcatrain.load_runs(given.runs)
    data = found.evaluations[["time_s", "compensation", "mean", "sd"]]
    software = found.runs["metrics.test_accuracy"].iloc[0]
    for kind, part in data.groupby("compensation"):
        last = part.iloc[-1]
        print(
            f"{kind}: {last['mean']:.2%} ± {last['sd']:.2%} after a year (software {software:.2%})"
        )
    save(draw(data, software), data, given.out, NAME)
    return 0


def draw(data: pd.DataFrame, software: float) -> Figure:
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, part in data.groupby("compensation", sort=False):
        label = {"none": "no compensation", "global": "one factor an array"}[str(kind)]
        axes.errorbar(
            part["time_s"], 100 * part["mean"], 100 * part["sd"], fmt="o-", capsize=3, label=label
        )
    axes.axhline(100 * software, color="black", linestyle=":", label="float32")
    axes.set(xscale="log", xlabel="time after programming [s]", ylabel="test accuracy [%]")
    axes.legend()
    return figure


if __name__ == "__main__":
    sys.exit(main())
