"""Kernels in plain torch: the specification the faster forms are tested against."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from mcatrain.kernels.cells import lstm_backward
from mcatrain.kernels.windows import add_patches, patches

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

__all__ = [
    "accumulate",
    "add_patches",
    "coincidences",
    "coincidences_sum",
    "convert",
    "lstm_backward",
    "noise_product",
    "patches",
    "spend",
]

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

    x: (n, in). weights: (out, in), float32. variance: (out, in), bfloat16, of one read of each
    weight (None: reads are exact). divisor: bound management drives the lines with x / divisor
    and multiplies the outputs back. dither (n, in), output_dither (n, out): uniform, for
    stochastic rounding; None rounds to nearest. normals: (n, out), None without noise. Returns
    (n, out) and indices (m,), None if m = 0.
    """
    scale = x.new_full((len(x), 1), divisor)
    if c.noise_management:
        scale = scale * x.abs().amax(dim=1, keepdim=True)
    x = x * (1 / torch.where(scale > 0, scale, 1.0))
    if levels := c.input_levels:
        x = _round(x.clamp(-1, 1) * levels, dither).clamp(-levels, levels) * (1 / levels)
    y = linear(x, weights)
    if normals is not None:
        if variance is None:
            y = y + normals * c.output_noise
        else:
            spread = noise_product((x * x).to(variance.dtype), variance).float()
            y = y + normals * (c.output_noise**2 + spread).sqrt()
    clipped = (y.abs() >= c.output_bound).any(dim=1).nonzero().squeeze(1)
    y = y.clamp(-c.output_bound, c.output_bound)
    if levels := c.output_levels:
        step = c.output_bound / levels
        y = _round(y * (1 / step), output_dither).clamp(-levels, levels) * step
    return y * scale, clipped if len(clipped) else None


@cache
def _multiplies_bfloat16() -> bool:
    """Does this machine's processor multiply bfloat16 itself?"""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("bf16"))


def noise_type(like: Tensor) -> torch.dtype:
    """Return the type in which variances are multiplied on the machine of ``like``.

    bfloat16 where its products are a small part of those of float32, else float32.
    """
    return torch.float32 if like.is_cpu and not _multiplies_bfloat16() else torch.bfloat16


def noise_product(squares: Tensor, variance: Tensor) -> Tensor:
    """Return squares (n, in) times variance^T (in, out), the variances of outputs; all bfloat16.

    Sums are float32; factors and result are rounded by at most 0.4 %, to nearest, so that no mean
    shifts and a standard deviation is right to 0.6 % (the mean over many sums: far better).
    """
    kind = noise_type(squares)
    if squares.dtype == variance.dtype == kind:
        return torch.mm(squares, variance.T)
    return torch.mm(squares.to(kind), variance.T.to(kind)).to(variance.dtype)


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
