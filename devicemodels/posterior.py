"""The uncertainty of a fitted device: the posterior draws beside a parameter file."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from devicemodels.errors import InputError

#: The group of the netCDF file with draws of the device's own constants, (draws, ...) each.
GROUP = "device"
_KEYS = ("file", "sha256")


@dataclass(frozen=True)
class PosteriorFile:
    """Where the draws of a parameter file's constants are kept; read when they are asked for."""

    path: Path
    sha256: str

    @cached_property
    def draws(self) -> dict[str, NDArray[np.float64]]:
        """Constants of the device by name, (draws, ...) each, in the parameter file's units.

        Raises InputError for a file that is missing or not the one the fit wrote.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{self.path}: the posterior cannot be read ({error.strerror}): keep it beside its "
                "parameter file, or fit again"
            ) from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(
                f"{self.path}: is not the posterior that the parameter file was written with: "
                "restore it, or fit again"
            )
        import h5netcdf  # slow to load, and seldom needed

        with h5netcdf.File(BytesIO(content), "r") as file:
            return {name: np.asarray(v[...], float) for name, v in file[GROUP].variables.items()}

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(next(iter(self.draws.values())))

    def text(self, parameters: str, index: int) -> str:
        """Return the text of a parameter file with the constants of draw ``index``.

        parameters: the file's own text. What was not fitted stays, and so does what the training
        goes by: granularity and synapse are the designer's, who knows the means; the draw is what
        the chip is like.
        """
        table: dict[str, Any] = tomllib.loads(parameters)
        del table["posterior"]
        for name, values in self.draws.items():
            entry = table["device"][name]
            value = values[index].tolist()
            if isinstance(value, list):
                entry["values"] = value
            else:
                entry["value"] = value
                entry["range"] = [min(value, entry["range"][0]), max(value, entry["range"][1])]
        table["title"] += f", posterior draw {index}"
        return tomli_w.dumps(table)


def posterior_of(table: Any, where: str, folder: Path) -> PosteriorFile:
    """Read the section [posterior] of a parameter file in ``folder``. Raises InputError."""
    if not (
        isinstance(table, dict)
        and set(table) == set(_KEYS)
        and all(isinstance(table[key], str) for key in _KEYS)
    ):
        raise InputError(
            f'{where}: [posterior] is damaged: write file = "NAME.nc" and its sha256, or leave the '
            "section out"
        )
    return PosteriorFile(folder / table["file"], table["sha256"])
