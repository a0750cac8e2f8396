"""Kernels in plain torch: the specification the faster forms are tested against."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from devicemodels.kernels import reference as devices

if TYPE_CHECKING:
    from devicemodels.devices.pcm import PCMParameters
    from mcatrain.periphery import Converters


#: A request of this size is no longer counted exactly in float64: something has diverged.
MOST_PULSES = 2**53

#: Random bits of `coincidences_sum` at a time: 16 MiB of float32; sums of so many are exact in it.
_BITS = 2**22


def convert(
    x: Tensor,
    weights: Tensor,
    variance: Tensor | None,
    c: Converters,
    divisor: float,
    dither: Tensor | None,
    normals: Tensor | None,
    output_dither: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return y = ADC(W DAC(x) + noise), once, and the rows with an output at its bound.

    x: (n, in). weights, variance: (out, in), of each weight and of one read of it (None: reads
    are exact). divisor: bound management drives the lines with x / divisor and multiplies the
    outputs back. dither (n, in), output_dither (n, out): uniform, for stochastic rounding; None
    rounds to nearest. normals: (n, out), None without noise. Returns (n, out) and
    indices (m,), None if m = 0.
    """
    scale = x.new_full((len(x), 1), divisor)
    if c.noise_management:
        scale = scale * x.abs().amax(dim=1, keepdim=True)
    x = x / torch.where(scale > 0, scale, 1.0)
    if levels := c.input_levels:
        x = _round(x.clamp(-1, 1) * levels, dither).clamp(-levels, levels) / levels
    y = linear(x, weights)
    if normals is not None:
        spread = c.output_noise**2 + (0.0 if variance is None else linear(x * x, variance))
        y = y + normals * (spread.sqrt() if isinstance(spread, Tensor) else math.sqrt(spread))
    clipped = (y.abs() >= c.output_bound).any(dim=1).nonzero().squeeze(1)
    y = y.clamp(-c.output_bound, c.output_bound)
    if levels := c.output_levels:
        step = c.output_bound / levels
        y = _round(y / step, output_dither).clamp(-levels, levels) * step
    return y * scale, clipped if len(clipped) else None


def _round(value: Tensor, dither: Tensor | None) -> Tensor:
    return value.round() if dither is None else (value + dither).floor()


def spend(chi: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Take p = trunc(chi / epsilon) whole pulses out of chi, in place.

    chi: float32, any shape, contiguous. Returns the flat index (n,) and count p (n,) of the
    entries with p != 0, int64, at most MOST_PULSES. chi keeps chi - p epsilon exactly as float64
    would, rounded once.
    """
    flat = chi.view(-1)
    index = (flat.abs() >= epsilon * (1 - 1e-6)).nonzero().squeeze(1)
    value = flat[index].double()
    count = (value / epsilon).trunc().clamp(-MOST_PULSES, MOST_PULSES)
    kept = count != 0
    index, count = index[kept], count[kept]
    flat[index] = (value[kept] - count * epsilon).float()
    return index, count.long()


def accumulate(
    chi: Tensor, x: Tensor, d: Tensor, scale: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Add scale d x^T to chi in place and `spend`: the step of plain SGD on one example.

    chi: (out, in), below epsilon everywhere before. x: (in,), d: (out,). Returns as `spend`.
    """
    chi.addr_(d, x, alpha=scale)
    return spend(chi, epsilon)


def program_pairs(
    chi: Tensor,
    gradient: Tensor | tuple[Tensor, Tensor] | None,
    scale: float,
    epsilon: float,
    conductance_us: Tensor,
    pulses: Tensor,
    programmed_at_s: Tensor,
    exponent: Tensor,
    now_s: float,
    beta_us: float,
    parameters: PCMParameters,
    seed: int,
    limit: int,
    weight: Tensor,
    variance: Tensor | None,
) -> Tensor:
    """Add scale times the gradient to chi, `spend` it, pulse the PCM pairs, and read these anew.

    All in place: the step of plain SGD on a differential pair. chi: (out, in). gradient: (out,
    in), or its factors x (n, in) and d (n, out) of d^T x, or None for nothing to add. The devices
    as in `set_pulses` and `read_pairs`; those pulsed were programmed at now_s. seed: 0 to
    2^63 - 1; the forms draw other numbers from it: with write noise they agree in distribution
    only. Returns int64 (3,), on the device of chi: events, pulses, and the most pulses of one
    event; if these are more than ``limit``, no device was touched.
    """
    if isinstance(gradient, tuple):
        chi.addmm_(gradient[1].T, gradient[0], alpha=scale)
    elif gradient is not None:
        chi.add_(gradient, alpha=scale)
    index, signed = spend(chi, epsilon)
    count = signed.abs()
    most = int(count.max()) if len(count) else 0
    counters = torch.tensor([len(index), int(count.sum()), most], device=chi.device)
    if not len(index) or most > limit:
        return counters
    normals = torch.empty(int(count.sum()), device=chi.device)
    devices.normals(normals, seed)
    device = index + chi.numel() * (signed < 0)
    devices.set_pulses(conductance_us, pulses, device, count, normals, parameters)
    programmed_at_s[device] = now_s
    devices.read_pairs(
        conductance_us, programmed_at_s, exponent, index, now_s, beta_us, parameters, weight,
        variance,
    )  # fmt: skip
    return counters


def coincidences(
    x: Tensor, d: Tensor, gain_x: float, gain_d: float, chance_x: Tensor, chance_d: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the coincidences of two stochastic bit streams (Gokmen & Vlasov 2016).

    x: (in,), d: (out,). chance_x: (BL, in), chance_d: (BL, out) uniform. A line fires in a slot
    with probability min(gain |value|, 1); a slot where both fire is one pulse of the sign of
    -x d. Returns flat index (row-major, out x in) ascending and signed count (n,), int64.
    """
    a = (chance_x < gain_x * x.abs()).float() * x.sign()
    b = (chance_d < gain_d * d.abs()).float() * d.sign()
    # The sign of a weight's pulses is the same in every slot, so sums of products count them.
    counts = -(b.T @ a).view(-1)
    index = counts.nonzero().squeeze(1)
    return index, counts[index].long()


def coincidences_sum(
    x: Tensor, d: Tensor, gains_x: Tensor, gains_d: Tensor, slots: Tensor, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the `coincidences` of every row of x and d, summed over the rows.

    x: (n, in), d: (n, out), float32. gains_x, gains_d: (n,), float64; slots: (n,), int64, the BL
    of each row, 0 for none. seed: 0 to 2^63 - 1; the forms draw other numbers from it, so that
    they agree in distribution only. Returns up and down pulses apart, each as flat index (m,)
    (row-major, out x in) ascending and count (m,), int64: above 0 for up, below for down.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    outputs, inputs = d.shape[1], x.shape[1]
    p = (gains_x.unsqueeze(1) * x.abs()).float(), (gains_d.unsqueeze(1) * d.abs()).float()
    signs = x.sign(), d.sign()
    longest = int(slots.max()) if len(slots) else 0
    slot = torch.arange(longest, device=x.device)
    up, down = torch.zeros(2, outputs * inputs, dtype=torch.int64, device=x.device)
    # Few slots of a row at a time if even one row is too much: a stream may have any length.
    columns = max(_BITS // (inputs + outputs), 1)
    rows = max(columns // max(longest, 1), 1)
    for part in slot.split(columns):
        for start in range(0, len(x), rows):
            at = slice(start, start + rows)
            runs = part < slots[at].unsqueeze(1)
            a, b = (
                torch.rand(*runs.shape, q.shape[1], generator=generator, device=x.device)
                < q[at].unsqueeze(1)
                for q in p
            )
            a = (a & runs.unsqueeze(2)).float()
            b = b.float()
            # All pulses, and up less down: the products of the bits without and with signs.
            both = b.flatten(0, 1).T @ a.flatten(0, 1)
            a, b = a * signs[0][at].unsqueeze(1), b * signs[1][at].unsqueeze(1)
            signed = -(b.flatten(0, 1).T @ a.flatten(0, 1))
            up += ((both + signed) / 2).long().view(-1)
            down -= ((both - signed) / 2).long().view(-1)
    return _sparse(up), _sparse(down)


def _sparse(counts: Tensor) -> tuple[Tensor, Tensor]:
    index = counts.nonzero().squeeze(1)
    return index, counts[index]
