"""MCA: mixed-precision computational memory around any torch optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from devicemodels import kernels as device_kernels
from devicemodels.errors import InputError
from devicemodels.pulses import PulseEvents
from mcatrain import kernels
from mcatrain.kernels.reference import MOST_PULSES
from mcatrain.optim.base import PulsedOptimizer, as_groups
from mcatrain.tile import Tile

#: These scale an update by the parameter's own size or move the parameter to try: chi is neither
#: the weight nor what the loss was computed with.
_UNFIT = {"lamb", "lars", "adafactor", "lbfgs", "sparseadam"}
_DECOUPLED_KEYS = ("decoupled_weight_decay", "weight_decouple", "decoupled_decay")
_DECOUPLED_NAMES = {"adamw", "muon", "lion", "sgdw"}


class MCA(PulsedOptimizer):
    """Mixed-precision training on computational memory (Front. Neurosci. 14:406, 2020).

    The base optimizer trains chi, a float32 accumulator per analog weight; when |chi| reaches
    the granularity epsilon, trunc(chi / epsilon) pulses go to the devices and that much is taken
    from chi, without read-back. Parameters that are not analog are trained by the base optimizer
    as usual.

        MCA(model, torch.optim.Adam, lr=1e-3)
        MCA(model, torch.optim.SGD, lr=0.1, momentum=0.9, epsilon=0.05, refresh_every=0)

    base: any torch.optim.Optimizer class with its keywords. params: parameter groups as in
    torch; a group may hold its own ``epsilon`` (None: the layer's granularity, the mean weight
    change of one pulse). refresh_every: examples between refreshes of saturated pairs, 0 never.
    Weight decay is taken from the base optimizer and acts on the read weight; ``decoupled`` says
    whether as AdamW does (None: known from the base). Schedulers, closures, gradient clipping
    and accumulation work as in torch. factored: with a plain SGD base, keep the gradients of
    analog layers as factors (x, d) instead of summing them into ``chi.grad``: the same update in
    fewer passes over chi, but hooks and clipping do not see it.
    Raises InputError for a base that cannot work on chi (LAMB, LARS, Adafactor, LBFGS),
    epsilon <= 0, and, from step(), a gradient that is not finite, before any device is touched.
    """

    def __init__(
        self,
        model: nn.Module,
        base: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
        *,
        params: Any = None,
        epsilon: float | None = None,
        refresh_every: int = 100,
        decoupled: bool | None = None,
        factored: bool = False,
        **options: Any,
    ) -> None:
        self._bind(model, refresh_every)
        self.base = base(as_groups(params, model), **options)
        names = {kind.__name__.lower() for kind in type(self.base).__mro__}
        if names & _UNFIT:
            raise InputError(
                f"MCA cannot wrap {type(self.base).__name__}: it scales or retries by the "
                "parameter's own value, and chi is not the weight; use SGD, Adam, AdamW, ..."
            )
        if decoupled is None and names & _DECOUPLED_NAMES:
            decoupled = True
        self._decoupled = decoupled  # None: each group says
        super().__init__(self.base.param_groups, {"epsilon": epsilon})
        self._share()
        for group in self.param_groups:
            _check_epsilon(group["epsilon"])
            if factored and (type(self.base) is not torch.optim.SGD or not _plain(group)):
                raise InputError(
                    "factored=True needs torch.optim.SGD without momentum, weight decay or "
                    "maximize: other rules need the whole gradient; leave it out"
                )
        for tile in self.tiles.values():
            tile.factors = "may" if factored else "no"

    def _share(self) -> None:
        """Show the base optimizer's groups and state as our own: schedulers edit these."""
        for group in self.base.param_groups:
            group.setdefault("epsilon", self.defaults["epsilon"])
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups is self.base.param_groups:
            _check_epsilon(param_group.get("epsilon"))
            self.base.add_param_group(param_group)
            self._share()
        else:  # called by Optimizer.__init__ for the groups that base holds already
            super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self._share()

    def _change_weights(self) -> None:
        """Let the base optimizer change chi, then spend whole pulses of it on the devices."""
        gradients = self._take_gradients()
        try:
            self._base_step()
        finally:
            for p, gradient in gradients.items():
                p.grad = gradient
        for group in self.param_groups:
            for p in group["params"]:
                tile = self.tiles.get(p)
                if tile is not None:
                    epsilon = group["epsilon"] or tile.synapse.granularity
                    changed = p.grad is not None or bool(tile.kept)
                    update = p, tile, gradients.get(p), float(group["lr"]), epsilon
                    entries = self._spend_at_once(*update)
                    if entries is None:
                        events = self._spend(*update)
                        entries = len(events)
                        tile.pulse(events)
                    tile.ledger.chi_steps += changed
                    tile.ledger.chi_entries += entries

    def _take_gradients(self) -> dict[Tensor, Tensor]:
        """Take from the base, for a while, gradients that plain SGD would only add to chi.

        They are added while chi is looked through for pulses: one pass instead of two.
        """
        base, taken = self.base, {}
        hooked = base._optimizer_step_pre_hooks or base._optimizer_step_post_hooks
        if type(base) is not torch.optim.SGD or hooked or "step" in vars(base):
            return {}
        for group in filter(_plain, self.param_groups):
            for p in group["params"]:
                gradient = p.grad
                if gradient is not None and p in self.tiles and gradient.is_contiguous():
                    taken[p], p.grad = gradient, None
        return taken

    @staticmethod
    def _spend_at_once(
        chi: Tensor, tile: Tile, gradient: Tensor | None, lr: float, epsilon: float
    ) -> int | None:
        """Do `_spend` and the pulses in one pass, where a kernel does; return how many weights
        were pulsed, None if nothing was done."""
        program = kernels.program_of(chi)
        if program is None or tile.log is not None:
            return None
        factors = None
        if gradient is None and len(tile.kept) == 1 and tile.kept[0][0].shape[0] == 1:
            x, d = tile.kept[0]
            factors = x[0], d[0]
        if (gradient is None or tile.kept) and factors is None:
            return None
        to = tile.synapse.programmable(tile.now_s)
        done = None if to is None else program(chi, gradient, factors, -lr, epsilon, to)
        if done is None:
            return None
        tile.kept.clear()
        entries, pulses, near = done
        tile.synapse.was_programmed(pulses, near, tile.now_s)
        return entries

    @staticmethod
    def _spend(
        chi: Tensor, tile: Tile, gradient: Tensor | None, lr: float, epsilon: float
    ) -> PulseEvents:
        """Take the whole pulses out of chi, after adding a gradient and kept factors to it."""
        factors = tile.kept
        if gradient is not None and not factors:
            index, count = kernels.descend(chi, gradient, -lr, epsilon)
        elif gradient is None and len(factors) == 1 and factors[0][0].size(0) == 1:
            x, d = factors.pop()
            index, count = kernels.accumulate(chi, x[0], d[0], -lr, epsilon)
        else:
            if gradient is not None:
                chi.add_(gradient, alpha=-lr)
            for x, d in factors:
                kernels.add_product(chi, d.T, x.T, -lr)
            factors.clear()
            index, count = kernels.spend(chi, epsilon)
        if index.numel() and sum(device_kernels.tally(count)) >= MOST_PULSES:
            raise InputError(
                f"layer {tile.name!r} asks for more pulses than can be counted: lower the "
                "learning rate or raise epsilon"
            )
        return PulseEvents(index, count)

    def _base_step(self) -> None:
        """One step of the base, its weight decay acting on the read weight instead of chi."""
        if all(p.grad is None for group in self.param_groups for p in group["params"]):
            return  # all is kept as factors; a base does nothing then, slowly
        decays = [group.get("weight_decay", 0) for group in self.param_groups]
        if not any(decays):
            self.base.step()
            return
        kept = [(p, p.grad) for group in self.param_groups for p in group["params"]]
        try:
            for group, decay in zip(self.param_groups, decays, strict=True):
                self._decay(group, decay)
                group["weight_decay"] = type(decay)(0)
            self.base.step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
            for p, grad in kept:
                p.grad = grad

    def _decay(self, group: dict[str, Any], decay: float) -> None:
        decoupled = self._decoupled
        if decoupled is None:
            decoupled = any(group.get(key) is True for key in _DECOUPLED_KEYS)
        for p in group["params"]:
            if p.grad is None or not decay:
                continue
            tile = self.tiles.get(p)
            weight = p if tile is None else tile.synapse.weights(self.clock.now_s)
            if decoupled:
                p.sub_(weight, alpha=float(group["lr"]) * decay)
            else:
                p.grad = p.grad.add(weight, alpha=-decay if group.get("maximize") else decay)


def _plain(group: dict[str, Any]) -> bool:
    return not (group["momentum"] or group["weight_decay"] or group["maximize"])


def _check_epsilon(epsilon: float | None) -> None:
    if epsilon is not None and not 0 < epsilon < float("inf"):
        raise InputError(
            f"epsilon = {epsilon}: give a positive weight change, or None for the device's own"
        )
