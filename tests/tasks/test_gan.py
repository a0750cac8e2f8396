"""The two steps of a GAN: each changes one network, and what the two are judged by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mcatrain.tasks import gan
from mcatrain.tile import tiles

RULES: dict[str, dict[str, Any]] = {
    "fp32": {"rule": "fp32"},
    "mca": {"rule": "mca", "epsilon": 0.001, "refresh_every": 0},
    "mca-adam": {"rule": "mca", "base_optimizer": "adam", "epsilon": 0.001, "refresh_every": 0},
    "rpu": {"rule": "rpu", "device_model": "gokmen2016"},
}


def state_of(network: nn.Module) -> list[Tensor]:
    """Return what training changes: chi and devices of every tile, or the weights themselves."""
    found = [p.detach().clone() for p in network.parameters()]
    for tile in tiles(network).values():
        synapse = tile.synapse
        found += [v.clone() for v in synapse.conductances(0.0).values()]
        found.append(torch.tensor([synapse.set_pulses, synapse.reset_pulses]))
    return found


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return len(one) == len(two) and all(map(torch.equal, one, two))


@pytest.mark.parametrize("rule", RULES)
def test_each_step_changes_one_network(
    rule: str, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Momentum and Adam too: a network without a gradient must not coast along."""
    options = {"task": "gan", "data": "digits", "hidden": "10,8", "train_limit": 40}
    task, model, optimizer = make(**options, batch_size=10, **RULES[rule])
    parts = [model["discriminator"], model["generator"]]
    inner, changed = gan.descend, []

    def descend(*arguments: Any) -> float:
        before = [state_of(part) for part in parts]
        value = inner(*arguments)
        after = [state_of(part) for part in parts]
        changed.append([not same(*pair) for pair in zip(before, after, strict=True)])
        return value

    monkeypatch.setattr(gan, "descend", descend)
    model.train()
    task.start_epoch(torch.Generator().manual_seed(0))
    for at in range(0, 40, 10):
        loss, examples = task.train_on(model, optimizer, at)
        assert examples == 10
        assert math.isfinite(loss)
        assert all(p.requires_grad for p in model.parameters())
    assert changed == [[True, False], [False, True]] * 4


def test_discriminator_is_free_again_after_a_failure(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"task": "gan", "data": "digits", "hidden": "8", "train_limit": 10}
    task, model, optimizer = make(**options)

    def fail(*_: Any) -> float:
        if not next(model["discriminator"].parameters()).requires_grad:
            raise KeyboardInterrupt
        return 0.0

    monkeypatch.setattr(gan, "descend", fail)
    with pytest.raises(KeyboardInterrupt):
        task.train_on(model, optimizer, 0)
    assert all(p.requires_grad for p in model.parameters())


def test_networks_mirror_each_other(make: Callable[..., Any]) -> None:
    _, model, _ = make(task="gan", data="digits", hidden="10,8")
    widths = {
        part: [tuple(m.weight.shape) for m in model[part] if isinstance(m, nn.Linear)]
        for part in ("generator", "discriminator")
    }
    assert widths["generator"] == [(8, gan.LATENT), (10, 8), (64, 10)]
    assert widths["discriminator"] == [(10, 64), (8, 10), (1, 8)]


def test_evaluation(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A discriminator that says nothing loses ln 2; the real images are at distance 0."""
    task, model, _ = make(task="gan", data="digits", hidden="8")
    for parameter in model["discriminator"].parameters():
        parameter.data.zero_()
    found = task.evaluate(model.eval())
    assert found.keys() == {"test_loss", "frechet_distance"}
    assert found["test_loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert found["frechet_distance"] > 1
    assert task.evaluate(model) == found, "every evaluation is of the same noise"
    monkeypatch.setattr(task, "_generate", lambda model, number: task.test_x)
    assert task.evaluate(model)["frechet_distance"] == pytest.approx(0, abs=1e-3)


def test_images_lie_in_the_range_of_the_pixels(make: Callable[..., Any]) -> None:
    task, model, _ = make(task="gan", data="digits", hidden="8")
    assert (task.train_x.min(), task.train_x.max()) == (0, 1)
    images = task._generate(model, 5)
    assert images.shape == (5, 64)
    assert images.abs().max() < 1


def test_a_batch_of_one_image_trains(make: Callable[..., Any]) -> None:
    """Also the last batch of an epoch: batch norm alone could not take one vector."""
    options = {"task": "gan", "data": "digits", "hidden": "8", "train_limit": 5}
    task, model, optimizer = make(**options, batch_size=4)
    model.train()
    task.start_epoch(torch.Generator().manual_seed(0))
    assert [task.train_on(model, optimizer, at)[1] for at in (0, 4)] == [4, 1]
