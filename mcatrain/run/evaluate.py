"""Reading after training: the metric against time, on the run's devices or programmed ones."""

from __future__ import annotations

import copy
import math
import platform
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import tyro
from torch import nn

import devicemodels
import mcatrain
from devicemodels.errors import InputError, closest
from devicemodels.state import derive_seed
from devicemodels.synapses.programmed import ProgrammedPair, Verification
from mcatrain.compensation import KINDS, Calibration, recalibrate_batchnorm
from mcatrain.nn.convert import convert, unconvert
from mcatrain.periphery import preset
from mcatrain.run import values
from mcatrain.run.folder import write_json
from mcatrain.run.times import times_s
from mcatrain.run.trained import Trained, load_trained
from mcatrain.tile import tiles

OWN, PROGRAMMED = "own", "programmed"
OPEN_LOOP, WRITE_VERIFY = "open-loop", "write-verify"
_TOLERANCE_US, _MOST_WRITES = 0.5, 10


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
        times_s(self.times)  # raises for what cannot be read
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
        if self.programming and self.on and PROGRAMMED not in values.names(self.on):
            raise InputError(
                f"--programming {self.programming}: nothing is programmed with --on {self.on}"
            )
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

    def places(self, run: Trained) -> list[tuple[str, str]]:
        """Return (device model, programming or 'own') of all that is read."""
        on = values.names(self.on) or ((PROGRAMMED,) if run.device is None else (OWN, PROGRAMMED))
        if OWN in on and run.device is None:
            raise InputError(
                f"--on {OWN}: {self.run} was trained by fp32, which has no devices: use --on "
                f"{PROGRAMMED}"
            )
        found = [(str(run.device), OWN)] if OWN in on else []
        if PROGRAMMED in on:
            ways = values.names(self.programming) or (OPEN_LOOP,)
            found += [(self.device_model.name, way) for way in ways]
        return found


def evaluate(config: EvaluateConfig, command: list[str]) -> dict[str, Any]:
    """Evaluate a run, write RUN/evaluation.json and return what it holds.

    The run itself (checkpoint, metrics, result) is not changed. Everything random comes from
    the run's seed and the number of the chip. Raises InputError for bad input.
    """
    folder = Path(config.run)
    with torch.random.fork_rng(devices=[]):
        run = load_trained(folder, config.data_dir)
        entries, programming = [], []
        for device, way in config.places(run):
            place = _Place(config, run, way)
            entries += [{"device": device, **entry} for entry in place.entries()]
            if way != OWN:
                programming.append({"device": device, "programming": way, **place.cost()})
    body = {
        **{key: run.result.get(key) for key in ("task", "rule", "data", "seed", "epochs")},
        "device": run.device,
        "metric": run.task.metric,
        "end_of_training": run.metric_at_end,
        "times_s": times_s(config.times),
        "chips": config.chips,
        "entries": entries,
        "programming": programming,
        "options": asdict(config),
        "command": shlex.join(["mcatrain", *command[1:]]),
        "versions": {
            "mcatrain": mcatrain.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    write_json(folder / "evaluation.json", body)
    return body


class _Place:
    """What is read: the run's own devices, or its weights programmed in one way."""

    def __init__(self, config: EvaluateConfig, run: Trained, way: str) -> None:
        self.config, self.run, self.way = config, run, way
        self.took: list[Verification] = []
        if way != OWN:
            # As they read at the end of training: what a host would program.
            self.plain = copy.deepcopy(run.model)
            if run.device is not None:
                self.plain = unconvert(self.plain)

    def entries(self) -> list[dict[str, Any]]:
        """Return an entry for each time and compensation: mean and spread over chips."""
        found: dict[tuple[float, str], list[float | None]] = {}
        for chip in range(self.config.chips):
            for key, value in self._read(chip):
                found.setdefault(key, []).append(value)
        return [
            {
                "programming": self.way,
                "time_s": time_s,
                "compensation": kind,
                "batchnorm_recalibrated": self.config.recalibrate_batchnorm,
                "chips": self.config.chips,
                **_statistics(measured),
                "values": measured,
            }
            for (time_s, kind), measured in found.items()
        ]

    def _read(self, chip: int) -> Iterator[tuple[tuple[float, str], float | None]]:
        """Yield ((time, compensation), metric) of one chip."""
        run, config = self.run, self.config
        model, arrays = self._chip(chip)
        clock = arrays[0].clock
        start_s = clock.now_s
        try:
            with _apart(model, f"{self.way}, chip {chip}, reference"):
                calibration = Calibration(model)
            for time_s in times_s(config.times):
                clock.now_s = start_s + time_s
                at = f"{self.way}, chip {chip}, {time_s} s"
                with _apart(model, f"{at}, calibration"):
                    factors = calibration.factors()
                for kind in config.compensations:
                    calibration.use(factors.get(kind))
                    # The same random numbers for every compensation: they differ by it alone.
                    with _apart(model, at):
                        if config.recalibrate_batchnorm:
                            _recalibrate(model, lambda: run.task.feed(model))
                        value = run.task.evaluate(model)[run.task.metric]
                    yield (time_s, kind), value if math.isfinite(value) else None
            calibration.use(None)
        finally:
            clock.now_s = start_s

    def _chip(self, chip: int) -> tuple[nn.Module, list[mcatrain.Tile]]:
        """Return a chip's model and its tiles, at the time from which the others count."""
        model = copy.deepcopy(self.run.model) if self.way == OWN else self._programmed(chip)
        arrays = list(tiles(model).values())
        for tile in arrays:
            tile.synapse.read_exactly()
        return model.eval(), arrays

    def _programmed(self, chip: int) -> nn.Module:
        options = self.run.config
        periphery: Any = self.config.periphery
        if not periphery:
            periphery = "mca" if self.run.device is None else options.rule_periphery
        model = convert(
            copy.deepcopy(self.plain).cpu(),
            self.config.device_model,
            seed=derive_seed(options.seed, f"programmed chip {chip}"),
            periphery=periphery,
            bias=options.bias,
            array_size=options.array_limit,
        )
        for tile in tiles(model).values():
            assert isinstance(tile.synapse, ProgrammedPair)
            most = 1 if self.way == OPEN_LOOP else self.config.most_writes or _MOST_WRITES
            tolerance = self.config.tolerance or _TOLERANCE_US
            if self.way == WRITE_VERIFY:
                self.took.append(tile.synapse.verify(tolerance, most))
            else:
                number = 2 * tile.synapse.size
                self.took.append(Verification(number, number, 0, 0.0))
        return model.to(self.run.task.device)

    def cost(self) -> dict[str, Any]:
        """Return what the programming of a chip took, in the mean over chips."""
        devices = sum(one.devices for one in self.took)
        found: dict[str, Any] = {
            "devices": devices // self.config.chips,
            "writes": sum(one.writes for one in self.took) / self.config.chips,
            "verify_reads": sum(one.reads for one in self.took) / self.config.chips,
        }
        if self.way == WRITE_VERIFY:
            near = sum(one.converged * one.devices for one in self.took)
            found["converged"] = near / devices
            found["tolerance_us"] = self.config.tolerance or _TOLERANCE_US
            found["most_writes"] = self.config.most_writes or _MOST_WRITES
        return found


def _recalibrate(model: nn.Module, feed: Callable[[], object]) -> None:
    try:
        recalibrate_batchnorm(model, feed)
    except InputError as error:
        raise InputError(f"--recalibrate-batchnorm: {error}: leave it out") from None


@contextmanager
def _apart(model: nn.Module, purpose: str) -> Iterator[None]:
    """Draw from streams of this purpose, and leave those of the model where they were."""
    with ExitStack() as streams:
        for tile in tiles(model).values():
            streams.enter_context(tile.chance.fork(purpose))
        yield


def _statistics(measured: list[float | None]) -> dict[str, float | None]:
    known = [value for value in measured if value is not None]
    if len(known) < len(measured):
        return {"mean": None, "sd": None}
    return {"mean": mean(known), "sd": stdev(known) if len(known) > 1 else None}
