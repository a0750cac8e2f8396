"""Time of one training step of the 784-250-10 network, beside plain torch in the same run.

    OMP_NUM_THREADS=1 python -m benchmarks.step

Inputs are as sparse as MNIST's (one pixel in five is on). Steps of all cases alternate, so that
the machine's drift hits them alike; a figure is the median over the rounds, after warm-up.
Writes benchmarks/results/step.md and step.json.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import mcatrain

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 10, 100)
WARM_UP, ROUNDS = 20, 200
_FLOAT32 = "torch float32, SGD"


def network() -> nn.Sequential:
    """The MLP of Nandakumar et al. 2020."""
    return nn.Sequential(nn.Linear(784, 250), nn.Sigmoid(), nn.Linear(250, 10), nn.Sigmoid())


def cases() -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
    """Return the networks to time, each with its optimizer, at a learning rate of 0.05."""
    lr, made = 0.05, {}
    model: nn.Module = network()
    made[_FLOAT32] = (model, torch.optim.SGD(model.parameters(), lr=lr))
    for name, factored in (("MCA, PCM pair", False), ("MCA, PCM pair, factored", True)):
        model = mcatrain.convert(network(), "nandakumar2018", initial="devices")
        made[name] = (model, mcatrain.MCA(model, torch.optim.SGD, lr=lr, factored=factored))
    for name, device in (("RPU, PCM pair", "nandakumar2018"), ("RPU, constant step", "gokmen2016")):
        model = mcatrain.convert(network(), device, periphery="rpu2016")
        made[name] = (model, mcatrain.RPU(model, lr=lr))
    return made


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Do one training step and return its time [s]."""
    start = time.perf_counter()
    loss = 0.5 * (model(x) - y).square().sum() / len(x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def measure(
    batch: int, made: dict[str, tuple[nn.Module, torch.optim.Optimizer]]
) -> dict[str, float]:
    """Return the median time of a step [ms] of every case."""
    generator = torch.Generator().manual_seed(batch)
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in range(WARM_UP + ROUNDS):
        x = torch.rand(batch, 784, generator=generator)
        x *= torch.rand(batch, 784, generator=generator) < 0.2
        y = torch.eye(10)[torch.randint(0, 10, (batch,), generator=generator)]
        for name, (model, optimizer) in made.items():
            seconds = step(model, optimizer, x, y)
            if number >= WARM_UP:
                times[name].append(seconds)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def table(figures: dict[int, dict[str, float]]) -> str:
    """Return the figures as Markdown: milliseconds, and the ratio to plain torch."""
    head = "| ms a step (ratio to float32) | " + " | ".join(f"batch {b}" for b in figures) + " |"
    rows = [head, "|" + "---|" * (len(figures) + 1)]
    for name in next(iter(figures.values())):
        cells = [f"{f[name]:.2f} ({f[name] / f[_FLOAT32]:.1f}x)" for f in figures.values()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure, print, and write the tables."""
    cpu = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    figures = {batch: measure(batch, cases()) for batch in BATCHES}
    setting = (
        f"784-250-10, median of {ROUNDS} steps, {torch.get_num_threads()} thread(s), {cpu}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, mcatrain "
        f"{mcatrain.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    command = "OMP_NUM_THREADS=1 python -m benchmarks.step"
    text = f"# Time of a training step\n\n{setting}\n\n{table(figures)}\n\n`{command}`\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "step.md").write_text(text)
    (RESULTS / "step.json").write_text(json.dumps({"setting": setting, "ms": figures}, indent=1))
    print(text)


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    main()
