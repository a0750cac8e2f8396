"""The options of every run, checked on construction; the command line is made from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import devicemodels
from devicemodels.errors import InputError, closest
from mcatrain import energy
from mcatrain.clock import SECONDS_PER_EXAMPLE
from mcatrain.periphery import Periphery, preset
from mcatrain.run import defaults, trackers, values

Rule = Literal["fp32", "mca", "rpu"]
Switch = Literal["preset", "on", "off"]

_LR_LIMIT = 3e37  # float32 ends at 3.4e38, and Adam divides by 0.1 at first


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every run has, whether alone or in a comparison."""

    task: Literal["mlp", "cnn", "lstm", "gan"] = "mlp"
    """mlp: fully connected; cnn: convolutional; lstm: language model of characters; gan:
    generator and discriminator of images."""
    data: str = ""
    """Data set: digits (ships with scikit-learn), mnist, cifar10; lstm: warpeace, ptb."""
    data_dir: str = ""
    """Folder of data sets (mnist/...); else MCATRAIN_DATA, else downloaded once."""
    train_limit: int | None = None
    """Use the first N training examples (lstm: characters)."""
    device_model: str = "nandakumar2018"
    """Device parameter file: a name from 'mcatrain devices' or a FILE.toml."""
    without: str = ""
    """PCM non-idealities to switch off: nonlinearity,history,write-noise,read-noise,drift."""
    vary: str = ""
    """Constants of the device model to change, e.g. dw_min_dtod=0,up_down_dtod=0.06."""
    periphery: str = ""
    """Converters: mca, rpu2016 or ideal; default mca for MCA, rpu2016 for RPU."""
    input_bits: int | None = None
    """Bits of the DACs, forward and backward, if not the periphery's; 0 for ideal ones."""
    input_rounding: Literal["preset", "nearest", "stochastic"] = "preset"
    """Rounding of the DACs."""
    noise_management: Switch = "preset"
    """NM, forward and backward: inputs are scaled by their largest."""
    bound_management: Switch = "preset"
    """BM, forward and backward: an output at its bound halves the inputs and is read again."""
    beta: str = ""
    """PCM pairs: conductance of a weight of 1 [uS], 'file' for the device model's, or Nsd, such as
    3.5sd: devices reach the refresh threshold at N standard deviations of the layer's initial
    weights; default file for mlp, else by task."""
    initial: Literal["", "devices", "weights"] = ""
    """PCM pairs start as fabricated (devices) or hold the network's initial weights (weights);
    default devices for mlp, else weights."""
    bias: Literal["", "analog", "digital"] = ""
    """Biases: a column of the array (analog) or ordinary numbers (digital); default analog, for gan
    digital: a dark pixel needs a larger one than devices hold."""
    array_size: str = ""
    """Largest array, ROWSxCOLUMNS; larger layers are split."""
    devices_per_weight: str = "1"
    """Devices a weight: N for all layers, or LAYER=N,... such as conv2=13."""
    zero_shift: int = 0
    """Step devices: pulse pairs of the symmetry-point measurement; 0 for none."""
    hidden: str = ""
    """Hidden layers, e.g. 256,128; default 250 (mlp), 64,64 (lstm), 256,128 (gan)."""
    loss: Literal["", "mse", "cross-entropy"] = ""
    """mse: half the summed square of a sigmoid output's error; cross-entropy: linear output;
    default mse for mlp."""
    dropout: float | None = None
    """Share dropped in training: lstm, of non-recurrent connections (default 0); cnn of cifar10,
    after every pool and full layer (default 0.25 and 0.5)."""
    sequence: int = 100
    """lstm: characters in a sequence."""
    epochs: int = 10
    """Passes over the training set."""
    batch_size: int | None = None
    """Examples a step (lstm: sequences); default 1 (mlp), 10 (cnn), 32 (lstm), 50 (gan)."""
    lr: float | None = None
    """Learning rate; default by task, loss and base optimizer (mlp, mse, sgd: 0.4)."""
    lr_schedule: Literal["thirds", "linear", "constant"] = "thirds"
    """thirds: halved at one and at two thirds of training; linear: falls evenly to 0."""
    base_optimizer: Literal["", "sgd", "momentum", "adam"] = ""
    """What trains chi (MCA) or the weights (fp32); default sgd, for gan momentum. RPU is plain
    SGD."""
    momentum: float | None = None
    """Of base optimizer momentum; default 0.9, for gan 0.5."""
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
    sequential: Literal["default", "on", "off"] = "default"
    """RPU: examples pulse one after the other (on), or their pulses are summed first (off);
    default on where an example is one vector, off for convolutions and sequences."""
    seconds_per_example: float = SECONDS_PER_EXAMPLE
    """Simulated time of a training example [s]."""
    torch_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where tensors live; auto takes the CPU for batches under 32."""
    threads: int = 1
    """CPU threads of a run; it repeats bit for bit at the same number."""
    checkpoint_every: float = 30.0
    """Seconds between checkpoints within an epoch."""
    budget: Literal["examples", "pulses", "energy"] = "examples"
    """What --budget-amount limits; training ends at the step that spends it, or after --epochs.
    The schedule of the learning rate stays that of --epochs."""
    budget_amount: float | None = None
    """Training examples, device pulses (SET and RESET), or energy [J]; default no limit."""
    energy_model: str = "nandakumar2020"
    """Energies and times of operations: a name, or a FILE.toml ('mcatrain energy' prints it)."""
    wear: bool = False
    """Count the pulses of every device: 8 bytes a device more."""
    endurance: float | None = None
    """Pulses that a device stands: tell the share of devices above (needs --wear)."""
    pulse_log: bool = False
    """Write every pulse to OUT/pulses/*.parquet; it can be replayed."""
    tracker: str | None = None
    """Show the run elsewhere too: tensorboard (pip install 'mcatrain[tracking]'; event files in
    OUT/tensorboard), or MODULE:CLASS, a tracker of your own (see mcatrain.run.trackers)."""
    sample: int = 0
    """lstm: characters to write with the trained model, into sample.txt."""

    def __post_init__(self) -> None:
        own = defaults.TASKS[self.task]
        if not self.data:
            object.__setattr__(self, "data", own.data[0])
        if self.data not in own.data:
            raise InputError(
                f"--data {self.data!r}: task {self.task} works on {', '.join(own.data)}"
            )
        for name in defaults.LEFT_TO_THE_TASK:
            if getattr(self, name) in ("", None):
                object.__setattr__(self, name, getattr(own, name))
        self._check_numbers()
        self._check_task()
        self._check_accounts()
        for name in ("hidden_layers", "array_limit", "devices", "layer_beta", "changes"):
            getattr(self, name)  # raises for what cannot be read
        self.converters("mca")
        for name in self.switched_off:
            if name not in devicemodels.NONIDEALITIES:
                hint = closest(name, devicemodels.NONIDEALITIES)
                raise InputError(f"--without {name!r}: {hint}")

    def _check_task(self) -> None:
        """Refuse what does not apply to the task, lest it be thought to have done something."""
        if self.task == "cnn" and self.hidden:
            raise InputError(f"--hidden {self.hidden!r}: the cnn's layers are fixed; leave it out")
        if self.task in ("lstm", "gan") and self.loss != "cross-entropy":
            raise InputError(
                f"--loss {self.loss}: task {self.task} has cross-entropy; leave it out"
            )
        drops = self.task == "lstm" or (self.task, self.data) == ("cnn", "cifar10")
        if self.dropout is not None and not drops:
            raise InputError(
                f"--dropout {self.dropout}: only the lstm and the cnn of cifar10 take it; leave "
                "it out"
            )
        of_text = {"sample": "writes text", "sequence": "reads sequences"}
        for name, what in of_text.items():
            value = getattr(self, name)
            if self.task != "lstm" and value != Options.__dataclass_fields__[name].default:
                raise InputError(f"{flag(name)} {value}: only task lstm {what}; leave it out")

    def _check_accounts(self) -> None:
        if self.tracker is not None:
            trackers.find(self.tracker)
        energy.load(self.energy_model)
        amount = self.budget_amount
        if amount is None and self.budget != "examples":
            unit = {"pulses": "how many device pulses", "energy": "how many joules"}[self.budget]
            raise InputError(f"--budget {self.budget}: say {unit} with --budget-amount")
        if amount is not None and not 0 < amount < math.inf:
            raise InputError(f"--budget-amount {amount}: give a positive number")
        if self.endurance is not None and not 0 < self.endurance < math.inf:
            raise InputError(f"--endurance {self.endurance}: give a positive number of pulses")
        if self.endurance is not None and not self.wear:
            raise InputError("--endurance: who had how many pulses is known with --wear: add it")

    def _check_numbers(self) -> None:
        lowest = {"epochs": 1, "batch_size": 1, "refresh_every": 0, "pulse_length": 1, "threads": 1}
        lowest |= {"learning_rate": 0, "seconds_per_example": 0, "checkpoint_every": 0}
        lowest |= {"zero_shift": 0, "sequence": 1, "sample": 0}
        for name, low in lowest.items():
            value = getattr(self, name)
            if not (value >= low and math.isfinite(value)):
                given = "--lr" if name == "learning_rate" else flag(name)
                raise InputError(f"{given} {value}: give a number of {low} or more")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"--dropout {self.dropout}: give a share from 0 to below 1")
        if not 0 <= (self.momentum or 0.0) < 1:
            raise InputError(f"--momentum {self.momentum}: give a number from 0 to below 1")
        if self.train_limit is not None and self.train_limit < 1:
            raise InputError(f"--train-limit {self.train_limit}: give at least 1 example")
        if self.input_bits not in (None, 0, *range(2, 25)):
            raise InputError(f"--input-bits {self.input_bits}: give 2 to 24 bits, or 0 for ideal")
        if self.epsilon is not None and not 0 < self.epsilon < math.inf:
            raise InputError(
                f"--epsilon {self.epsilon}: give a positive weight change, or leave it out for "
                "the device's own"
            )
        if self.learning_rate > _LR_LIMIT:
            raise InputError(f"--lr {self.lr}: give a number up to {_LR_LIMIT:g}")

    @property
    def learning_rate(self) -> float:
        """The learning rate in force: the one given, or the task's own."""
        if self.lr is not None:
            return self.lr
        return defaults.learning_rate(self.task, self.loss, self.base_optimizer)

    @property
    def batch(self) -> int:
        """Examples a step: ``batch_size``, which is no longer None once options are made."""
        assert self.batch_size is not None
        return self.batch_size

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return values.widths(self.hidden)

    @property
    def array_limit(self) -> tuple[int, int] | None:
        """Rows and columns of the largest array, None for any size."""
        return values.array_limit(self.array_size)

    @property
    def devices(self) -> dict[str, int]:
        """Devices a weight by layer; '' stands for the layers that are not named."""
        return values.devices(self.devices_per_weight)

    @property
    def layer_beta(self) -> float | str | None:
        """The beta that layers are made with, None for the device model's."""
        return values.beta(self.beta)

    @property
    def switched_off(self) -> tuple[str, ...]:
        """The non-idealities of --without."""
        return values.names(self.without)

    @property
    def changes(self) -> dict[str, float]:
        """The constants of --vary and their values."""
        try:
            return devicemodels.parse_changes(self.vary)
        except InputError as error:
            raise InputError(f"--vary: {error}") from None

    def converters(self, rule: Rule) -> Periphery:
        """Return the periphery of a rule: the preset with what is changed of it."""
        base = preset(self.periphery_name(rule))
        changed: dict[str, Any] = {}
        if self.input_bits is not None:
            changed["input_bits"] = self.input_bits or None
        if self.input_rounding != "preset":
            changed["input_rounding"] = self.input_rounding
        for name in ("noise_management", "bound_management"):
            if getattr(self, name) != "preset":
                changed[name] = getattr(self, name) == "on"
        return Periphery(
            forward=replace(base.forward, **changed), backward=replace(base.backward, **changed)
        )

    def periphery_name(self, rule: Rule) -> str:
        """Return the name of the periphery in force: the one named, or the rule's own."""
        return self.periphery or defaults.PERIPHERY[rule]


def shared(options: Options) -> dict[str, Any]:
    """Return what a run takes over from the options of a comparison."""
    return {item.name: getattr(options, item.name) for item in fields(Options)}


def flag(name: str) -> str:
    """Return the command line's name of an option."""
    return "--" + name.replace("_", "-")
