"""What a task takes when nothing else is said, and which data it works on."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class TaskDefaults:
    """Options that differ by task; ``data``: the sets it works on, its own first."""

    data: tuple[str, ...]
    hidden: str
    loss: str
    batch_size: int
    base_optimizer: str
    beta: str
    initial: str
    bias: str = "analog"
    momentum: float = 0.9


#: Options of `TaskDefaults` that are left to the task while they are empty.
LEFT_TO_THE_TASK = tuple(item.name for item in fields(TaskDefaults) if item.name != "data")

TASKS = {
    "mlp": TaskDefaults(
        data=("digits", "mnist", "cifar10"),
        hidden="250",
        loss="mse",
        batch_size=1,
        base_optimizer="sgd",
        beta="file",
        initial="devices",
    ),
    "cnn": TaskDefaults(
        data=("cifar10", "mnist", "digits"),
        hidden="",
        loss="cross-entropy",
        batch_size=10,
        base_optimizer="sgd",
        beta="3.5sd",
        initial="weights",
    ),
    "lstm": TaskDefaults(
        data=("warpeace", "ptb"),
        hidden="64,64",
        loss="cross-entropy",
        batch_size=32,
        base_optimizer="sgd",
        beta="10sd",
        initial="weights",
    ),
    "gan": TaskDefaults(
        data=("mnist", "digits"),
        hidden="256,128",
        loss="cross-entropy",
        batch_size=50,
        base_optimizer="momentum",
        bias="digital",
        momentum=0.5,
        beta="7sd",
        initial="weights",
    ),
}

#: Periphery of a rule when none is named.
PERIPHERY = {"fp32": "ideal", "mca": "mca", "rpu": "rpu2016"}

#: Learning rate by task, loss and base optimizer when none is given. mlp: mse with sgd is the
#: experiment of Nandakumar et al. 2020, cross-entropy with sgd that of Gokmen & Vlasov 2016; the
#: rest are customary starting points.
_LR = {
    ("mlp", "mse", "sgd"): 0.4,
    ("mlp", "mse", "momentum"): 0.04,
    ("mlp", "cross-entropy", "sgd"): 0.01,
    ("mlp", "cross-entropy", "momentum"): 0.001,
    ("cnn", "mse", "sgd"): 0.1,
    ("cnn", "mse", "momentum"): 0.01,
    ("cnn", "cross-entropy", "sgd"): 0.05,
    ("cnn", "cross-entropy", "momentum"): 0.005,
    ("lstm", "cross-entropy", "sgd"): 4.0,
    ("lstm", "cross-entropy", "momentum"): 0.4,
    ("gan", "cross-entropy", "sgd"): 0.3,
    ("gan", "cross-entropy", "momentum"): 0.3,
}
_LR_ADAM = 0.001


def learning_rate(task: str, loss: str, base_optimizer: str) -> float:
    """Return the learning rate of a task when none is given."""
    return _LR.get((task, loss, base_optimizer), _LR_ADAM)
