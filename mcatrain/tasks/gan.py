"""The gan task: a generator of images against a discriminator, both fully connected."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from mcatrain.data import load_images
from mcatrain.run.options import Options
from mcatrain.run.writing import write_bytes
from mcatrain.tasks.base import Task, descend
from mcatrain.tasks.frechet import FeatureSpace

#: Numbers that a generated image is made of.
LATENT = 64
_DROPPED_PIXELS = 0.5
_SIDE = 8
_SHEET = _SIDE**2
#: Images of an evaluation, or as many as the test set has.
_EVALUATED = 2_000
_SEED = 20_201_112


class GANTask(Task):
    """Goodfellow et al. 2014 with the non-saturating loss, as MLPs (Nandakumar et al. 2020).

    ``hidden`` are the discriminator's layers; the generator has them in reverse. A training
    example is a real image; a step trains the discriminator on a batch of real and one of
    generated images, then the generator on another: three vectors a real image, as the clock
    counts. The discriminator has dropout, without which it wins at once; the generator has batch
    norm (digital), so that what its layers say does not rest on the range of their weights. Pixels
    lie in [0, 1].
    """

    metric = "frechet_distance"

    def __init__(self, options: Options, device: torch.device) -> None:
        super().__init__(options, device)
        data = load_images(options.data, options.data_dir, options.train_limit)
        self.image_shape = data.image_shape
        self.train_x = data.train_x.to(device)
        self.test_x = data.test_x.to(device)
        self.examples = len(self.train_x)
        self.features = FeatureSpace(options.data, device)
        self.real = self.features.statistics(self.test_x)
        self._order = torch.arange(self.examples)

    def model(self) -> nn.Module:
        pixels = self.train_x.shape[1]
        hidden = list(self.options.hidden_layers)
        discriminator: list[nn.Module] = [nn.Dropout(_DROPPED_PIXELS)]
        for fan_in, fan_out in pairwise([pixels, *hidden]):
            discriminator += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.2), nn.Dropout(0.5)]
        generator: list[nn.Module] = []
        for fan_in, fan_out in pairwise([LATENT, *hidden[::-1]]):
            generator += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU()]
        generator += [nn.Linear(hidden[0], pixels), nn.Sigmoid()]
        for layer in generator:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        return nn.ModuleDict(
            {
                "generator": nn.Sequential(*generator),
                "discriminator": nn.Sequential(*discriminator, nn.Linear(hidden[-1], 1)),
            }
        )

    def start_epoch(self, shuffle: torch.Generator) -> None:
        self._order = torch.randperm(self.examples, generator=shuffle).to(self.device)

    def train_on(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, at: int
    ) -> tuple[float, int]:
        """Return the discriminator's loss [nats], half real and half generated."""
        generator, discriminator = _parts(model)
        real = self.train_x[self._order[at : at + self.options.batch]]
        number = max(2, len(real))  # batch norm has no spread of a single vector
        with torch.no_grad():
            fake = generator(self._noise(number))
        judged = discriminator(torch.cat([real, fake]))
        value = descend(_judgement(judged, len(real)), optimizer)
        # The generator learns through the discriminator, whose own weights stay.
        discriminator.requires_grad_(False)
        try:
            judged = discriminator(generator(self._noise(number)))
            descend(binary_cross_entropy_with_logits(judged, torch.ones_like(judged)), optimizer)
        finally:
            discriminator.requires_grad_(True)
        return value, len(real)

    def _noise(self, number: int) -> Tensor:
        # From the CPU's stream, which checkpoints keep.
        return torch.randn(number, LATENT).to(self.device)

    def _generate(self, model: nn.Module, number: int) -> Tensor:
        """Return images (number, pixels) in [0, 1], of the same noise at every evaluation."""
        generator, _ = _parts(model)
        noise = torch.randn(number, LATENT, generator=torch.Generator().manual_seed(_SEED))
        with torch.no_grad():
            return torch.cat([generator(part) for part in noise.to(self.device).split(1000)])

    def feed(self, model: nn.Module) -> None:
        generator, _ = _parts(model)
        chance = torch.Generator().manual_seed(_SEED + 1)  # not the noise of evaluations
        for part in torch.randn(2000, LATENT, generator=chance).to(self.device).split(200):
            generator(part)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return frechet_distance to the test images, and test_loss of the discriminator [nats]."""
        images = self._generate(model, max(_EVALUATED, len(self.test_x)))
        _, discriminator = _parts(model)
        with torch.no_grad():
            fake = images[: len(self.test_x)]
            judged = torch.cat([discriminator(self.test_x), discriminator(fake)])
        return {
            "test_loss": _judgement(judged, len(self.test_x)).item(),
            "frechet_distance": self.features.distance(self.real, self.features.statistics(images)),
        }

    def show(self, model: nn.Module, folder: Path) -> None:
        """Write samples.png, a sheet of 8 x 8 generated images with grey lines between them."""
        from matplotlib.image import imsave  # here, because it takes a while to import

        _, height, width = self.image_shape
        images = self._generate(model, _SHEET).cpu()
        framed = pad(images.view(-1, height, width), (0, 1, 0, 1), value=0.5)
        rows = framed.view(_SIDE, _SIDE, height + 1, width + 1).transpose(1, 2)
        sheet = rows.reshape(_SIDE * (height + 1), -1)[:-1, :-1].numpy()
        png = io.BytesIO()
        imsave(png, sheet, format="png", cmap="gray", vmin=0, vmax=1)
        write_bytes(folder / "samples.png", png.getvalue())

    def facts(self) -> dict[str, Any]:
        return {"frechet_features": self.features.sha256}


def _parts(model: Any) -> tuple[nn.Module, nn.Module]:
    return model["generator"], model["discriminator"]


def _judgement(scores: Tensor, real: int) -> Tensor:
    """Return the loss [nats] of scores of ``real`` real images, the rest generated."""
    truth = torch.zeros_like(scores)
    truth[:real] = 1.0
    return binary_cross_entropy_with_logits(scores, truth)
