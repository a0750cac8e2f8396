"""MCA on MNIST, a perceptron of 784-250-10, with non-idealities of PCM switched off.

The experiment of Nandakumar et al. 2020: see --help.
"""

from benchmarks.papers.common import main
from benchmarks.papers.table import ACCURACY, Budget, Row, Table

LR = 0.4  # the paper's

TABLE = Table(
    name="mca_mlp_ablation",
    title="Which non-ideality of PCM costs MCA accuracy on MNIST",
    paper="Nandakumar et al., Front. Neurosci. 14:406 (2020), doi 10.3389/fnins.2020.00406",
    metrics=(ACCURACY,),
    base={"task": "mlp", "loss": "mse", "batch_size": 1, "lr": LR},
    rows=(
        Row("fp32", {"rule": "fp32"}, "98.3 software (verified); 98.11, 98.27 (simulated)"),
        Row("MCA", {"rule": "mca"}, "97.73 hardware (verified); 97.97, 97.93, 97.71 (simulated)"),
        Row(
            "MCA without write noise",
            {"rule": "mca", "without": "write-noise"},
            "98.17 (simulated)",
        ),
        Row(
            "MCA without read noise",
            {"rule": "mca", "without": "read-noise"},
            "97.91 (simulated)",
        ),
        Row(
            "MCA without write and read noise",
            {"rule": "mca", "without": "write-noise,read-noise"},
            "98.14 (simulated)",
        ),
        Row(
            "MCA without nonlinearity and history",
            {"rule": "mca", "without": "nonlinearity,history"},
        ),
        Row(
            "MCA with write noise alone",
            {"rule": "mca", "without": "nonlinearity,history,read-noise,drift"},
            "97.93 (simulated)",
        ),
        Row(
            "MCA without any",
            {"rule": "mca", "without": "nonlinearity,history,write-noise,read-noise,drift"},
            "98.18 (simulated)",
        ),
    ),
    budgets={
        "smoke": Budget(
            options={"data": "digits", "hidden": "32", "epochs": 2, "train_limit": 400},
            minutes=0.1,
            note="digits in place of MNIST, 2 epochs; it shows that all runs, and nothing else.",
        ),
        "hour": Budget(
            options={"data": "mnist", "hidden": "250", "epochs": 6},
            minutes=50,
            note="6 epochs of the paper's 30, one seed: differences below about 0.3 are chance.",
        ),
        "full": Budget(
            options={"data": "mnist", "hidden": "250", "epochs": 30},
            seeds=(0, 1, 2),
            minutes=720,
            note="the paper's 30 epochs.",
        ),
    },
    note="The simulated numbers are of 15 epochs, without converters and drift. What the paper "
    "calls hardware has its own PCM chip in the loop; ours is the device model.",
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE))
