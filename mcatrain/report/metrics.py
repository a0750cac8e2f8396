"""What tells how good a training was, and what the losses of a task are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcatrain.run.records import number


@dataclass(frozen=True)
class Metric:
    """What a training is judged by: where it is in the files and how to write it.

    point: what a difference of one is called, "" where only the metric's name can say it.
    note: what a reader must know of it, a sentence.
    """

    key: str
    name: str
    unit: str
    point: str
    digits: int
    scale: float
    higher_is_better: bool
    note: str = ""

    @property
    def title(self) -> str:
        return self.name[0].upper() + self.name[1:]


#: The first of these that the runs have heads the report.
METRICS = (
    Metric("test_accuracy", "test accuracy", "%", "point", 2, 100.0, True),
    Metric(
        "bits_per_character", "bits per character", "bits", "bit", 4, 1.0, False,
        "Bits per character are what the model needs to tell the next character of the test text, "
        "its test loss [nats] divided by ln 2: lower is better.",
    ),
    Metric(
        "frechet_distance", "Fréchet distance", "feature units²", "", 2, 1.0, False,
        "The Fréchet distance is that of generated images to the test images in the features of a "
        "fixed classifier: lower is better, 0 would be the same distribution. It compares with "
        "other runs here, not with published numbers of another classifier.",
    ),
    Metric("test_loss", "test loss", "nats", "nat", 4, 1.0, False),
)  # fmt: skip


@dataclass(frozen=True)
class Losses:
    """What the losses of the runs are called, their unit, and how to take them."""

    name: str
    unit: str
    meaning: str


def losses_of(config: dict[str, Any]) -> Losses:
    """Return what a run's losses are, which the options task and loss decide."""
    lower = "lower is better"
    if config.get("task") == "gan":
        return Losses(
            "discriminator loss",
            "nats",
            "half real, half generated images: 0.693 (ln 2) is a discriminator that cannot tell "
            "them apart, so neither high nor low is better",
        )
    if config.get("task") == "lstm":
        return Losses("loss", "nats per character", lower)
    return Losses("loss", "half squared error" if config.get("loss") == "mse" else "nats", lower)


def in_words(metrics: dict[str, Any]) -> str:
    """Return the metric that a run is judged by, with its name, in one line."""
    for metric in METRICS:
        if metric.key in metrics:
            value = number(metrics[metric.key])
            if value is None:
                return f"{metric.name}: not a number"
            if metric.unit == "%":
                return f"{metric.name} {value:.2%}"
            return f"{metric.name} {value:.4f} {metric.unit}"
    return "nothing was measured"
