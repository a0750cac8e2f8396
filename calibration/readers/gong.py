"""Resistive memory of Gong et al. 2018: a thousand pulses up, then a thousand down.

Source: Gong et al., Nat. Commun. 9 (2018) 2102. Data: github.com/IBM/aihwkit, commit 4545f11,
examples/csv/gong_et_al.csv (MIT).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from calibration.measurements import Measurements
from calibration.readers import cells, measured

_ORIGIN = "Gong et al. 2018, github.com/IBM/aihwkit, examples/csv/gong_et_al.csv"
#: µS that stand for a value of 0, and for a difference of 1.
OFFSET_US, SCALE_US = 10.0, 5.0


def pulses(folder: Path | str) -> Measurements:
    """Read ``folder``/gong_et_al.csv: 2,000 reads of one device, none left out.

    One sequence: steps 0-999 after 'up' pulses, 1000-1999 after 'down' pulses; that the second
    thousand followed the first is an assumption. The file's values are normalised (-1.36 to
    1.41). They are mapped to conductance_us = 10 + 5 * value, an arbitrary choice that can be
    undone: only ratios of differences mean anything. Raises InputError for a missing or other
    file.
    """
    path = Path(folder) / "gong_et_al.csv"
    columns = cells(path, _ORIGIN, ("up", "down"), header=False)
    count = len(columns)
    frame = pd.DataFrame(
        {
            "device": "gong",
            "step": np.arange(2 * count),
            "pulse": np.repeat(["up", "down"], count),
            "conductance_us": OFFSET_US + SCALE_US * columns.to_numpy().ravel(order="F"),
        }
    )
    return measured(frame, path)
