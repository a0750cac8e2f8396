"""Speed on a CUDA card: the pass over chi, a step of a wide MLP, epochs of the CIFAR-10 CNN.

    python -m benchmarks.gpu [--cnn-seconds 600]

First every kernel is compared with the reference on the card: the tests of the kernels, then at
the sizes timed here. Targets: a pass over chi at 70 % of the speed of a copy, a step of the MLP
within 1.3x of plain torch, 200 epochs in ten minutes. Writes benchmarks/results/gpu.md and
gpu.json; exits with 2 where torch finds no card, with 1 where a kernel differs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mcatrain
from benchmarks.gpu_pairs import EPSILON, Pairs, agrees, check, factors, pcm
from devicemodels import kernels as device_kernels
from mcatrain import kernels
from mcatrain.tasks.cnn import cifar10_network

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/devicemodels/test_kernels.py",
    "tests/layers/test_training_kernels.py",
    "tests/layers/test_program_kernel.py",
)
#: Training images of CIFAR-10 that the paper's split trains on.
EPOCH = 40_000


@dataclass(frozen=True)
class Sizes:
    """What is timed; the default is what the targets are stated for."""

    device: torch.device
    width: int = 8192
    rounds: int = 50
    hidden: int = 4096
    batch: int = 256
    images: int = 100
    cnn_seconds: float = 60.0
    cnn_lr: float = 0.02


def seconds(run: Callable[[], object], s: Sizes) -> float:
    """Return the median time of a run [s], after three to warm up."""
    for _ in range(3):
        run()
    times = []
    for _ in range(s.rounds):
        _wait(s.device)
        start = time.perf_counter()
        run()
        _wait(s.device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def chi_pass(s: Sizes) -> dict[str, float]:
    """Return the time of each pass [ms], and of a copy that moves as many bytes of chi."""
    state, (x, d), device = Pairs.make(s.width, s.device), factors(s.width, s.device), pcm()
    other = torch.empty_like(state.chi)

    def gathered() -> object:
        return kernels.accumulate(state.chi, x[0], d[0], -1e-5, EPSILON)

    def read() -> None:
        state.due_s.zero_()
        state.read(device, 1e4)

    runs: dict[str, Callable[[], object]] = {
        "copy of chi (read and write)": lambda: other.copy_(state.chi),
        "accumulate": gathered,
        "accumulate, pulse and read": lambda: state.update(x[0], d[0], -1e-5, device),
        "all of it in one pass": lambda: state.update_at_once(x[0], d[0], -1e-5, device),
        "spend": lambda: kernels.spend(state.chi, EPSILON),
        "read of all pairs": read,
    }
    found = {name: 1e3 * seconds(run, s) for name, run in runs.items()}
    with device_kernels.use("reference"):
        found["accumulate, plain torch"] = 1e3 * seconds(gathered, s)
    return found


@contextmanager
def _precision(name: str) -> Iterator[None]:
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(kept)


def mlp_steps(s: Sizes) -> dict[str, dict[str, float]]:
    """Return the time of a step [ms] of a network of three layers, by precision and case.

    Beside each layer's three products of torch, noisy reads have two of variances, in bfloat16.
    """
    g = torch.Generator(s.device).manual_seed(2)
    x = torch.randn(s.batch, s.hidden, generator=g, device=s.device)
    y = torch.randint(0, s.hidden, (s.batch,), generator=g, device=s.device)

    def network() -> nn.Sequential:
        layers = [nn.Linear(s.hidden, s.hidden) for _ in range(3)]
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def case(periphery: str | None) -> Callable[[], object]:
        model: nn.Module = network()
        if periphery is None:
            model = model.to(s.device)
            optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        else:
            model = mcatrain.convert(model, "nandakumar2018", periphery=periphery, beta="7sd")
            model = model.to(s.device)
            optimizer = mcatrain.MCA(model, torch.optim.SGD, lr=0.01)
        return lambda: step(model, optimizer, x, y)

    cases = {
        "torch, SGD": None,
        "MCA, PCM pair, ideal converters": "ideal",
        "MCA, PCM pair, 8-bit converters": "mca",
    }
    found: dict[str, dict[str, float]] = {}
    for precision, setting in (("float32", "highest"), ("tf32", "high")):
        with _precision(setting):
            found[precision] = {n: 1e3 * seconds(case(p), s) for n, p in cases.items()}
    return found


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """Do one training step."""
    optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    optimizer.step()


def cnn_epochs(s: Sizes) -> dict[str, float]:
    """Return the epochs of the CIFAR-10 network in ten minutes, from steps on random images."""
    g = torch.Generator(s.device).manual_seed(3)
    x = torch.rand(s.images, 3, 32, 32, generator=g, device=s.device) * 2 - 1
    y = torch.randint(0, 10, (s.images,), generator=g, device=s.device)
    found = {}
    for name, periphery in (("ideal converters", "ideal"), ("8-bit converters", "mca")):
        model = mcatrain.convert(
            cifar10_network(10), "nandakumar2018", beta="7sd", periphery=periphery
        ).to(s.device)
        optimizer = mcatrain.MCA(model, torch.optim.SGD, lr=s.cnn_lr)
        step(model, optimizer, x, y)
        _wait(s.device)
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < s.cnn_seconds:
            step(model, optimizer, x, y)
            steps += 1
        _wait(s.device)
        each = (time.perf_counter() - start) / steps
        found[name] = 600 / (each * EPOCH / s.images)
    return found


def report(s: Sizes, passes: dict[str, float], steps: dict[str, dict[str, float]],
           epochs: dict[str, float], setting: str) -> str:  # fmt: skip
    """Return the figures as Markdown, each beside its target."""
    copy, one = passes["copy of chi (read and write)"], "accumulate"
    lines = [f"# Speed on a CUDA card\n\n{setting}\n\n`python -m benchmarks.gpu`\n"]
    lines += [f"## Passes over {s.width} x {s.width} pairs, median of {s.rounds}\n"]
    lines += [f"Share of a copy's speed, {one}: {copy / passes[one]:.0%} (target 70 %).\n"]
    lines += ["| pass | ms | ms / copy |", "|---|---|---|"]
    lines += [f"| {n} | {ms:.3f} | {ms / copy:.2f} |" for n, ms in passes.items()]
    lines += [f"\n## A step of {s.hidden}-{s.hidden}-{s.hidden}-{s.hidden}, batch {s.batch}\n"]
    lines += [
        "Target 1.3x plain torch.\n",
        "| precision | case | ms | ratio |",
        "|---|---|---|---|",
    ]
    for precision, cases in steps.items():
        plain = next(iter(cases.values()))
        lines += [f"| {precision} | {n} | {t:.2f} | {t / plain:.2f}x |" for n, t in cases.items()]
    lines += [f"\n## CNN of CIFAR-10, batch {s.images}, epochs of {EPOCH} images in ten minutes\n"]
    lines += [f"Target 200. From {s.cnn_seconds:g} s of steps on random images each.\n"]
    lines += ["| case | epochs |", "|---|---|"] + [f"| {n} | {e:.0f} |" for n, e in epochs.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Check, measure, print, and write the tables; return the exit status."""
    parser = argparse.ArgumentParser(description="Speed on a CUDA card.")
    parser.add_argument("--cnn-seconds", type=float, default=60.0, help="seconds of CNN steps")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: torch finds no CUDA card here: run it on a machine with one",
              file=sys.stderr)  # fmt: skip
        return 2
    s = Sizes(torch.device("cuda"), cnn_seconds=options.cnn_seconds)
    if device_kernels.form("mcatrain.kernels", torch.empty(1, device=s.device)).__name__ != (
        "mcatrain.kernels.cuda"
    ):
        print("benchmarks.gpu: triton is missing: pip install 'mcatrain[gpu]'", file=sys.stderr)
        return 2
    tests = subprocess.run([sys.executable, "-m", "pytest", *TESTS, "-k", "cuda"], cwd=ROOT)
    far = check(s.width, s.device)
    print(json.dumps(far, indent=1))
    if tests.returncode or not agrees(far):
        print("benchmarks.gpu: a kernel differs from the reference, see above", file=sys.stderr)
        return 1
    setting = (
        f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, mcatrain "
        f"{mcatrain.__version__}, {time.strftime('%Y-%m-%d')}. The kernels passed their tests on "
        "this card first, and agree with the reference at the size timed."
    )
    passes, steps, epochs = chi_pass(s), mlp_steps(s), cnn_epochs(s)
    text = report(s, passes, steps, epochs, setting)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.md").write_text(text)
    figures = {"setting": setting, "ms": passes, "step_ms": steps, "cnn_epochs": epochs}
    (RESULTS / "gpu.json").write_text(json.dumps(figures | {"check": far}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
