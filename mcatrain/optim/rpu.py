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
    without). bl_management BLM: as many slots as lr max|x| max|d| / dw_min asks for,
    pulse_length at most.

    sequential: True pulses the devices row by row, as the hardware would: an example has one row
    (x, d), a convolution one for each position, a recurrent layer one for each time step, in the
    order in which backward gave them. False sums the pulses of all rows of a step and sends all
    ups, then all downs. None decides at each step by array: row by row if it has no more rows
    than examples (fully connected layers), else summed (convolutions, recurrent layers). The two
    are equal in distribution where steps do not depend on the state or ups and downs meet
    different devices (constant steps away from bounds, PCM pairs). Elsewhere, as on soft-bounds
    devices, the sum ends lower: the downs come last.

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
        sequential: bool | None = None,
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
                    self._update(tile, group["lr"], group["pulse_length"])
                    tile.kept.clear()
                elif p.grad is not None:
                    p.sub_(p.grad, alpha=group["lr"])

    def _update(self, tile: Tile, lr: float, pulse_length: int) -> None:
        """Pulse one tile by what it kept: pairs of x (n, in) and d (n, out)."""
        if not tile.kept:
            return
        x, d = tile.kept[0]
        if len(tile.kept) > 1:
            x, d = (torch.cat(values) for values in zip(*tile.kept, strict=True))
        n, in_order = x.shape[0], self.sequential
        if in_order is None:
            in_order = n <= self.step_examples[tile]
        managements = self.update_management, self.bl_management
        *streams, slots = kernels.gains(
            x, d, float(lr), tile.synapse.granularity, pulse_length, *managements
        )
        tile.ledger.stream_steps += 1
        tile.ledger.slots += slots if self.bl_management else n * pulse_length
        # One row has no order: its weights get ups or downs, and no weight both.
        if in_order or n == 1:
            self._pulse_in_order(tile, x, d, *streams)
        else:
            self._pulse_sums(tile, x, d, *streams)

    def _pulse_in_order(self, tile: Tile, x: Tensor, d: Tensor, *streams: Tensor) -> None:
        """Pulse by one row of x and d after the other."""
        rows, n = 0, x.shape[0]
        while rows < n:
            rest = [v[rows:] for v in (x, d, *streams)] if rows else (x, d, *streams)
            index, count, done = kernels.coincidences(*rest, tile.chance.seed_next())
            tile.pulse(PulseEvents(index, count, repeats=True))
            rows += done

    def _pulse_sums(self, tile: Tile, x: Tensor, d: Tensor, *streams: Tensor) -> None:
        """Pulse by the sum over all rows, ups first."""
        for events in kernels.coincidences_sum(x, d, *streams, tile.chance.seed_next()):
            tile.pulse(PulseEvents(*events))
