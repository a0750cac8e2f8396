"""Time of one training step of an MLP, a CNN and an LSTM, beside plain torch in the same run.

    OMP_NUM_THREADS=1 python -m benchmarks.step

The MLP's inputs are as sparse as MNIST's (one pixel in five is on). Steps of all cases alternate,
so that the machine's drift hits them alike; a figure is the median over the rounds, after warm-up.
Writes benchmarks/results/step.md and step.json.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mcatrain
from benchmarks.machine import cpu
from mcatrain.tasks.cnn import cifar10_network
from mcatrain.tasks.lstm import CharacterModel

RESULTS = Path(__file__).parent / "results"
_FLOAT32 = "torch float32, SGD"
Case = tuple[nn.Module, torch.optim.Optimizer]
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Bench:
    """A network, batches to train it on, and how often."""

    title: str
    cases: Callable[[], dict[str, Case]]
    draw: Draw
    batches: tuple[int, ...]
    warm_up: int
    rounds: int


def mlp() -> nn.Sequential:
    """784-250-10, the MLP of Nandakumar et al. 2020, without its last sigmoid."""
    return nn.Sequential(nn.Linear(784, 250), nn.Sigmoid(), nn.Linear(250, 10))


class Scores(CharacterModel):
    """The character model as a network that gives scores alone, (batch time, vocabulary)."""

    def forward(self, codes: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(codes, None)[0].flatten(0, 1)


def mlp_cases() -> dict[str, Case]:
    """Both rules, on the PCM pair and on the constant-step device."""
    made = {_FLOAT32: _float32(mlp())}
    for name, factored in (("MCA, PCM pair", False), ("MCA, PCM pair, factored", True)):
        model = mcatrain.convert(mlp(), "nandakumar2018", initial="devices")
        made[name] = (model, mcatrain.MCA(model, torch.optim.SGD, lr=0.05, factored=factored))
    for name, device in (("RPU, PCM pair", "nandakumar2018"), ("RPU, constant step", "gokmen2016")):
        made[name] = _rpu(mlp(), device)
    return made


def large_cases(network: Callable[[], nn.Module]) -> dict[str, Case]:
    """MCA with and without converters, RPU on the constant-step device."""
    made = {_FLOAT32: _float32(network())}
    for name, periphery in (
        ("MCA, PCM pair, 8-bit converters", "mca"),
        ("MCA, PCM pair, ideal converters", "ideal"),
    ):
        model = mcatrain.convert(network(), "nandakumar2018", beta="7sd", periphery=periphery)
        made[name] = (model, mcatrain.MCA(model, torch.optim.SGD, lr=0.05))
    made["RPU, constant step"] = _rpu(network(), "gokmen2016")
    return made


def _float32(model: nn.Module) -> Case:
    return model, torch.optim.SGD(model.parameters(), lr=0.05)


def _rpu(network: nn.Module, device: str) -> Case:
    model = mcatrain.convert(network, device, periphery="rpu2016")
    return model, mcatrain.RPU(model, lr=0.05)


def _pixels(batch: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.rand(batch, 784, generator=chance)
    x *= torch.rand(batch, 784, generator=chance) < 0.2
    return x, torch.randint(0, 10, (batch,), generator=chance)


def _images(batch: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.rand(batch, 3, 32, 32, generator=chance) * 2 - 1
    return x, torch.randint(0, 10, (batch,), generator=chance)


def _text(batch: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    codes = torch.randint(0, 87, (batch, 101), generator=chance)
    return codes[:, :-1], codes[:, 1:].flatten()


BENCHES = (
    Bench("784-250-10", mlp_cases, _pixels, (1, 10, 100), 20, 200),
    Bench(
        "CNN of CIFAR-10, 1.47 M weights",
        lambda: large_cases(lambda: cifar10_network(10, 0.0)),
        _images,
        (50,),
        1,
        7,
    ),
    *(
        Bench(
            f"LSTM 2 x {width}, sequences of 100, 87 characters",
            lambda width=width: large_cases(lambda: Scores(87, (width, width), 0.0)),  # type: ignore[misc]
            _text,
            (32,),
            1,
            7,
        )
        for width in (64, 256)
    ),
)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Do one training step and return its time [s]."""
    start = time.perf_counter()
    loss = cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def measure(bench: Bench, batch: int) -> dict[str, float]:
    """Return the median time of a step [ms] of every case."""
    made = bench.cases()
    chance = torch.Generator().manual_seed(batch)
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in range(bench.warm_up + bench.rounds):
        x, y = bench.draw(batch, chance)
        for name, (model, optimizer) in made.items():
            seconds = step(model, optimizer, x, y)
            if number >= bench.warm_up:
                times[name].append(seconds)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def table(bench: Bench, figures: dict[int, dict[str, float]]) -> str:
    """Return the figures as Markdown: milliseconds, and the ratio to plain torch."""
    head = "| ms a step (ratio to float32) | " + " | ".join(f"batch {b}" for b in figures) + " |"
    rows = [f"## {bench.title}", "", f"Median of {bench.rounds} steps.", ""]
    rows += [head, "|" + "---|" * (len(figures) + 1)]
    for name in next(iter(figures.values())):
        cells = [f"{f[name]:.2f} ({f[name] / f[_FLOAT32]:.1f}x)" for f in figures.values()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure, print, and write the tables."""
    setting = (
        f"{torch.get_num_threads()} thread(s), {cpu()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, mcatrain {mcatrain.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    command = "OMP_NUM_THREADS=1 python -m benchmarks.step"
    parts = [f"# Time of a training step\n\n{setting}\n\n`{command}`"]
    found = {}
    for bench in BENCHES:
        found[bench.title] = {batch: measure(bench, batch) for batch in bench.batches}
        parts.append(table(bench, found[bench.title]))
        print(parts[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "step.md").write_text("\n\n".join(parts) + "\n")
    (RESULTS / "step.json").write_text(json.dumps({"setting": setting, "ms": found}, indent=1))


if __name__ == "__main__":
    main()
