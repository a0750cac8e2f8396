"""What a run has spent: its ledger, its energy, and whether a budget is used up."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from devicemodels.wear import wear_of
from mcatrain import energy, ledger
from mcatrain.ledger import Counts, total
from mcatrain.run.config import TrainConfig
from mcatrain.run.meter import Meter
from mcatrain.run.summary import layer_of
from mcatrain.tile import tiles

#: An estimate below this part of a budget leaves no doubt.
_SURELY = 1 - 1e-6
_DIGITAL = (nn.Linear, nn.Conv2d, nn.LSTM)


class Accounts:
    """Counts and energy of a run so far.

    work: fp32 has no arrays to count for it; what its first step does with each weight stands
    for every example (JSON values, kept in checkpoints; {} before the first step).
    """

    def __init__(self, config: TrainConfig, model: nn.Module, work: dict[str, int]) -> None:
        self.config, self.model, self.work = config, model, work
        self.costs = energy.load(config.energy_model)
        self._tiles = tiles(model)
        self._meter: Meter | None = None
        self._digital: tuple[float, float] | None = None
        self._hooks: list[Any] = []
        self._passes: dict[Tensor, tuple[int, bool, bool]] = {}
        if config.rule == "fp32" and not work:
            for layer in model.modules():
                if isinstance(layer, _DIGITAL):
                    self._hooks.append(layer.register_forward_hook(self._note))

    @property
    def bipolar(self) -> bool:
        """Whether weights are single step devices, not PCM pairs."""
        return not all(tile.synapse.can_saturate for tile in self._tiles.values())

    def _note(self, layer: Any, given: tuple[Tensor, ...], answer: Any) -> None:
        x, learns = given[0], torch.is_grad_enabled()
        if isinstance(layer, nn.Conv2d):
            matrices, rows = [layer.weight], answer[:, 0].numel()
        else:
            rows = x.numel() // x.shape[-1]
            kept = layer.weight if isinstance(layer, nn.Linear) else None
            matrices = [layer.weight_ih_l0, layer.weight_hh_l0] if kept is None else [kept]
        for k, matrix in enumerate(matrices):
            # One bias a layer, as a column of the array would be.
            size = matrix.numel() + (len(matrix) if k == 0 and layer.bias is not None else 0)
            back = learns and (k > 0 or x.requires_grad)
            moves = learns and matrix.requires_grad
            _, before, moved = self._passes.get(matrix, (size, False, False))
            self._passes[matrix] = size, before or back, moved or moves
            parts = {"forward": rows, "backward": rows * back, "update": rows * moves}
            for way, number in parts.items():
                key = f"{way}_macs"
                self.work[key] = self.work.get(key, 0) + number * size

    def first_step(self, examples: int) -> None:
        """Take what the first step of fp32 did, of so many examples, for every one."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        passes = self._passes.values()
        self.work["examples"] = examples
        self.work["weights"] = sum(size for size, _, _ in passes)
        self.work["step_accesses"] = sum(size * (3 + back) for size, back, moved in passes if moved)
        self._passes.clear()

    def by_layer(self) -> dict[str, Counts]:
        """Return the counts of every layer, its tiles summed."""
        found: dict[str, list[Counts]] = {}
        for name, tile in self._tiles.items():
            found.setdefault(layer_of(name), []).append(ledger.counts(tile))
        return {layer: total(parts) for layer, parts in found.items()}

    def counts(self, examples: int, steps: int) -> Counts:
        """Return the counts of the whole run after so many examples and steps."""
        if self._tiles:
            return total(map(ledger.counts, self._tiles.values()))
        if not self.work:
            return {}
        share = Fraction(examples, self.work["examples"])
        ways = ("forward", "backward", "update")
        found = {f"{way}_macs": round(share * self.work[f"{way}_macs"]) for way in ways}
        found["weight_accesses"] = steps * self.work["step_accesses"]
        return found | {"weights": self.work["weights"]}

    def energy_parts(self, work: Mapping[str, int]) -> dict[str, float]:
        """Return the training energy [J] of the run's own hardware by part."""
        if not work:
            return {}
        if self._tiles:
            return self.costs.training(work, bipolar=self.bipolar)
        return self.costs.digital(work)

    def spent(self, examples: int, steps: int) -> float:
        """Return what was used of the budget: examples, pulses, or energy [J]."""
        kind = self.config.budget
        if kind == "examples":
            return examples
        if kind == "pulses":
            found = [tile.synapse for tile in self._tiles.values()]
            return sum(synapse.set_pulses + synapse.reset_pulses for synapse in found)
        return self._joules(self.counts(examples, steps))

    def _joules(self, work: Mapping[str, int]) -> float:
        return sum(self.energy_parts(work).values())

    def used_up(self, examples: int, steps: int) -> bool:
        """Return whether the budget, if there is one, is spent."""
        amount = self.config.budget_amount
        if amount is None:
            return False
        if self.config.budget == "energy" and self._estimate(examples, steps) < _SURELY * amount:
            return False
        return self.spent(examples, steps) >= amount

    def _estimate(self, examples: int, steps: int) -> float:
        """Return the energy [J] so far but for rounding, in a tenth of the time of `spent`."""
        if self._tiles:
            if self._meter is None:
                tiles, uses_chi = self._tiles.values(), self.config.rule == "mca"
                self._meter = Meter(tiles, self._joules, uses_chi)
            return self._meter.read()
        if not self.work:
            return 0.0
        if self._digital is None:
            n = self.work["examples"]
            each = self._joules(self.counts(n, 0)) / n
            self._digital = each, self._joules(self.counts(0, 1))
        return self._digital[0] * examples + self._digital[1] * steps

    def result(self, examples: int, steps: int, epochs: float) -> dict[str, Any]:
        """Return the sections of result.json: ledger, energy, and budget if there is one."""
        work = self.counts(examples, steps)
        parts, digital = self.energy_parts(work), self.costs.digital(work)
        whole, other = sum(parts.values()), sum(digital.values())
        if self._tiles:
            seconds = sum(self.costs.seconds(work, bipolar=self.bipolar).values())
        else:
            seconds = self.costs.digital_seconds(work)
        found: dict[str, Any] = {
            "ledger": {"total": work, "layers": self.by_layer()},
            "energy": {
                "model": self.config.energy_model,
                "parts": parts,
                "total": whole,
                "per_example": whole / examples,
                "per_epoch": whole / epochs,
                "seconds_per_example": seconds / examples,
                "digital": {**digital, "total": other, "per_example": other / examples},
                "digital_seconds_per_example": self.costs.digital_seconds(work) / examples,
                "ratio": other / whole if whole else None,
            },
        }
        if self.config.budget_amount is not None:
            found["budget"] = {
                "kind": self.config.budget,
                "amount": self.config.budget_amount,
                "spent": self.spent(examples, steps),
                "used_up": self.used_up(examples, steps),
                "epochs": epochs,
            }
        return found


def wear(model: nn.Module, endurance: float | None) -> dict[str, Any]:
    """Return by layer how many pulses devices had, and the share of devices above ``endurance``.

    {} where wear was not tracked.
    """
    found: dict[str, list[Tensor]] = {}
    for name, pulses in worn(model):
        found.setdefault(name, []).append(pulses)
    table = {}
    for layer, parts in found.items():
        pulses = torch.cat(parts).double()
        table[layer] = {
            "devices": len(pulses),
            "mean": pulses.mean().item(),
            "most": int(pulses.max()),
        }
        if endurance is not None:
            table[layer]["share_above"] = (pulses > endurance).double().mean().item()
    return table


def worn(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return (layer, pulses of each device, SET and RESET) of the tiles that track wear."""
    found = []
    for name, tile in tiles(model).items():
        kept = wear_of(tile.synapse)
        if kept is not None:
            found.append((layer_of(name), kept.set_pulses + kept.reset_pulses))
    return found
