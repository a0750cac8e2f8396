"""What a calibration model is: constants with priors, and the likelihood of a device's reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyro
import torch
from matplotlib.figure import Figure
from torch import Tensor

from calibration.measurements import Measurements
from calibration.models.data import Data
from calibration.models.priors import median

if TYPE_CHECKING:
    from calibration.fit import Posterior

#: Constants by name, each of one shape (draws...,): () in a Pyro program, (n,) for n draws.
Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Constant:
    """A constant of the population: its unit, its meaning, its prior (a Pyro distribution).

    prior: None of a figure that follows from the rest of a posterior known in closed form.
    """

    name: str
    unit: str
    about: str
    prior: Any


class CalibrationModel(ABC):
    """Devices drawn from a population with these constants, and reads from the devices."""

    name: ClassVar[str]
    #: device_type of the parameter file that a fit writes; "" while no device has its constants.
    device_type: ClassVar[str]
    #: Models of one family describe the same reads, so that their densities compare; "": none does.
    family: ClassVar[str] = ""
    #: A read of 0 stands for all that lie below: its likelihood is a probability, not a density.
    clips: ClassVar[bool] = False
    constants: tuple[Constant, ...]

    @abstractmethod
    def prepare(self, measurements: Measurements) -> Data:
        """Return the reads as tensors. Raises InputError for a table that lacks what is needed."""

    def start(self, data: Any) -> dict[str, Tensor]:
        """Return constants of shape () from which the mode can be found: the priors' medians."""
        return {c.name: median(c.prior) for c in self.constants}

    def exact(self, data: Any, draws: int, chance: torch.Generator) -> dict[str, Tensor] | None:
        """Return draws (draws, ...) of a posterior known in closed form; None: it must be found."""
        return None

    @abstractmethod
    def log_likelihood(self, values: Values, data: Any) -> Tensor:
        """Return ln p(reads of a device | constants), (draws..., devices)."""

    def log_density(self, values: Values, data: Any) -> Tensor:
        """Return ln p(reads of a device in the table's unit | constants), (draws..., devices).

        For a model whose `log_likelihood` is that of another variable: with the Jacobian.
        """
        return self.log_likelihood(values, data)

    @abstractmethod
    def replicate(self, values: Values, data: Any, chance: torch.Generator) -> Tensor:
        """Return reads that the same experiment might have given, for constants of shape ()."""

    @abstractmethod
    def groups(self, data: Any) -> tuple[str, list[tuple[float, Tensor]]]:
        """Return the axis along which data and replicates are shown, and reads of equal place.

        The axis' label with its unit; places, ascending, and which reads (rows, columns) bool
        belong to each.
        """

    def pictures(self, posterior: Posterior, data: Any) -> list[tuple[str, str, Figure]]:
        """Return what a report shows of this model beside what it shows of all.

        Of each picture its title, in words what it shows (without a full stop), and the figure.
        """
        return []

    def program(self, data: Data, batch: int | None = None) -> None:
        """The Pyro program: priors, then the devices (``batch`` of them drawn at random)."""
        values = {c.name: pyro.sample(c.name, c.prior) for c in self.constants}
        with pyro.plate("devices", len(data), subsample_size=batch) as chosen:
            assert chosen is not None
            part = data if batch is None else data.take(chosen)
            pyro.factor("reads", self.log_likelihood(values, part))
