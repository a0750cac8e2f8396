"""A device model: a device's constants and their sources; varied, and built into synapses."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from devicemodels.devices.ideal import IdealArray, IdealParameters
from devicemodels.devices.pcm import PCMParameters
from devicemodels.devices.programmed import ProgrammedPCMParameters
from devicemodels.devices.step import (
    ExpStepParameters,
    LinearStepParameters,
    SoftBoundsParameters,
    StepArray,
    StepParameters,
)
from devicemodels.devices.table import TableArray, TableParameters
from devicemodels.errors import InputError, closest, reject_unknown
from devicemodels.posterior import PosteriorFile
from devicemodels.quantities import Parameters, Quantity, is_number
from devicemodels.state import Chance
from devicemodels.synapses.base import Synapse
from devicemodels.synapses.bipolar import SingleBipolar
from devicemodels.synapses.pair import DifferentialPair, PairParameters
from devicemodels.synapses.programmed import ProgrammedPair
from devicemodels.synapses.several import SELECTIONS, SeveralDevices

#: Device types a parameter file can name, and the parameters each one needs.
DEVICE_TYPES: dict[str, type[Parameters]] = {
    "pcm": PCMParameters,
    "programmed-pcm": ProgrammedPCMParameters,
    "constant-step": StepParameters,
    "linear-step": LinearStepParameters,
    "soft-bounds": SoftBoundsParameters,
    "exponential-step": ExpStepParameters,
    "table": TableParameters,
    "ideal": IdealParameters,
}


@dataclass(frozen=True)
class DeviceModel:
    """A checked parameter file: what device, with which constants, from which sources.

    device and synapse hold the values in use; quantities and text those of the file, which
    differ after `without` or `vary`. posterior: of a fitted device, draws of its constants.
    """

    name: str
    device_type: str
    title: str
    publication: str
    note: str
    device: Parameters
    synapse: PairParameters | None
    quantities: tuple[Quantity, ...]
    text: str
    posterior: PosteriorFile | None = None

    @property
    def trains(self) -> bool:
        """Whether the devices take training pulses, not only a programming."""
        return not isinstance(self.device, ProgrammedPCMParameters)

    @property
    def full_us(self) -> float | None:
        """Conductance [µS] up to which weights are placed; None for devices that hold weights."""
        if isinstance(self.device, ProgrammedPCMParameters):
            return self.device.g_max
        return None if self.synapse is None else self.synapse.refresh_above

    def without(self, *nonidealities: str) -> DeviceModel:
        """Return the model with PCM non-idealities switched off (see PCMParameters.without)."""
        if not nonidealities:
            return self
        if not isinstance(self.device, PCMParameters):
            raise InputError(
                f"cannot switch off {', '.join(nonidealities)} on {self.name!r}: only PCM models "
                f"have these; for a {self.device_type} device change its parameter file"
            )
        return replace(self, device=self.device.without(*nonidealities))

    def vary(self, **changes: float) -> DeviceModel:
        """Return the model with constants of the device or the pair changed, for ablations.

        The values obey the limits of physics, not the narrower range of the file. Nothing else
        follows: a PCM model keeps its mean_step (the granularity) when its response changes.
        Raises InputError for an unknown name, a value that is no number, an impossible value.
        """
        if not changes:
            return self
        parts = {"device": self.device} | ({"synapse": self.synapse} if self.synapse else {})
        home = {item.name: part for part, owner in parts.items() for item in fields(owner)}
        where = f"changes of {self.name!r}"
        reject_unknown(changes, home, where, "constant")
        changed: dict[str, Any] = {}
        for part, owner in parts.items():
            mine = {k: _number(v, k, where) for k, v in changes.items() if home[k] == part}
            try:
                changed[part] = replace(owner, **mine)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
        return replace(self, **changed)

    def build(
        self,
        shape: tuple[int, int],
        chance: Chance,
        *,
        devices_per_weight: int = 1,
        selection: str | None = None,
        zero_shift: int = 0,
        **options: Any,
    ) -> Synapse:
        """Make a synapse of ``shape`` (out, in) with fresh devices drawn from ``chance``.

        devices_per_weight: devices (PCM: pairs) whose mean is a weight. selection: which of
        them take a pulse, 'all' or 'counter' (see SeveralDevices); None: 'counter' for PCM, else
        'all'. zero_shift: up/down pulse pairs that bring every step device to its symmetry point,
        the weight's zero from then on (see SingleBipolar.zero_shift); 0: none.
        options (pairs only): beta [µS per unit weight]; of those that train, drift_tolerance.
        Raises InputError for an option that is impossible or does not apply to the device.
        """
        number = _count("devices_per_weight", devices_per_weight, 1)
        if selection not in (None, *SELECTIONS):
            raise InputError(
                f"selection = {selection!r}: {closest(str(selection), SELECTIONS)}, or None"
            )
        pairs = _count("zero_shift", zero_shift, 0)
        # The devices of a weight lie in one array, each set of them below the last.
        synapse = self._single((number * shape[0], shape[1]), chance, options)
        if pairs:
            if not isinstance(synapse, SingleBipolar):
                raise InputError(
                    f"zero_shift does not apply to {self.name!r}: a PCM pair has no symmetry "
                    "point; only step and table devices have"
                )
            synapse.zero_shift(pairs)
        if number == 1:
            return synapse
        usual = "counter" if isinstance(self.device, PCMParameters) else "all"
        return SeveralDevices(synapse, number, selection or usual)

    def _single(self, shape: tuple[int, int], chance: Chance, options: dict[str, Any]) -> Synapse:
        if isinstance(self.device, PCMParameters):
            assert self.synapse is not None
            reject_unknown(options, ("beta", "drift_tolerance"), self.name, "option")
            beta = options.pop("beta", None)
            pair = self.synapse if beta is None else replace(self.synapse, beta=beta)
            return DifferentialPair(shape, self.device, pair, chance, **options)
        if isinstance(self.device, ProgrammedPCMParameters):
            reject_unknown(options, ("beta",), self.name, "option")
            return ProgrammedPair(shape, self.device, chance, **options)
        if options:
            raise InputError(
                f"{', '.join(options)} does not apply to {self.name!r}: its devices hold weights "
                "directly; only PCM pairs have it"
            )
        size = shape[0] * shape[1]
        if isinstance(self.device, StepParameters):
            step = StepArray(size, self.device, chance)
            return SingleBipolar(shape, step, self.device.dw_min, chance)
        if isinstance(self.device, TableParameters):
            tabled = TableArray(size, self.device, chance)
            return SingleBipolar(shape, tabled, self.device.granularity, chance)
        assert isinstance(self.device, IdealParameters)
        ideal = IdealArray(size, self.device, chance)
        return SingleBipolar(shape, ideal, self.device.step, chance)


def _number(value: Any, name: str, where: str) -> float:
    if not is_number(value):
        raise InputError(f"{where}: {name} = {value!r} is not a number")
    try:
        return float(value)
    except OverflowError:  # an integer can be too large for a float
        raise InputError(f"{where}: {name} is too large for a number") from None


def _count(name: str, value: Any, least: int) -> int:
    if not (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        raise InputError(f"{name} = {value!r}: give a whole number of at least {least}")
    return value


def parse_changes(text: str) -> dict[str, float]:
    """Read ``"dw_min_dtod=0,up_down_dtod=0.02"``, what `DeviceModel.vary` takes; "" is none.

    Raises InputError for a part that is not NAME=NUMBER and for a name given twice.
    """
    changes: dict[str, float] = {}
    for part in text.split(",") if text.strip() else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = None
        if number is None or not equals or not name:
            raise InputError(
                f"changed constants {text!r}: {part.strip()!r} is not NAME=NUMBER; write e.g. "
                "dw_min_dtod=0,up_down_dtod=0.02"
            )
        if name in changes:
            raise InputError(f"changed constants {text!r}: {name} is given twice; give it once")
        changes[name] = number
    return changes
