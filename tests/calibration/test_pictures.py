"""What the picture of a table has along its axis, and how many sequences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calibration.measurements import table
from calibration.pictures import sequences


@pytest.mark.parametrize(
    ("column", "values", "label"),
    [
        ("amplitude_v", np.linspace(0.7, 1.7, 8), "pulse voltage [V]"),
        ("time_s", np.geomspace(1, 1e4, 8), "time [s]"),
        ("amplitude_v", np.full(8, 1.5), "step"),
    ],
)
def test_axis_is_what_changes(column: str, values: np.ndarray, label: str) -> None:
    frame = pd.DataFrame(
        {
            "device": np.repeat(np.arange(100), 8),
            "step": np.tile(np.arange(8), 100),
            "pulse": "set",
            column: np.tile(values, 100),
            "conductance_us": np.linspace(1, 9, 800),
        }
    )
    (axes,) = sequences(table(frame, "a")).axes
    assert axes.get_xlabel() == label
    assert len(axes.lines) == 50
    assert axes.get_title(loc="left") == "50 of 100 sequences"
    wanted = np.arange(8) if label == "step" else values
    np.testing.assert_allclose(axes.lines[0].get_xdata(), wanted)
