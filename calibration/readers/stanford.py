"""Resistive memory of Stanford's 64k-cell 1T1R arrays: conductance relaxing after programming.

Source: github.com/Anjiang-Wei/Anjiang-RRAM-Python, commit d2c625c, models/model_C.tsv (MIT).
"""

from __future__ import annotations

from pathlib import Path

from calibration.measurements import Measurements
from calibration.readers import cells, measured

_ORIGIN = "github.com/Anjiang-Wei/Anjiang-RRAM-Python, models/model_C.tsv"


def relaxation(folder: Path | str) -> Measurements:
    """Read ``folder``/anjiang/model_C.tsv.xz: 89,114 reads of 16,292 cells, 0 to 1e5 s old.

    device: the cell's address; sequence: the target level (0-51) it was programmed to, once;
    step: the reads in order of time [time_s], which the file has shuffled; pulse: 'set' for the
    read at 0 s, after the last pulse of programming (the source does not say that it was a SET),
    'read' for the others. A cell has four to six of the times 0, 0.01, 0.1, 1, 4 and 1e5 s.

    One of the 89,115 rows is left out: cell 2348 at 4 s reads -0.12 µS, which no conductance is.
    Reads thus err by 0.1 µS or more, as much as the lowest of them. Raises InputError for a
    missing or other file.
    """
    path = Path(folder) / "anjiang" / "model_C.tsv.xz"
    frame = cells(path, _ORIGIN, ("addr", "timept", "g", "range"), separator="\t")
    frame = frame.set_axis(["device", "time_s", "conductance_s", "sequence"], axis="columns")
    frame = frame[frame["conductance_s"] >= 0].sort_values(["device", "sequence", "time_s"])
    frame["step"] = frame.groupby(["device", "sequence"]).cumcount()
    frame["pulse"] = (frame["time_s"] == 0).map({True: "set", False: "read"})
    return measured(frame, path)
