"""Phase-change memory of Zarcone et al. 2020: resistance after pulses of rising voltage.

Source: Zarcone, Engel, ..., Wong and Olshausen, Sci. Rep. 10 (2020), s41598-020-63723-z; the cells
are those of Engel et al., IEDM 2014, doi:10.1109/IEDM.2014.7047134. Data: github.com/rzarcone/
PCM_Paper, commit 686fd6a, Data/PCM_20140605.pkl and Data/Partial_Reset_PCM.pkl, as CSV. There
are no times: nothing can be learned of drift, and nothing of read noise.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from calibration.measurements import Measurements
from calibration.readers import cells, measured

_ORIGIN = "Zarcone et al. 2020, github.com/rzarcone/PCM_Paper, folder Data, written as csv.xz"


def partial_set(folder: Path | str) -> Measurements:
    """Read ``folder``/pcm_partial_set_6dev.csv.xz: 71,811 reads of six devices, none left out.

    sequence: the sweep (0-119, of device 4 0-110); step: 0-100, a pulse of word-line voltage 0.70
    to 1.70 V [amplitude_v]. 'set' is an interpretation: resistance falls as the voltage rises,
    but the source states neither the kind of pulse nor its width, nor whether the device is
    RESET before each pulse or only before a sweep. Raises InputError for a missing or other file.
    """
    path = Path(folder) / "pcm_partial_set_6dev.csv.xz"
    return _sweeps(cells(path, _ORIGIN, ("device", "sweep", "V_wl_volt", "R_ohm")), "set", path)


def partial_reset(folder: Path | str) -> Measurements:
    """Read ``folder``/Partial_Reset_PCM.csv.xz: 15,200 reads of one device, none left out.

    sequence: the sweep (0-379); step: 0-39, a pulse of 1.00 to 2.95 V [amplitude_v], called
    'reset' after the name of the file. Raises InputError for a missing or other file.
    """
    path = Path(folder) / "Partial_Reset_PCM.csv.xz"
    frame = cells(path, _ORIGIN, ("sweep", "V_volt", "R_ohm"))
    frame.insert(0, "device", 0)
    return _sweeps(frame, "reset", path)


def _sweeps(frame: pd.DataFrame, pulse: str, path: Path) -> Measurements:
    frame = frame.set_axis(["device", "sequence", "amplitude_v", "resistance_ohm"], axis="columns")
    frame["step"] = frame.groupby(["device", "sequence"]).cumcount()
    frame["pulse"] = pulse
    return measured(frame, path)
