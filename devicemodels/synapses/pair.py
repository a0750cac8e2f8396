"""Differential pair of PCM devices: W = (G+ - G-) / beta, SET-only, with refresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from devicemodels import kernels
from devicemodels.devices.pcm import PCMArray, PCMParameters
from devicemodels.errors import InputError
from devicemodels.kernels.reference import DUE_BLOCK
from devicemodels.pulses import PulseEvents
from devicemodels.quantities import Parameters, quantity
from devicemodels.state import Chance
from devicemodels.synapses.base import Programmable, Synapse
from devicemodels.synapses.saturation import Candidates

#: What was never read is due at any time.
_NOW = float("-inf")
#: No real update sends more pulses at once; a diverging one would ask for all memory.
_MOST_PULSES = 10**8


@dataclass(frozen=True, kw_only=True)
class PairParameters(Parameters):
    """How two PCM devices make a weight, and when a saturated pair is written anew."""

    beta: float = quantity("uS/weight", 1e-9, 1e9, "conductance difference of a weight of 1")
    refresh_above: float = quantity("uS", 0, 1e4, "refresh a pair with a device read above this")
    refresh_below: float = quantity("uS", 0, 1e4, "... whose difference reads below this")
    refresh_pulses: float = quantity(
        "pulse", 0, 1e3, "most SET pulses to write it back", whole=True
    )
    initial_mean: float = quantity("uS", 0, 1e4, "mean conductance as fabricated")
    initial_std: float = quantity("uS", 0, 1e4, "spread of the conductance as fabricated")
    initial_pulses: float = quantity("pulse", 0, 1e6, "SET pulses as fabricated", whole=True)


class DifferentialPair(Synapse):
    """``out x in`` weights on 2 x out x in PCM devices.

    A positive event pulses G+, a negative one G-: PCM conductance only grows gradually. The
    weights are read from a cache that is exact for every pair just pulsed; drift of the others
    is brought up to date before a conductance is off by more than ``drift_tolerance`` of itself
    (0: at every read; by default 0.5 %, a sixth of what a read's noise is). The factor of a device
    of age t >= T0 changes by nu dt / t of itself, so that old devices need it rarely: each block
    of weights has a time at which it is due.

    weight: (out, in) float32. variance: of a read of each, bfloat16. due_s: of each block, float64.
    """

    scalars: ClassVar = Synapse.scalars | {"read_at_s": float, "ahead_s": float}
    devices_per_weight = 2
    can_saturate = True
    weight: Tensor
    variance: Tensor | None
    due_s: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        device: PCMParameters,
        pair: PairParameters,
        chance: Chance,
        drift_tolerance: float = 5e-3,
    ) -> None:
        super().__init__(shape, chance)
        if not 0 <= drift_tolerance < 1:
            raise InputError(f"drift_tolerance = {drift_tolerance}: give 0 (exact) to below 1")
        self.pair, self.drift_tolerance = pair, drift_tolerance
        self.size = shape[0] * shape[1]
        self.devices = PCMArray(2 * self.size, device, chance)
        self.register_buffer("weight", torch.zeros(shape, dtype=torch.float32))
        noisy = device.reads_noisily
        variance = torch.zeros(shape, dtype=torch.bfloat16) if noisy else None
        self.register_buffer("variance", variance)
        blocks = -(-self.size // DUE_BLOCK)
        self.register_buffer("due_s", torch.full((blocks,), _NOW, dtype=torch.float64))
        self.read_at_s, self.ahead_s = _NOW, 0.0
        self._due_first_s = _NOW
        self._candidates = Candidates(self.size, device, pair.refresh_above, pair.refresh_below)
        self.register_load_state_dict_post_hook(lambda pair, _: pair._look_anew())

    def _look_anew(self) -> None:
        """Find out what is known of the devices without looking at all of them."""
        self._due_first_s = float(self.due_s.min())
        self._candidates.forget()

    @property
    def granularity(self) -> float:
        return self.devices.physics.mean_step / self.pair.beta

    def pulse(self, events: PulseEvents, now_s: float) -> None:
        if not len(events):
            return
        total = events.total
        if total > _MOST_PULSES:
            raise InputError(
                f"{total:.3g} pulses for {len(events)} PCM pairs at once: a device is full after "
                "some twenty; lower the learning rate"
            )
        kernels.pulse_pairs(*self._state(), events, self.chance.normal(total), now_s, *self._way())
        self.set_pulses += total
        if self.devices.wear is not None:
            device = events.index + self.size * (events.count < 0)
            self.devices.wear.add(device, events.count.abs())
        self._were_pulsed(events.index, now_s)

    def programmable(self, now_s: float) -> Programmable | None:
        if self.devices.wear is not None:  # counts the pulses of each device
            return None
        beta_us, physics, tolerance, _, *caches = self._way()
        near = self._candidates.high_us, self._candidates.both_us
        seed = self.chance.seed_next()
        return Programmable(
            self._state(), tuple(caches), beta_us, physics, tolerance, now_s, *near, seed
        )

    def was_programmed(self, pulses: int, near: Tensor | None, now_s: float) -> None:
        if not pulses:
            return
        self.set_pulses += pulses
        if near is None:
            self._candidates.many_pulsed()
            near = torch.empty(0, dtype=torch.int64, device=self.weight.device)
        self._were_pulsed(near, now_s)

    def _state(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        d = self.devices._buffers  # what torch does to find a buffer takes longer than many a pulse
        return d["conductance_us"], d["pulses"], d["programmed_at_s"], d["exponent"]  # type: ignore[return-value]

    def _way(self) -> tuple[Any, ...]:
        """Return how devices are read, and into what."""
        own: Any = self._buffers
        variance = None if own["variance"] is None else own["variance"].view(-1)
        constants = self.pair.beta, self.devices.physics, self.drift_tolerance, self.ahead_s
        return *constants, own["weight"].view(-1), variance, own["due_s"]

    def _read(self, now_s: float, index: Tensor | None = None) -> None:
        g, _, at_s, nu = self._state()
        stays_s = kernels.read_pairs(g, at_s, nu, index, now_s, *self._way())
        if index is None:
            # What is due soon is read along: many blocks at once cost less than a few each time.
            self.ahead_s = stays_s / 2
            self._due_first_s = float(self.due_s.min())
        else:
            self._were_pulsed(index, now_s)

    def _were_pulsed(self, index: Tensor, now_s: float) -> None:
        self._candidates.pulsed(index)
        # What was pulsed does not drift before T0.
        self._due_first_s = min(self._due_first_s, now_s + self.devices.physics.t0_s)

    def _bring_up_to_date(self, now_s: float) -> None:
        if now_s < self.read_at_s:  # an earlier time than what is known
            self._forget_reads()
        if self._due_first_s < now_s:
            self._read(now_s)
            self.read_at_s = now_s

    def read_exactly(self) -> None:
        self.drift_tolerance = 0.0
        self._forget_reads()

    def _forget_reads(self) -> None:
        self.due_s.fill_(_NOW)
        self._due_first_s = _NOW

    def read(self, now_s: float) -> tuple[Tensor, Tensor | None]:
        self._bring_up_to_date(now_s)
        return self._buffers["weight"], self._buffers["variance"]  # type: ignore[return-value]

    def weights(self, now_s: float) -> Tensor:
        return self.read(now_s)[0]

    def read_variance(self, now_s: float) -> Tensor | None:
        return self.read(now_s)[1]

    def program(self, weights: Tensor, now_s: float) -> None:
        p, d = self.devices.physics, self.devices
        target = weights.detach().reshape(-1).to(d.conductance_us) * self.pair.beta
        rest = max(p.reset_mean, p.g_min)
        both = torch.cat([target.clamp(min=0), (-target).clamp(min=0)]) + rest
        d.conductance_us.copy_(both.clamp_(p.g_min, p.g_max))
        self._as_new(now_s)

    def fabricate(self) -> bool:
        p, d = self.devices.physics, self.devices
        g = self.pair.initial_mean + self.pair.initial_std * self.chance.normal(2 * self.size)
        d.conductance_us.copy_(g.clamp_(p.g_min, p.g_max))
        self._as_new(0.0)
        return True

    def _as_new(self, now_s: float) -> None:
        self.devices.pulses.fill_(int(self.pair.initial_pulses))
        self.devices.programmed_at_s.fill_(now_s)
        self._forget_reads()
        self._look_anew()

    def refresh(self, now_s: float) -> int:
        """RESET saturated pairs and write their difference back (Front. Neurosci. 14:406).

        Both decisions and the difference come from one noisy read. The number of SET pulses is
        the one whose mean response comes nearest, without verify.
        """
        index, difference = self._saturated(now_s)
        if not index.numel():
            return 0
        levels = self.devices.physics.mean_set_response(int(self.pair.refresh_pulses))
        rise = torch.tensor(levels, dtype=torch.float64, device=difference.device) - levels[0]
        count = (difference.abs().unsqueeze(1) - rise).abs().argmin(1)
        self.devices.reset(torch.cat([index, index + self.size]), now_s)
        write = count > 0
        self.devices.set((index + self.size * (difference < 0))[write], count[write], now_s)
        self.reset_pulses += 2 * len(index)
        self.set_pulses += int(count.sum())
        self.refreshes += len(index)
        self._read(now_s, index)
        return len(index)

    def _saturated(self, now_s: float) -> tuple[Tensor, Tensor]:
        """Return the pairs to refresh: index (n,), and read difference (n,) [µS], float64."""
        d = self.devices
        index = self._candidates.look(d.conductance_us)
        if not index.numel():
            return index, torch.empty(0, dtype=torch.float64, device=index.device)
        physics, pair = d.physics, self.pair
        normals = self.chance.normal(2, len(index)) if physics.reads_noisily else None
        return kernels.saturated_pairs(
            d.conductance_us,
            d.programmed_at_s,
            d.exponent,
            index,
            now_s,
            physics,
            pair.refresh_above,
            pair.refresh_below,
            normals,
        )

    def saturated(self, now_s: float) -> tuple[int, int]:
        g = self.conductances(now_s)
        high = torch.maximum(g["G+"], g["G-"]) > self.pair.refresh_above
        return int(high.sum()), self.size

    def conductances(self, now_s: float) -> dict[str, Tensor]:
        g = self.devices.conductance(now_s)
        return {"G+": g[: self.size], "G-": g[self.size :]}
