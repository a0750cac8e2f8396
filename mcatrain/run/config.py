"""The options of one run, as its folder keeps them."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import devicemodels
from devicemodels.errors import InputError
from mcatrain.periphery import Periphery
from mcatrain.run.options import Options, Rule, flag

#: Options that change where a run is made or what is done with it later, not what it computes.
_ELSEWHERE = ("out", "data_dir", "resume", "checkpoint_every", "sample", "jobs", "tracker")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """Train one network by one rule."""

    out: str
    """Run folder to write."""
    rule: Rule = "mca"
    """fp32: plain torch; mca: mixed precision; rpu: stochastic pulsed update."""
    seed: int = 0
    """Of initial weights, devices, noise and the order of examples."""
    device_seed: int | None = None
    """Of devices and their noise, if not --seed's."""
    chips: int | None = None
    """Train this many chips, each with its own devices and, of a fitted device model, its own draw
    of the posterior; the spread is told apart by seed, devices and parameters. Fully connected
    networks (mlp) on the CPU train up to 16 chips step by step together, in much less time than
    one after the other; other tasks, and runs with a budget (each chip's own), train chip after
    chip."""
    jobs: int = 1
    """Processes, each with its share of the chips."""
    resume: bool = False
    """Go on from the last checkpoint in --out."""

    def __post_init__(self) -> None:
        if self.rule == "rpu" and not self.base_optimizer:
            object.__setattr__(self, "base_optimizer", "sgd")
        super().__post_init__()
        if self.rule == "rpu" and self.base_optimizer != "sgd":
            raise InputError(
                f"--base-optimizer {self.base_optimizer} does not apply to rpu: its pulses are "
                "plain SGD; leave it out, or use --rule mca"
            )
        self._check_chips()
        if self.rule == "fp32":
            if self.budget == "pulses":
                raise InputError(
                    "--budget pulses: fp32 sends no pulses and would never spend it; take "
                    "--budget energy or examples, or leave fp32 out"
                )
            for name in ("wear", "pulse_log"):
                if getattr(self, name):
                    raise InputError(f"{flag(name)}: fp32 has no devices; leave it out")
        if self.rule != "fp32":
            self._check_trains(self.load_device_model())

    def _check_chips(self) -> None:
        for name in ("chips", "device_seed"):
            if self.rule == "fp32" and getattr(self, name) is not None:
                raise InputError(f"{flag(name)}: fp32 has no devices; leave it out")
        if self.chips is not None and self.chips < 1:
            raise InputError(f"--chips {self.chips}: give at least 1")
        if self.chips is not None and self.device_seed is not None:
            raise InputError("--device-seed: every chip has its own; leave it out with --chips")
        if self.jobs < 1 or (self.jobs > 1 and not self.chips):
            raise InputError(f"--jobs {self.jobs}: chips at a time: give --chips, or leave it out")

    def _check_trains(self, model: devicemodels.DeviceModel) -> None:
        if not model.trains:
            raise InputError(
                f"--device-model {self.device_model}: its devices are programmed once and read, "
                "never trained: train on nandakumar2018, say, then 'mcatrain evaluate' programs "
                f"the trained weights with --program-on {self.device_model}"
            )

    def load_device_model(self) -> devicemodels.DeviceModel:
        """Load and check the device model, with --without and --vary applied."""
        model = devicemodels.load(self.device_model).without(*self.switched_off)
        try:
            return model.vary(**self.changes)
        except InputError as error:
            raise InputError(f"--vary: {error}") from None

    @property
    def rule_periphery(self) -> Periphery:
        """The converters of this run."""
        return self.converters(self.rule)

    def table(self) -> dict[str, Any]:
        """Return the options as a flat table for config.toml."""
        in_force = {"periphery": self.periphery_name(self.rule), "lr": self.learning_rate}
        return {key: value for key, value in (asdict(self) | in_force).items() if value is not None}

    def require_same(self, saved: dict[str, Any], where: str) -> None:
        """Raise InputError when a saved run was made with other options than this one."""
        mine = self.table()
        # Options that decide the default of others come first, to name what the user changed.
        names = [item.name for item in fields(self) if item.name not in _ELSEWHERE]
        for name in sorted(names, key=lambda name: name in ("periphery", "lr")):
            if saved.get(name) != mine.get(name):
                raise InputError(
                    f"{where}: the run was made with {flag(name)} {saved.get(name)}, not "
                    f"{mine.get(name)}: resume with the same options, or choose another --out"
                )


def read_config(path: Path) -> dict[str, Any]:
    """Read a run's config.toml."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): is this a run folder?") from None
