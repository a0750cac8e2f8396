"""Training by MCA on PCM against float32: accuracy and pulses by epoch.

    python -m benchmarks.examples.nandakumar2020_figure3_training --out figures [--smoke]

Redraws figure 3 of Nandakumar et al., Front. Neurosci. 14:406 (2020), doi 10.3389/fnins.2020.00406
(number and panels recalled, not verified): test accuracy of a perceptron of 784-250-10 on MNIST
by epoch, and how often its devices are programmed. The paper trains 30 epochs on a chip and
reports 97.73 %, "within 0.6 %" of software (verified); here it is three epochs on the model of such
devices, with --smoke a smaller network on the 8x8 digits.
"""

from __future__ import annotations

import sys

import pandas as pd
from matplotlib.figure import Figure

import mcatrain
from benchmarks.examples.common import options, run, save

NAME = "nandakumar2020_figure3_training"
FULL = ("--data", "mnist", "--epochs", "3")
SMOKE = ("--data", "digits", "--hidden", "32", "--epochs", "4", "--train-limit", "600")


def main(argv: list[str] | None = None) -> int:
    given = options(__doc__, argv, NAME)

    # 1. The same network by two rules, one after the other; each is a run folder of its own.
    run("compare", "--rules", "fp32,mca", *(SMOKE if given.smoke else FULL), *given.place,
        "--seeds", str(given.seed), "--out", given.runs, "--resume")  # fmt: skip

    # 2. Their folders as frames: options in one, evaluations by epoch in another.
    found = mcatrain.load_runs(given.runs)
    data = found.metrics.merge(found.runs[["run", "rule"]], on="run")
    data["pulses"] = data["set_pulses"] + data["reset_pulses"]
    # Pulses are counted from the start: an epoch's own are the difference to the one before.
    data["epoch_pulses"] = data.groupby("rule")["pulses"].diff().fillna(data["pulses"])
    data["epoch_pulses_per_example"] = data["epoch_pulses"] / data.groupby("rule")["step"].diff()
    first = data["epoch"] == 1
    data.loc[first, "epoch_pulses_per_example"] = data["epoch_pulses"] / data["step"]

    kept = ["rule", "epoch", "test_accuracy", "train_loss", "epoch_pulses_per_example", "refreshes"]
    for rule, part in data.groupby("rule"):
        print(f"{rule}: {part['test_accuracy'].iloc[-1]:.2%} after {len(part)} epochs")
    save(draw(data), data[kept], given.out, NAME)
    return 0


def draw(data: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    accuracy, pulses = figure.subplots(1, 2)
    for rule, part in data.groupby("rule"):
        accuracy.plot(part["epoch"], 100 * part["test_accuracy"], "o-", label=rule)
    accuracy.set(xlabel="epoch", ylabel="test accuracy [%]", xticks=sorted(data["epoch"].unique()))
    accuracy.legend()
    mca = data[data["rule"] == "mca"]
    pulses.bar(mca["epoch"], mca["epoch_pulses_per_example"])
    pulses.set(xlabel="epoch", ylabel="pulses an example, all devices", xticks=mca["epoch"])
    pulses.set_title("pulses of MCA by epoch")
    return figure


if __name__ == "__main__":
    sys.exit(main())
