"""Train the classifiers whose features the Fréchet distance is measured in, and ship them.

    python -m benchmarks.features DATA

DATA holds mnist/. Writes mcatrain/tasks/features/{mnist,digits}.safetensors. Adam, cross-entropy,
batch 100, seed 0, one thread; the files decide the metric, so they change only with the version.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from mcatrain.data import load_images
from mcatrain.tasks.frechet import classifier

FOLDER = Path(__file__).parents[1] / "mcatrain" / "tasks" / "features"
EPOCHS = {"mnist": 5, "digits": 60}


def train(name: str, data_dir: str) -> float:
    """Train and save the classifier of one image set; return its test accuracy."""
    torch.manual_seed(0)
    data = load_images(name, data_dir)
    model = classifier(name)
    optimizer = torch.optim.Adam(model.parameters())
    x, y = data.train_x * 2 - 1, data.train_y
    for _ in range(EPOCHS[name]):
        for part in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    save_file(model.state_dict(), FOLDER / f"{name}.safetensors")
    with torch.no_grad():
        right = model(data.test_x * 2 - 1).argmax(1) == data.test_y
    return right.double().mean().item()


def main() -> None:
    """Train both."""
    torch.set_num_threads(1)
    for name in EPOCHS:
        print(f"{name}: test accuracy {train(name, sys.argv[1]):.2%}")


if __name__ == "__main__":
    main()
