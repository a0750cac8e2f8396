"""What each technique of RPU training brings to a convolutional network on MNIST.

The experiment of Gokmen, Onen & Haensch 2017: noise and bound management (NM, BM), update
management (UM) with streams of one slot (BL 1), several devices for each weight of a layer.
"""

from typing import Any

from benchmarks.papers.common import main
from benchmarks.papers.table import ERROR, Budget, Row, Table

LR = 0.01  # the paper's

_PLAIN: dict[str, Any] = {
    "rule": "rpu",
    "noise_management": "off",
    "bound_management": "off",
    "update_management": False,
    "pulse_length": 10,
}
_NM_BM = _PLAIN | {"noise_management": "on", "bound_management": "on"}
_UM = _NM_BM | {"update_management": True, "pulse_length": 1}

TABLE = Table(
    name="rpu_cnn_techniques",
    title="Techniques of RPU training, convolutional network on MNIST",
    paper="Gokmen, Onen & Haensch, Front. Neurosci. 11:538 (2017), doi 10.3389/fnins.2017.00538",
    metrics=(ERROR,),
    base={
        "task": "cnn",
        "device_model": "gokmen2016",
        "loss": "cross-entropy",
        "batch_size": 1,
        "lr": LR,
        "lr_schedule": "constant",
    },
    rows=(
        Row("fp32", {"rule": "fp32"}, "0.8 (recalled)"),
        Row("RPU, no management", _PLAIN, "about 10 (recalled)"),
        Row("RPU, NM and BM", _NM_BM, "about 1.7 (recalled)"),
        Row("RPU, NM, BM, UM, BL 1", _UM, "1.1 (recalled)"),
        Row(
            "RPU, the same, 13 devices on conv2",
            _UM | {"devices_per_weight": "conv2=13"},
            "0.8 (recalled)",
        ),
    ),
    budgets={
        "smoke": Budget(
            options={"data": "digits", "epochs": 1, "train_limit": 200},
            minutes=0.1,
            note="digits and a small network; it shows that all runs, and nothing else.",
        ),
        "hour": Budget(
            options={"data": "mnist", "epochs": 3, "train_limit": 10_000},
            minutes=15,
            note="3 epochs of a sixth of the images, of the paper's 30 of all, one seed.",
        ),
        "full": Budget(
            options={"data": "mnist", "epochs": 30},
            seeds=(0, 1, 2),
            minutes=2_300,
            note="the paper's 30 epochs.",
        ),
    },
    note="The learning rate is constant (ours: the paper's schedule is not known to us).",
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE))
