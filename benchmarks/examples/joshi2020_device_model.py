"""PCM for reading after training: write noise, drift and growing read noise.

    python -m benchmarks.examples.joshi2020_device_model --out figures [--smoke]

In the manner of the figure on the device model of Joshi et al., Nat. Commun. 11:2473 (2020), doi
10.1038/s41467-020-16108-9 (its number could not be verified, so that none is named): devices are
written once to targets up to 25 uS and watched for a year. The model is `joshi2020`, whose
constants were read in the paper; nothing is measured here.
"""

from __future__ import annotations

import sys

import pandas as pd
import torch
from matplotlib.figure import Figure

import devicemodels
from benchmarks.examples.common import options, save
from devicemodels.devices.programmed import ProgrammedPCMArray, ProgrammedPCMParameters

NAME = "joshi2020_device_model"
RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
TIMES_S = {"1 s": 1.0, "1 min": 60.0, "1 h": 3600.0, "1 d": 86400.0, "1 y": 3.15576e7}


def main(argv: list[str] | None = None) -> int:
    given = options(__doc__, argv, NAME)
    size = 5_000 if given.smoke else 50_000
    physics = devicemodels.load("joshi2020").device
    assert isinstance(physics, ProgrammedPCMParameters)

    rows = []
    for ratio in RATIOS:
        # 1. Devices that hold one target each; writing them once misses it by the write noise.
        devices = ProgrammedPCMArray(size, physics, devicemodels.Chance(given.seed, str(ratio)))
        devices.write(torch.full((size,), ratio * physics.g_max))
        written = devices.conductance_us
        for time_s in TIMES_S.values():
            # 2. Later: what is left of the conductance, and how much one read of it scatters.
            left = (devices.conductance(time_s) / written)[written > 0].mean().item()
            noise = (devices.read_std(time_s).mean() / devices.conductance(time_s).mean()).item()
            rows.append((ratio, time_s, written.std().item(), left, noise))

    columns = ["target_ratio", "time_s", "write_std_us", "drift_factor", "relative_read_noise"]
    data = pd.DataFrame(rows, columns=columns)
    last = data[data["time_s"] == TIMES_S["1 y"]]
    low, high = last["drift_factor"].min(), last["drift_factor"].max()
    print(f"after a year {low:.0%} to {high:.0%} of a conductance is left")
    save(draw(data), data, given.out, NAME)
    return 0


def draw(data: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(12, 4), layout="constrained")
    write, drift, noise = figure.subplots(1, 3)
    once = data[data["time_s"] == TIMES_S["1 s"]]
    write.plot(once["target_ratio"], once["write_std_us"], "o-")
    write.set(xlabel="target / g_max", ylabel="write noise, standard deviation [µS]", ylim=0)
    for ratio, part in data.groupby("target_ratio"):
        drift.plot(part["time_s"], part["drift_factor"], "o-", label=f"{ratio:g}")
        noise.plot(part["time_s"], 100 * part["relative_read_noise"], "o-", label=f"{ratio:g}")
    drift.set(xlabel="time [s]", ylabel="conductance left, mean", xscale="log")
    noise.set(xlabel="time [s]", ylabel="read noise / conductance [%]", xscale="log", ylim=(0, 32))
    noise.legend(title="target / g_max", loc="upper left", ncols=3)
    return figure


if __name__ == "__main__":
    sys.exit(main())
