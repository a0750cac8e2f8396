"""Resolution and rounding of the inputs of an RPU array, LSTM2-64 on War and Peace.

The experiment of Gokmen, Rasch & Haensch 2018.
"""

from benchmarks.papers.common import main
from benchmarks.papers.table import BITS, NATS, Budget, Row, Table

# The best of 0.1 (momentum), 1 and 4 for fp32 after one epoch, by test loss, seed 0. RPU takes the
# same: the gradient is a mean over the characters of a batch, and the pulses add up to lr times it.
LR = 4.0
LR_RPU = 4.0

TABLE = Table(
    name="rpu_lstm_input",
    title="Bits and rounding of RPU inputs, LSTM2-64 on War and Peace",
    paper="Gokmen, Rasch & Haensch, Front. Neurosci. 12:745 (2018), doi 10.3389/fnins.2018.00745",
    metrics=(NATS, BITS),
    base={
        "task": "lstm",
        "data": "warpeace",
        "device_model": "gokmen2016",
        "sequence": 100,
    },
    rows=(
        Row("fp32", {"rule": "fp32", "lr": LR}),
        Row(
            "RPU, 5 bits, nearest",
            {"rule": "rpu", "lr": LR_RPU, "input_bits": 5, "input_rounding": "nearest"},
            "loss rises with the width of the layers (verified)",
        ),
        Row(
            "RPU, 5 bits, stochastic",
            {"rule": "rpu", "lr": LR_RPU, "input_bits": 5, "input_rounding": "stochastic"},
            "follows float32 with an offset (verified)",
        ),
        Row(
            "RPU, 7 bits, nearest",
            {"rule": "rpu", "lr": LR_RPU, "input_bits": 7, "input_rounding": "nearest"},
            "follows float32 with an offset (verified)",
        ),
    ),
    budgets={
        "smoke": Budget(
            options={"hidden": "8,8", "epochs": 1, "train_limit": 7_000},
            minutes=0.5,
            note="7,000 characters, once; it shows that all runs, and nothing else.",
        ),
        "hour": Budget(
            options={"hidden": "64,64", "epochs": 1},
            seeds=(0, 1, 2),
            minutes=25,
            note="one epoch (the paper's number is not known to us), three seeds.",
        ),
        "full": Budget(
            options={"hidden": "64,64", "epochs": 30},
            seeds=(0, 1, 2),
            minutes=570,
            note="30 epochs (ours).",
        ),
    },
    note="Batches of 32 sequences are ours, and there is no dropout: the paper's rate is not "
    "known to us.",
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE))
