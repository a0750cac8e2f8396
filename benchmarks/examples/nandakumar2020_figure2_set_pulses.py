"""PCM devices under SET pulses: conductance, its history and its drift.

    python -m benchmarks.examples.nandakumar2020_figure2_set_pulses --out figures [--smoke]

Redraws figure 2 of Nandakumar et al., Front. Neurosci. 14:406 (2020), doi 10.3389/fnins.2020.00406
(number and panels recalled, not verified): mean and standard deviation of the conductance of 10,000
devices against the number of SET pulses, its distribution after 15 of them, and its drift. The
model is `nandakumar2018`; one panel more shows why the number of pulses since the last RESET is
part of a device's state. The devices that stand at 12 uS are the model's limit, which the paper's
figure does not have (20 reproduces it). Nothing is measured here: the curves are the model's.
"""

from __future__ import annotations

import sys

import pandas as pd
import torch
from matplotlib.figure import Figure

import devicemodels
from benchmarks.examples.common import options, save
from devicemodels.devices.pcm import PCMArray, PCMParameters

NAME = "nandakumar2020_figure2_set_pulses"
PULSES, MIDDLE = 20, 15
TIMES_S = (38.6, 100.0, 300.0, 1e3, 3e3, 1e4, 1e5, 1e6)


def main(argv: list[str] | None = None) -> int:
    given = options(__doc__, argv, NAME)
    size = 2_000 if given.smoke else 10_000

    # 1. A parameter file holds the physics. Its devices start freshly RESET.
    physics = devicemodels.load("nandakumar2018").device
    assert isinstance(physics, PCMParameters)
    devices = PCMArray(size, physics, devicemodels.Chance(given.seed, NAME))
    every, one = torch.arange(size), torch.ones(size, dtype=torch.int64)

    # 2. Pulse all of them at once, and look at the conductance after each pulse.
    rows, steps = [], []
    seen = [devices.conductance_us.clone()]
    for pulse in range(PULSES + 1):
        g = devices.conductance_us
        rows.append(("pulses", pulse, g.mean().item(), g.std().item()))
        if pulse < PULSES:
            devices.set(every, one, now_s=0.0)
            seen.append(devices.conductance_us.clone())

    # 3. The same conductance takes a smaller step the more pulses came before: the history.
    for pulse in (1, 3, 8):
        near = (seen[pulse] > 3) & (seen[pulse] < 5)
        change = (seen[pulse + 1] - seen[pulse])[near]
        steps.append(("history", pulse, change.mean().item(), change.std().item()))

    # 4. Wait: G falls as t**-nu, with an exponent of each device's own.
    for time_s in TIMES_S:
        g = devices.conductance(time_s)
        rows.append(("drift", time_s, g.mean().item(), g.std().item()))

    data = pd.DataFrame([*rows, *steps], columns=["panel", "x", "mean_us", "std_us"])
    print(f"after {PULSES} pulses: {rows[PULSES][2]:.2f} ± {rows[PULSES][3]:.2f} uS")
    print(f"steps from 3 to 5 uS after 1, 3, 8 pulses: {[round(s[2], 2) for s in steps]} uS")
    save(draw(data, seen[MIDDLE]), data, given.out, NAME)
    return 0


def draw(data: pd.DataFrame, middle: torch.Tensor) -> Figure:
    figure = Figure(figsize=(11, 7), layout="constrained")
    response, spread, history, drift = figure.subplots(2, 2).ravel()
    for panel, name in ((response, "pulses"), (history, "history"), (drift, "drift")):
        part = data[data["panel"] == name]
        panel.errorbar(part["x"], part["mean_us"], part["std_us"], fmt="o-", capsize=3)
    response.set(xlabel="SET pulses", ylabel="conductance [µS]", title="mean ± standard deviation")
    response.set_xticks(range(0, PULSES + 1, 5))
    spread.hist(middle.numpy(), bins=50)
    spread.set(xlabel="conductance [µS]", ylabel="devices", title=f"after {MIDDLE} pulses")
    history.set(
        xlabel="SET pulses before", ylabel="next step [µS]", title="steps of devices at 3 to 5 µS"
    )
    drift.set(xlabel="time after the last pulse [s]", ylabel="conductance [µS]", xscale="log")
    drift.set_title(f"drift after {PULSES} pulses")
    return figure


if __name__ == "__main__":
    sys.exit(main())
