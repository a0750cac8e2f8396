"""Reading after training: the metric against time, on the run's devices or programmed ones."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

import mcatrain
from devicemodels.errors import InputError
from devicemodels.state import derive_seed
from devicemodels.synapses.programmed import ProgrammedPair, Verification
from mcatrain.compensation import Calibration, recalibrate_batchnorm
from mcatrain.nn.convert import convert, unconvert
from mcatrain.run.evaluate_options import OWN, WRITE_VERIFY, EvaluateConfig
from mcatrain.run.folder import write_json
from mcatrain.run.rules import devices_by_layer
from mcatrain.run.summary import versions
from mcatrain.run.trained import Trained, load_trained
from mcatrain.tile import apart, tiles

#: Of write-verify where nothing is said.
_TOLERANCE_US, _MOST_WRITES = 0.5, 10


def evaluate(config: EvaluateConfig, command: list[str]) -> dict[str, Any]:
    """Evaluate a run, write RUN/evaluation.json and return what it holds.

    The run itself (checkpoint, metrics, result) is not changed. Everything random comes from
    the run's seed and the number of the chip. Raises InputError for bad input.
    """
    folder = Path(config.run)
    with torch.random.fork_rng(devices=[]):
        run = load_trained(folder, config.data_dir)
        entries, programming = [], []
        for device, way in config.places(run.device):
            place = _Place(config, run, way)
            entries += [{"device": device, **entry} for entry in place.entries()]
            if way != OWN:
                programming.append({"device": device, "programming": way, **place.cost()})
    body = {
        **{key: run.result.get(key) for key in ("task", "rule", "data", "seed", "epochs")},
        "device": run.device,
        "metric": run.task.metric,
        "end_of_training": run.metric_at_end,
        "times_s": config.seconds,
        "chips": config.chips,
        "entries": entries,
        "programming": programming,
        "options": asdict(config),
        "command": shlex.join(["mcatrain", *command[1:]]),
        "versions": versions(),
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
            with apart(model, f"{self.way}, chip {chip}, reference"):
                calibration = Calibration(model)
            for time_s in config.seconds:
                clock.now_s = start_s + time_s
                at = f"{self.way}, chip {chip}, {time_s} s"
                with apart(model, f"{at}, calibration"):
                    factors = calibration.factors()
                for kind in config.compensations:
                    calibration.use(factors.get(kind))
                    # The same random numbers for every compensation: they differ by it alone.
                    with apart(model, at):
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
        plain = copy.deepcopy(self.plain).cpu()
        model = convert(
            plain,
            self.config.device_model,
            seed=derive_seed(options.seed, f"programmed chip {chip}"),
            periphery=periphery,
            bias=options.bias,
            array_size=options.array_limit,
            **devices_by_layer(self._devices_per_weight, plain),
        )
        for tile in tiles(model).values():
            pairs = getattr(tile.synapse, "array", tile.synapse)
            assert isinstance(pairs, ProgrammedPair)
            if self.way == WRITE_VERIFY:
                self.took.append(pairs.verify(*self._limits))
            else:
                number = 2 * pairs.size
                self.took.append(Verification(number, number, 0, 0.0))
        return model.to(self.run.task.device)

    @property
    def _devices_per_weight(self) -> str:
        return self.config.devices_per_weight or self.run.config.devices_per_weight

    @property
    def _limits(self) -> tuple[float, int]:
        """Tolerance [µS] and most writes of write-verify."""
        given = self.config
        return given.tolerance or _TOLERANCE_US, given.most_writes or _MOST_WRITES

    def cost(self) -> dict[str, Any]:
        """Return what the programming of a chip took, in the mean over chips."""
        devices = sum(one.devices for one in self.took)
        found: dict[str, Any] = {
            "devices_per_weight": self._devices_per_weight,
            "devices": devices // self.config.chips,
            "writes": sum(one.writes for one in self.took) / self.config.chips,
            "verify_reads": sum(one.reads for one in self.took) / self.config.chips,
        }
        if self.way == WRITE_VERIFY:
            near = sum(one.converged * one.devices for one in self.took)
            found["converged"] = near / devices
            found["tolerance_us"], found["most_writes"] = self._limits
        return found


def _recalibrate(model: nn.Module, feed: Callable[[], object]) -> None:
    try:
        recalibrate_batchnorm(model, feed)
    except InputError as error:
        raise InputError(f"--recalibrate-batchnorm: {error}: leave it out") from None


def _statistics(measured: list[float | None]) -> dict[str, float | None]:
    known = [value for value in measured if value is not None]
    if len(known) < len(measured):
        return {"mean": None, "sd": None}
    return {"mean": mean(known), "sd": stdev(known) if len(known) > 1 else None}
