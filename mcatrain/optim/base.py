"""What both rules share: the tiles behind the parameters, simulated time, refresh."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from devicemodels.errors import InputError
from mcatrain import kernels
from mcatrain.clock import Clock
from mcatrain.tile import Tile, tiles


class PulsedOptimizer(torch.optim.Optimizer):
    """An optimizer whose model has tiles. Device state lives in the model, never here."""

    tiles: dict[Tensor, Tile]
    clock: Clock
    #: Examples of each tile in the step that is being made.
    step_examples: dict[Tile, int]

    def _bind(self, model: nn.Module, refresh_every: int) -> None:
        """Find the model's tiles; every ``refresh_every`` examples (0: never) they refresh."""
        if refresh_every != int(refresh_every) or refresh_every < 0:
            raise InputError(
                f"refresh_every = {refresh_every}: give a whole number of examples, 0 for never"
            )
        found = tiles(model)
        if not found:
            raise InputError(
                f"{type(self).__name__}: the model has no analog layers: call convert(model) first"
            )
        self.tiles = {tile.chi: tile for tile in found.values()}
        self.clock = next(iter(found.values())).clock
        self.refresh_every = int(refresh_every)

    def zero_grad(self, set_to_none: bool = True) -> None:
        if set_to_none:  # torch's own takes a tenth of a step of one example
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = None
        else:
            super().zero_grad(set_to_none=False)
        for tile in self.tiles.values():
            tile.forget()

    @abstractmethod
    def _change_weights(self) -> None:
        """Do what the rule does with the gradients collected since the last step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step: let time pass, pulse the devices, refresh when it is due.

        Returns the closure's loss. Raises InputError, before any device is touched, when a
        gradient is not finite.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._require_all_finite()
        self._apply()
        return loss

    @property
    def keeps_factors(self) -> bool:
        """Whether all gradients are those of arrays, and stay factors until the step."""
        tiles = [self.tiles.get(p) for group in self.param_groups for p in group["params"]]
        return all(tile is not None and tile.factors != "no" for tile in tiles)

    def _apply(self) -> None:
        """Let time pass, pulse the devices, refresh when it is due; gradients are finite."""
        refresh_due = self._pass_time()
        self._change_weights()
        if refresh_due:
            for tile in self.tiles.values():
                tile.refresh()

    def _pass_time(self) -> bool:
        """Move the clock by the examples since the last step; True when a refresh is due."""
        self.step_examples = {tile: tile.examples for tile in self.tiles.values()}
        for tile in self.tiles.values():
            tile.examples = 0
        before = self.clock.examples
        self.clock.count(max(self.step_examples.values()))
        every = self.refresh_every
        return every > 0 and before // every != self.clock.examples // every

    def _require_all_finite(self) -> None:
        """Raise InputError, before any device is touched, for a gradient that is not finite."""
        for group in self.param_groups:
            for p in group["params"]:
                tile = self.tiles.get(p)
                if (p.grad is None or kernels.is_finite(p.grad)) and (
                    tile is None or all(kernels.is_finite(*pair) for pair in tile.kept)
                ):
                    continue
                where = f"layer {tile.name!r}" if tile else "a digital parameter"
                raise InputError(
                    f"gradient of {where} is not finite after {self.clock.examples} examples: no "
                    "device was touched; lower the learning rate or clip the gradient"
                )


def as_groups(params: Any, model: nn.Module) -> Any:
    """Return the parameters a user gave, or all of the model's."""
    return list(model.parameters()) if params is None else list(params)
