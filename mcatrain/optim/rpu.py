"""RPU: the stochastic pulsed update, in place, by coincidences of random bit streams."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from devicemodels.errors import InputError
from devicemodels.pulses import PulseEvents
from mcatrain import kernels
from mcatrain.optim.base import PulsedOptimizer, as_groups
from mcatrain.tile import Tile


class RPU(PulsedOptimizer):
    """Stochastic pulsed update (Gokmen & Vlasov 2016), plain SGD.

    For each example, x and the backpropagated d become bit streams of ``pulse_length`` slots
    (aihwkit's desired_bl); a slot where both lines fire is one pulse. E[dW] = -lr d x^T while no
    probability is clipped at 1.

        RPU(model, lr=0.01, pulse_length=10)

    update_management UM: balance the two gains by max|x| and max|d| (the baseline of 2016 is
    without). bl_management BLM: as many
    slots as lr max|x| max|d| / dw_min asks for, pulse_length at most. sequential: apply the
    examples of a batch one after the other, as the hardware would; else their pulses are summed
    first, ups before downs - the same in distribution where steps do not depend on the state or
    ups and downs meet different devices (constant steps away from bounds, PCM pairs).
    refresh_every: examples between refreshes of saturated pairs, 0 never. Parameters that are
    not analog get plain SGD. Gradients of analog layers stay factors: clipping does not see them.
    Raises InputError for bad settings and, from step(), factors that are not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        *,
        params: Any = None,
        pulse_length: int = 10,
        update_management: bool = True,
        bl_management: bool = False,
        sequential: bool = True,
        refresh_every: int = 100,
    ) -> None:
        self._bind(model, refresh_every)
        if not 0 <= lr < math.inf:
            raise InputError(f"lr = {lr}: give a learning rate of 0 or more")
        if pulse_length < 1:
            raise InputError(f"pulse_length = {pulse_length}: give at least 1 slot")
        self.update_management, self.bl_management = update_management, bl_management
        self.sequential = sequential
        for tile in self.tiles.values():
            tile.factors = "must"
        super().__init__(as_groups(params, model), {"lr": lr, "pulse_length": pulse_length})

    def _change_weights(self) -> None:
        """Pulse the devices for every example since the last step."""
        for group in self.param_groups:
            for p in group["params"]:
                tile = self.tiles.get(p)
                if tile is not None:
                    for x, d in tile.kept:
                        self._update(tile, x, d, group["lr"], group["pulse_length"])
                    tile.kept.clear()
                elif p.grad is not None:
                    p.sub_(p.grad, alpha=group["lr"])

    def _update(self, tile: Tile, x: Tensor, d: Tensor, lr: float, pulse_length: int) -> None:
        """Update one tile by the examples in the rows of x (n, in) and d (n, out)."""
        now_s = self.clock.now_s
        summed = None
        if not self.sequential:
            weights = tile.synapse.shape[0] * tile.synapse.shape[1]
            summed = torch.zeros(2, weights, dtype=torch.int64, device=x.device)
        for row, (top_x, top_d) in enumerate(_tops(x, d)):
            slots, gain_x, gain_d = self._gains(
                top_x, top_d, lr, tile.synapse.granularity, pulse_length
            )
            if not slots:
                continue
            chance_x = tile.chance.uniform(slots, x.shape[1])
            chance_d = tile.chance.uniform(slots, d.shape[1])
            index, count = kernels.coincidences(x[row], d[row], gain_x, gain_d, chance_x, chance_d)
            if summed is None:
                tile.synapse.pulse(PulseEvents(index, count), now_s)
            else:
                summed[0, index] += count.clamp(min=0)
                summed[1, index] += count.clamp(max=0)
        if summed is not None:
            for signed in summed:
                tile.synapse.pulse(PulseEvents.from_counts(signed), now_s)

    def _gains(
        self, top_x: float, top_d: float, lr: float, dw_min: float, pulse_length: int
    ) -> tuple[int, float, float]:
        """Return the slots BL and the gains C_x, C_d of one example's streams."""
        if not (top_x and top_d and lr):
            return 0, 0.0, 0.0
        slots = pulse_length
        if self.bl_management:
            slots = min(math.ceil(lr * top_x * top_d / dw_min), pulse_length)
        gain = math.sqrt(lr / (slots * dw_min))
        balance = math.sqrt(top_d / top_x) if self.update_management else 1.0
        return slots, gain * balance, gain / balance


def _tops(x: Tensor, d: Tensor) -> list[tuple[float, float]]:
    """Return max|x| and max|d| of every example."""
    tops = torch.stack([x.abs().amax(dim=1), d.abs().amax(dim=1)], dim=1)
    return [(top_x, top_d) for top_x, top_d in tops.tolist()]
