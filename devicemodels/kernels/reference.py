"""Kernels in plain torch: the specification the faster forms are tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from devicemodels.pulses import rounds

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters
    from devicemodels.devices.step import StepResponse
    from devicemodels.pulses import PulseEvents


def normals(out: Tensor, seed: int) -> None:
    """Fill ``out``, float32 and contiguous, with independent standard normals.

    seed: 0 to 2^63 - 1; the forms draw other numbers from it: they agree in distribution only.
    """
    out.normal_(generator=torch.Generator(out.device).manual_seed(seed))


def tally(count: Tensor) -> tuple[int, int]:
    """Return the sum of what is above 0 in ``count`` (n,), int64, and of what is below, as > 0."""
    up = int(count.clamp(min=0).sum())
    return up, up - int(count.sum())


def set_pulses(
    conductance_us: Tensor,
    pulses: Tensor,
    index: Tensor,
    count: Tensor,
    normals: Tensor,
    parameters: PCMParameters,
    repeats: bool = False,
) -> None:
    """Apply identical SET pulses to PCM devices, in place (J. Appl. Phys. 124, 152135).

    conductance_us: (n,) float32 [µS] at T0 after programming. pulses: (n,) int32 since the last
    RESET. index, count: (e,) int64, devices and their pulses (> 0). normals: one per pulse, an
    event's pulses side by side. repeats: whether a device may have several events; they are
    applied in their order.
    """
    p = parameters
    first = count.cumsum(0) - count
    for part in rounds(index) if repeats else (slice(None),):
        device, number, draw = index[part], count[part], first[part]
        g = conductance_us[device].double()
        done = pulses[device].double()
        for k in range(int(number.max()) if len(number) else 0):
            live = number > k
            z = normals[(draw + k).clamp(max=len(normals) - 1)].double()
            history = torch.exp(-(done + 1 + k) / p.a)
            mean = p.m1 * g + p.c1 + p.A1 * history
            spread = (p.m2 * g + p.c2 + p.A2 * history).clamp(min=0)
            g = torch.where(live, (g + mean + spread * z).clamp(p.g_min, p.g_max), g)
        conductance_us[device] = g.float()
        pulses[device] += number.int()


def drifted(
    conductance_us: Tensor, programmed_at_s: Tensor, exponent: Tensor, now_s: float, t0_s: float
) -> Tensor:
    """Return G(now) = G (age/T0)^(-nu) [µS]; the factor is 1 for ages under T0."""
    age = (now_s - programmed_at_s).div_(t0_s).clamp_(min=1.0).float()
    return conductance_us * torch.exp(-exponent * torch.log(age))


#: Weights that are brought up to date together.
DUE_BLOCK = 64


def read_pairs(
    conductance_us: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    index: Tensor | None,
    now_s: float,
    beta_us: float,
    parameters: PCMParameters,
    tolerance: float,
    ahead_s: float,
    weight: Tensor,
    variance: Tensor | None,
    due_s: Tensor,
) -> float:
    """Write the read weight and its read-noise variance, of ``index`` or of what is due.

    The first three are (2n,): G+ of weight i at i, its G- at n + i. weight: (n,) float32,
    variance: (n,) bfloat16 (rounded by at most 0.4 %), dimensionless; None when the devices read
    without noise. due_s: (ceil(n / DUE_BLOCK),) float64, when a block of weights must be read
    again for no conductance to be off by more than ``tolerance`` of itself. index None: the
    blocks with due_s < now_s + ahead_s are read, and due again when their first device is; else
    the pairs ``index`` are read, and their blocks are due no later than these ask for. Returns how
    long all that was read may stay as it is [s].

    A factor (age / T0)^(-nu) changes by nu dt / age of itself, and not at all below T0.
    """
    n = weight.numel()
    if index is None:
        due = due_s < now_s + ahead_s
        where = due.repeat_interleave(DUE_BLOCK)[:n].nonzero().squeeze(1)
    else:
        where = index
    t0_s = parameters.t0_s
    g = []
    stays_s = torch.full_like(where, float("inf"), dtype=torch.float64)
    for half in (slice(0, n), slice(n, 2 * n)):
        state, at_s, nu = (t[half][where] for t in (conductance_us, programmed_at_s, exponent))
        g.append(drifted(state, at_s, nu, now_s, t0_s))
        age_s = now_s - at_s
        stays_s = stays_s.minimum(
            (t0_s - age_s).clamp(min=0) + tolerance * age_s.clamp(min=t0_s) / nu.clamp(min=1e-12)
        )
    weight[where] = (g[0] - g[1]) / beta_us
    if variance is not None:
        m3, c3 = parameters.m3, parameters.c3
        spread = ((m3 * g[0] + c3) ** 2 + (m3 * g[1] + c3) ** 2) / beta_us**2
        variance[where] = spread.to(variance.dtype)
    block = where // DUE_BLOCK
    if index is None:
        due_s[due] = float("inf")
    due_s.scatter_reduce_(0, block, now_s + stays_s, "amin")
    return float(stays_s.min()) if len(stays_s) else float("inf")


def pulse_pairs(
    conductance_us: Tensor,
    pulses: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    events: PulseEvents,
    normals: Tensor,
    now_s: float,
    *way: Any,
) -> None:
    """Send SET pulses to pairs, up to G+ and down to G-, and read these again.

    The first four as in `set_pulses` and `read_pairs`, normals as in `set_pulses`, way as the
    arguments of `read_pairs` after now_s.
    """
    n, parameters = conductance_us.numel() // 2, way[1]
    index, count = events.index + n * (events.count < 0), events.count.abs()
    set_pulses(conductance_us, pulses, index, count, normals, parameters, events.repeats)
    programmed_at_s[index] = now_s
    read_pairs(conductance_us, programmed_at_s, exponent, events.index, now_s, *way)


def high_pairs(conductance_us: Tensor, above_us: float, both_us: float) -> Tensor:
    """Return the pairs with an undrifted conductance above ``above_us``, and both above
    ``both_us``, ascending.

    conductance_us: (2n,) float32 as in `read_pairs`. Returns int64 (m,).
    """
    n = conductance_us.numel() // 2
    plus, minus = conductance_us[:n], conductance_us[n:]
    high = (torch.maximum(plus, minus) > above_us) & (torch.minimum(plus, minus) > both_us)
    return high.nonzero().squeeze(1)


def saturated_pairs(
    conductance_us: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    index: Tensor,
    now_s: float,
    parameters: PCMParameters,
    above_us: float,
    below_us: float,
    normals: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Read the pairs ``index`` once and return those to refresh, ascending as index is.

    normals: (2, m), of the reads of G+ and of G-; None reads without noise. A pair is due where a
    read lies above ``above_us`` and the two less than ``below_us`` apart. Returns their index (k,)
    and the read difference (k,) [µS], float64.
    """
    n, p = conductance_us.numel() // 2, parameters
    reads = []
    for half, where in enumerate((index, index + n)):
        state, at_s, nu = (t[where] for t in (conductance_us, programmed_at_s, exponent))
        g = drifted(state, at_s, nu, now_s, p.t0_s)
        reads.append(g if normals is None else g + (p.m3 * g + p.c3) * normals[half])
    difference = (reads[0] - reads[1]).double()
    worn = (torch.maximum(*reads) > above_us) & (difference.abs() < below_us)
    return index[worn], difference[worn]


def step_pulses(
    state: Tensor,
    devices: Tensor,
    index: Tensor,
    count: Tensor,
    normals: Tensor,
    spread: float,
    response: StepResponse,
    repeats: bool = False,
) -> None:
    """Apply up and down pulses to bipolar devices, in place.

    state: (n,), devices: (n, 4), float32, weight units; a device has its steps down (below 0) and
    up, its lower and its upper bound. index, count: (e,), devices
    and their signed pulses. repeats: whether a device may have several events; they are applied in
    their order. A pulse moves the state by its step times the response (1 + spread z),
    clipped to the bounds. While the response is constant, n equal pulses are one draw,
    n step + sqrt(n) spread step z: one normal an event. Else one normal per pulse.
    """
    first = count.abs().cumsum(0) - count.abs()
    for part in rounds(index) if repeats else (slice(None),):
        device, number, up = index[part], count[part].abs(), count[part] > 0
        w = state[device].double()
        fall, rise, low, high = devices[device].double().unbind(1)
        step = torch.where(up, rise, fall)
        if response.kind == "constant":
            z = normals[: len(index)][part].double()
            moved = w + step * (number + spread * number.double().sqrt() * z)
            state[device] = moved.clamp(low, high).float()
            continue
        for k in range(int(number.max()) if len(number) else 0):
            z = normals[(first[part] + k).clamp(max=len(normals) - 1)].double()
            moved = w + step * response.scale(w, up, high, low) * (1 + spread * z)
            w = torch.where(number > k, moved.clamp(low, high), w)
        state[device] = w.float()
