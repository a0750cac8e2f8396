"""The options of an evaluation, checked on construction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import tyro

import devicemodels
from devicemodels.errors import InputError, closest
from mcatrain.compensation import KINDS
from mcatrain.periphery import preset
from mcatrain.run import values
from mcatrain.run.times import times_s

OWN, PROGRAMMED = "own", "programmed"
OPEN_LOOP, WRITE_VERIFY = "open-loop", "write-verify"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluate a finished run at times after the end of its training."""

    run: tyro.conf.Positional[str]
    """Folder of the run."""
    times: str = "1s,1h,1d,30d,1y"
    """Times after the end of training, or after programming, rising; units s, m or min, h, d, y."""
    compensation: str = "none,global,column"
    """Of drift, digital: none; global: one factor a layer; column: one an output."""
    recalibrate_batchnorm: bool = False
    """Measure the statistics of batch norm anew at each time, on generated or training inputs."""
    on: str = ""
    """own: the devices that were trained, in their state; programmed: the trained weights written
    once to other devices; default both, for fp32 programmed."""
    program_on: str = "joshi2020"
    """Device model that is programmed: a name from 'mcatrain devices' or a FILE.toml."""
    programming: str = ""
    """open-loop: each device is written once; write-verify: read and written anew while it misses
    its target; default open-loop."""
    tolerance: float | None = None
    """write-verify: largest miss of a read that is left as it is [uS]; default 0.5."""
    most_writes: int | None = None
    """write-verify: most writes of a device; default 10."""
    devices_per_weight: str = ""
    """Programmed pairs whose mean is a weight: N, or LAYER=N,...; default as in training."""
    periphery: str = ""
    """Converters of programmed arrays: mca, rpu2016 or ideal; default the run's, for fp32 mca."""
    chips: int = 5
    """Repeat on this many chips: own devices with read noise of their own, programmed ones with
    devices of their own too."""
    data_dir: str = ""
    """Folder of data sets, if not the run's."""

    def __post_init__(self) -> None:
        if self.chips < 1:
            raise InputError(f"--chips {self.chips}: give at least 1")
        _ = self.seconds  # raises for what cannot be read
        for option, given, known in (
            ("--compensation", self.compensations, KINDS),
            ("--on", values.names(self.on), (OWN, PROGRAMMED)),
            ("--programming", values.names(self.programming), (OPEN_LOOP, WRITE_VERIFY)),
        ):
            if len(set(given)) < len(given):
                raise InputError(f"{option} {','.join(given)}: give each once")
            for name in given:
                if name not in known:
                    raise InputError(f"{option} {name!r}: {closest(name, known)}")
        if not self.compensations:
            raise InputError(f"--compensation: give some of {', '.join(KINDS)}")
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise InputError(f"--tolerance {self.tolerance}: give a positive conductance [uS]")
        if self.most_writes is not None and self.most_writes < 1:
            raise InputError(f"--most-writes {self.most_writes}: give at least 1")
        for option, value in (
            ("--tolerance", self.tolerance), ("--most-writes", self.most_writes),
        ):  # fmt: skip
            if value is not None and WRITE_VERIFY not in values.names(self.programming):
                raise InputError(f"{option} {value}: needs --programming write-verify")
        if self.devices_per_weight:
            values.devices(self.devices_per_weight)  # raises for what cannot be read
        for option, text in (
            ("--programming", self.programming), ("--devices-per-weight", self.devices_per_weight),
        ):  # fmt: skip
            if text and self.on and PROGRAMMED not in values.names(self.on):
                raise InputError(f"{option} {text}: nothing is programmed with --on {self.on}")
        if self.periphery:
            preset(self.periphery)  # raises for an unknown name

    @property
    def compensations(self) -> tuple[str, ...]:
        """The kinds of --compensation."""
        return values.names(self.compensation)

    @cached_property
    def device_model(self) -> devicemodels.DeviceModel:
        """The device model that is programmed."""
        model = devicemodels.load(self.program_on)
        if model.trains:
            raise InputError(
                f"--program-on {self.program_on}: a {model.device_type} model states no error "
                "of programming: take joshi2020 or one like it"
            )
        return model

    @property
    def seconds(self) -> list[float]:
        """The times [s]."""
        return times_s(self.times)

    def places(self, device: str | None) -> list[tuple[str, str]]:
        """Return (device model, programming or 'own') of all that is read.

        device: that of the run, None for fp32, which has no devices of its own: InputError if
        they are asked for.
        """
        on = values.names(self.on) or ((PROGRAMMED,) if device is None else (OWN, PROGRAMMED))
        if OWN in on and device is None:
            raise InputError(
                f"--on {OWN}: {self.run} was trained by fp32, which has no devices: use --on "
                f"{PROGRAMMED}"
            )
        found = [(str(device), OWN)] if OWN in on else []
        if PROGRAMMED in on:
            ways = values.names(self.programming) or (OPEN_LOOP,)
            found += [(self.device_model.name, way) for way in ways]
        return found
