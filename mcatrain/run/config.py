"""The options of a run, checked on construction; the command line is made from them."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import devicemodels
from devicemodels.errors import InputError, closest
from mcatrain.clock import SECONDS_PER_EXAMPLE
from mcatrain.periphery import preset

#: Periphery of a rule when none is named.
_PERIPHERY = {"fp32": "ideal", "mca": "mca", "rpu": "rpu2016"}
#: Learning rate by loss and base optimizer when none is given. mse with sgd: the MLP experiment of
#: Nandakumar et al. 2020; cross-entropy with sgd: Gokmen & Vlasov 2016; the rest are customary
#: starting points and were not tuned.
_LR = {
    ("mse", "sgd"): 0.4,
    ("mse", "momentum"): 0.04,
    ("mse", "adam"): 0.001,
    ("cross-entropy", "sgd"): 0.01,
    ("cross-entropy", "momentum"): 0.001,
    ("cross-entropy", "adam"): 0.001,
}
_LR_LIMIT = 3e37  # float32 ends at 3.4e38, and Adam divides by 0.1 at first
#: Options that change where a run is made, not what it computes.
_ELSEWHERE = ("out", "data_dir", "resume", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every run has, whether alone or in a comparison."""

    task: Literal["mlp"] = "mlp"
    """Network: mlp is fully connected, sigmoid hidden layers."""
    data: Literal["digits", "mnist"] = "digits"
    """Data set; digits ships with scikit-learn."""
    data_dir: str = ""
    """Folder of data sets (mnist/...); else MCATRAIN_DATA, else downloaded once."""
    train_limit: int | None = None
    """Use the first N training examples."""
    device_model: str = "nandakumar2018"
    """Device parameter file: a name from 'mcatrain devices' or a FILE.toml."""
    without: str = ""
    """PCM non-idealities to switch off: nonlinearity,history,write-noise,read-noise,drift."""
    periphery: str = ""
    """Converters: mca, rpu2016 or ideal; default mca for MCA, rpu2016 for RPU."""
    hidden: str = "250"
    """Hidden layers, e.g. 256,128."""
    loss: Literal["mse", "cross-entropy"] = "mse"
    """mse: half the summed square of a sigmoid output's error; cross-entropy: linear output."""
    epochs: int = 10
    """Passes over the training set."""
    batch_size: int = 1
    """Examples a step."""
    lr: float | None = None
    """Learning rate; default by loss and base optimizer (mse, sgd: 0.4; cross-entropy: 0.01)."""
    lr_schedule: Literal["thirds", "constant"] = "thirds"
    """thirds: halved at one and at two thirds of training."""
    base_optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    """What trains chi (MCA) or the weights (fp32); RPU is plain SGD."""
    epsilon: float | None = None
    """MCA: weight change that a pulse stands for; default the device's granularity."""
    refresh_every: int = 100
    """Examples between refreshes of saturated pairs; 0 for never."""
    pulse_length: int = 10
    """RPU: slots of a bit stream (BL), the most if --bl-management."""
    update_management: bool = True
    """RPU: balance the gains of the two streams (UM)."""
    bl_management: bool = False
    """RPU: as many slots as an example needs (BLM)."""
    sequential: bool = True
    """RPU: a batch's examples pulse one after the other; else their pulses are summed first."""
    seconds_per_example: float = SECONDS_PER_EXAMPLE
    """Simulated time of a training example [s]."""
    torch_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where tensors live; auto takes the CPU for batches under 32."""
    threads: int = 1
    """CPU threads of a run; it repeats bit for bit at the same number."""
    checkpoint_every: float = 30.0
    """Seconds between checkpoints within an epoch."""

    def __post_init__(self) -> None:
        lowest = {"epochs": 1, "batch_size": 1, "refresh_every": 0, "pulse_length": 1, "threads": 1}
        lowest |= {"learning_rate": 0, "seconds_per_example": 0, "checkpoint_every": 0}
        for name, low in lowest.items():
            value = getattr(self, name)
            if not (value >= low and math.isfinite(value)):
                flag = "--lr" if name == "learning_rate" else _flag(name)
                raise InputError(f"{flag} {value}: give a number of {low} or more")
        if self.train_limit is not None and self.train_limit < 1:
            raise InputError(f"--train-limit {self.train_limit}: give at least 1 example")
        if self.epsilon is not None and not 0 < self.epsilon < math.inf:
            raise InputError(
                f"--epsilon {self.epsilon}: give a positive weight change, or leave it out for "
                "the device's own"
            )
        if self.learning_rate > _LR_LIMIT:
            raise InputError(f"--lr {self.lr}: give a number up to {_LR_LIMIT:g}")
        self.hidden_layers  # noqa: B018 - raises for a bad list
        if self.periphery:
            preset(self.periphery)
        for name in self.switched_off:
            if name not in devicemodels.NONIDEALITIES:
                hint = closest(name, devicemodels.NONIDEALITIES)
                raise InputError(f"--without {name!r}: {hint}")

    @property
    def learning_rate(self) -> float:
        """The learning rate in force: the one given, or the task's own."""
        return _LR[self.loss, self.base_optimizer] if self.lr is None else self.lr

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        try:
            widths = tuple(int(part) for part in self.hidden.split(",") if part.strip())
        except ValueError:
            widths = (0,)
        if any(width < 1 for width in widths):
            raise InputError(f"--hidden {self.hidden!r}: give widths such as 250 or 256,128")
        return widths

    @property
    def switched_off(self) -> tuple[str, ...]:
        """The non-idealities of --without."""
        return tuple(part.strip() for part in self.without.split(",") if part.strip())


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """Train one network by one rule."""

    out: str
    """Run folder to write."""
    rule: Literal["fp32", "mca", "rpu"] = "mca"
    """fp32: plain torch; mca: mixed precision; rpu: stochastic pulsed update."""
    seed: int = 0
    """Of initial weights, devices, noise and the order of examples."""
    resume: bool = False
    """Go on from the last checkpoint in --out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule == "rpu" and self.base_optimizer != "sgd":
            raise InputError(
                f"--base-optimizer {self.base_optimizer} does not apply to rpu: its pulses are "
                "plain SGD; leave it out, or use --rule mca"
            )
        if self.rule != "fp32":
            self.load_device_model()

    def load_device_model(self) -> devicemodels.DeviceModel:
        """Load and check the device model, with --without applied."""
        return devicemodels.load(self.device_model).without(*self.switched_off)

    @property
    def periphery_name(self) -> str:
        """The periphery in force: the one named, or the rule's own."""
        return self.periphery or _PERIPHERY[self.rule]

    def table(self) -> dict[str, Any]:
        """Return the options as a flat table for config.toml."""
        table = asdict(self) | {"periphery": self.periphery_name, "lr": self.learning_rate}
        return {key: value for key, value in table.items() if value is not None}

    def require_same(self, saved: dict[str, Any], where: str) -> None:
        """Raise InputError when a saved run was made with other options than this one."""
        mine = self.table()
        # Options that decide the default of others come first, to name what the user changed.
        names = [item.name for item in fields(self) if item.name not in _ELSEWHERE]
        for name in sorted(names, key=lambda name: name in ("periphery", "lr")):
            if saved.get(name) != mine.get(name):
                raise InputError(
                    f"{where}: the run was made with {_flag(name)} {saved.get(name)}, not "
                    f"{mine.get(name)}: resume with the same options, or choose another --out"
                )


def read_config(path: Path) -> dict[str, Any]:
    """Read a run's config.toml."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}): is this a run folder?") from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
