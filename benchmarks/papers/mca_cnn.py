"""MCA on CIFAR-10: nine layers, six of them convolutions, against float32.

The experiment of Nandakumar et al. 2020, with widths of our choice: see mcatrain.tasks.cnn.
"""

from benchmarks.papers.common import main
from benchmarks.papers.table import ACCURACY, Budget, Row, Table

# 0.05 with batches of 10: 0.1 diverges in fp32, and MCA takes the same. Chosen on 10,000 images.
LR = 0.05

TABLE = Table(
    name="mca_cnn",
    title="MCA against float32 on CIFAR-10, nine layers",
    paper="Nandakumar et al., Front. Neurosci. 14:406 (2020), doi 10.3389/fnins.2020.00406",
    metrics=(ACCURACY,),
    base={"task": "cnn", "base_optimizer": "sgd", "lr": LR},
    rows=(
        Row("fp32", {"rule": "fp32"}, "86.24 ± 0.19 (recalled)"),
        Row("MCA", {"rule": "mca"}, "86.46 ± 0.25 (recalled)"),
    ),
    budgets={
        "smoke": Budget(
            options={"data": "digits", "epochs": 2, "batch_size": 5, "train_limit": 400},
            minutes=0.1,
            note="digits and a network of four layers; it shows that all runs, and nothing else.",
        ),
        "hour": Budget(
            options={
                "data": "cifar10",
                "epochs": 3,
                "batch_size": 10,
                "train_limit": 40_000,
                "dropout": 0.0,
            },
            minutes=70,
            note="3 epochs of 40,000 images, without dropout, which slows so short a training: far "
            " from the paper's accuracy; the gap at equal training is what it shows.",
        ),
        "full": Budget(
            options={"data": "cifar10", "epochs": 60, "batch_size": 50},
            seeds=(0, 1, 2),
            minutes=4_400,
            note="the whole set, 60 epochs in batches of 50 (both ours); meant for a GPU.",
        ),
    },
    note="The widths of the layers are ours (1.47 M weights; the paper's about 1.5 M, recalled).",
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE))
