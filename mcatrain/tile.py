"""One analog array with its periphery: forward, transposed backward, and what an update needs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from devicemodels.state import Chance, StateModule
from devicemodels.synapses.base import Synapse
from mcatrain.clock import Clock
from mcatrain.periphery import Periphery, matvec


class Tile(StateModule):
    """An array of ``out x in`` weights between a DAC and an ADC.

    chi: the digital accumulator of MCA (out, in), float32, initially 0; it is the parameter that
    optimizers see, and its gradient is the gradient with respect to the weights. RPU leaves it 0
    and asks for the factors (x, d) of each example instead (``keeps_factors``).
    """

    scalars: ClassVar = {"now_s": float, "clock_examples": int}
    chi: nn.Parameter
    synapse: Synapse

    def __init__(self, name: str, synapse: Synapse, periphery: Periphery, clock: Clock) -> None:
        super().__init__()
        self.name, self.periphery = name, periphery
        self.synapse = synapse
        self.clock = clock
        self.chi = nn.Parameter(torch.zeros(synapse.shape))
        self.keeps_factors = False
        self.factors: list[tuple[Tensor, Tensor]] = []
        self.examples = 0

    @property
    def now_s(self) -> float:
        """Time on the model's clock [s]."""
        return self.clock.now_s

    @now_s.setter
    def now_s(self, value: float) -> None:
        self.clock.now_s = value

    @property
    def clock_examples(self) -> int:
        """Training examples on the model's clock."""
        return self.clock.examples

    @clock_examples.setter
    def clock_examples(self, value: int) -> None:
        self.clock.examples = value

    @property
    def chance(self) -> Chance:
        return self.synapse.chance

    def forward(self, x: Tensor) -> Tensor:
        """Return y (n, out) = ADC(W DAC(x) + noise) for the rows of x (n, in)."""
        now, s = self.now_s, self.synapse
        return matvec(x, s.weights(now), s.read_variance(now), self.periphery.forward, self.chance)

    def backward(self, d: Tensor) -> Tensor:
        """Return W^T d (n, in) for the rows of d (n, out), through the transposed array."""
        now, s = self.now_s, self.synapse
        variance = s.read_variance(now)
        transposed = None if variance is None else variance.T
        return matvec(d, s.weights(now).T, transposed, self.periphery.backward, self.chance)

    def collect(self, x: Tensor, d: Tensor, examples: int) -> Tensor | None:
        """Take in the factors of the gradient d^T x: x (n, in), d (n, out), of ``examples``.

        Returns the gradient for chi, or None when the factors themselves are kept.
        """
        self.examples += examples
        if self.keeps_factors:
            self.factors.append((x, d))
            return None
        return d.T @ x

    def forget(self) -> None:
        """Drop what was collected since the last step."""
        self.factors.clear()
        self.examples = 0


class TileProduct(torch.autograd.Function):
    """The tile's product in a graph: backward runs on the transposed array."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, chi: Tensor, tile: Tile, examples: int) -> Tensor:
        # An array one column wider than x has its bias there, driven by a constant 1.
        ctx.width = x.shape[1]
        if tile.synapse.shape[1] > ctx.width:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        ctx.save_for_backward(x)
        ctx.tile, ctx.examples = tile, examples
        return tile.forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        tile: Tile = ctx.tile
        d = grads[0].contiguous()
        dx = tile.backward(d)[:, : ctx.width] if ctx.needs_input_grad[0] else None
        gradient = tile.collect(x, d, ctx.examples) if ctx.needs_input_grad[1] else None
        return dx, gradient, None, None


def tiles(model: nn.Module) -> dict[str, Tile]:
    """Return the tiles of a model by name, in order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Tile)}
