"""Kernels in plain torch: the specification the faster forms are tested against."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mcatrain.kernels.cells import lstm_backward, lstm_forward
from mcatrain.kernels.lines import Lines
from mcatrain.kernels.patchwise import convert_patches, convert_to_patches
from mcatrain.kernels.processor import capabilities
from mcatrain.kernels.windows import add_patches, patches

if TYPE_CHECKING:
    from mcatrain.periphery import Converters

__all__ = [
    "Lines",
    "accumulate",
    "add_patches",
    "coincidences",
    "coincidences_sum",
    "convert",
    "convert_patches",
    "convert_to_patches",
    "descend",
    "gains",
    "is_finite",
    "lstm_backward",
    "lstm_forward",
    "noise_product",
    "patches",
    "spend",
]

#: Who asks so many of one weight at once has diverged; sums over any array are exact in int64.
MOST_PULSES = 2**35

#: Events of `coincidences` from which on rows wait for the next call: 16 MiB.
MOST_EVENTS = 2**20

#: Scales below have no inverse in float32: such vectors are driven as they are, which is nothing.
LEAST_SCALE = 2.0**-126

#: Weights of an array up to which a processor is done with float32 before bfloat16 has begun.
_FEW = 2**13

#: Random bits of coincidences at a time: 16 MiB of float32; sums of so many are exact in it.
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
    x = x * (1 / torch.where(scale >= LEAST_SCALE, scale, 1.0))
    if levels := c.input_levels:
        x = _round(x.clamp(-1, 1) * levels, dither).clamp(-levels, levels) * (1 / levels)
    y = product(x, weights)
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


def product(x: Tensor, w: Tensor, out: Tensor | None = None) -> Tensor:
    """Return x (n, in) times w^T (in, out), float32, in out (n, out) if given; without a graph."""
    return torch.mm(x, w.T, out=out)


def add_product(to: Tensor, x: Tensor, w: Tensor, alpha: float) -> None:
    """Add alpha x w^T to a matrix, as for `product`, in place."""
    to.addmm_(x, w.T, alpha=alpha)


@cache
def _multiplies_bfloat16() -> bool:
    """Does this machine's processor multiply bfloat16 itself?"""
    found = capabilities()
    return bool(found.get("avx512_bf16") or found.get("bf16"))


def noise_type(like: Tensor) -> torch.dtype:
    """Return the type in which variances are multiplied on the machine of ``like``.

    bfloat16 where its products are a small part of those of float32, else float32.
    """
    return torch.float32 if like.is_cpu and not _multiplies_bfloat16() else torch.bfloat16


def noise_product(squares: Tensor, variance: Tensor, out: Tensor | None = None) -> Tensor:
    """Return squares (n, in) times variance^T (in, out), the variances of outputs; all bfloat16.

    out (n, out): where it goes, if given.

    Sums are float32; factors and result are rounded by at most 0.4 %, to nearest, so that no mean
    shifts and a standard deviation is right to 0.6 % (the mean over many sums: far better).
    """
    few = squares.is_cpu and variance.numel() <= _FEW
    kind = torch.float32 if few else noise_type(squares)
    if squares.dtype == variance.dtype == kind:
        return torch.mm(squares, variance.T, out=out)
    product = torch.mm(squares.to(kind), variance.T.to(kind)).to(variance.dtype)
    return product if out is None else out.copy_(product)


def _round(value: Tensor, dither: Tensor | None) -> Tensor:
    return value.round() if dither is None else (value + dither).floor()


def is_finite(*values: Tensor) -> bool:
    """Return whether all numbers of one or more tensors are finite."""
    # The sum is finite whenever all entries are (but for an overflow): one pass decides.
    return all(math.isfinite(v.sum().item()) or bool(torch.isfinite(v).all()) for v in values)


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


def descend(chi: Tensor, gradient: Tensor, scale: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """Add scale times the gradient to chi in place and `spend`: the step of plain SGD.

    chi, gradient: float32, alike, contiguous. Returns as `spend`.
    """
    chi.add_(gradient, alpha=scale)
    return spend(chi, epsilon)


def accumulate(
    chi: Tensor, x: Tensor, d: Tensor, scale: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Add scale d x^T to chi in place and `spend`: the step of plain SGD on one example.

    chi: (out, in), below epsilon everywhere before. x: (in,), d: (out,). Returns as `spend`.
    """
    chi.addr_(d, x, alpha=scale)
    return spend(chi, epsilon)


def gains(
    x: Tensor, d: Tensor, lr: float, dw_min: float, longest: int, um: bool, blm: bool
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return the gains C_x, C_d and the slots BL of the streams of every row of x and d.

    x: (n, in), d: (n, out), float32, finite. lr: learning rate. dw_min: mean change of a pulse.
    longest: slots of a stream, at most if ``blm``. um, blm: update and BL management (Gokmen, Rasch
    & Haensch 2018). Returns float64 (n,) twice and int64 (n,), all 0 where nothing can fire, and
    the sum of the slots.
    """
    top_x, top_d = (v.abs().amax(dim=1).double() for v in (x, d))
    slots = torch.full_like(top_x, longest)
    if blm:
        slots = (lr * top_x * top_d / dw_min).clamp(max=longest).ceil().clamp(min=1)
    live = (top_x * top_d * lr != 0).double()
    gain = (lr / (slots * dw_min)).sqrt() * live
    balance = torch.where(live > 0, top_d / top_x, 1.0).sqrt() if um else torch.ones_like(gain)
    slots = (slots * live).long()
    return gain * balance, gain / balance, slots, int(slots.sum())


def coincidences(
    x: Tensor, d: Tensor, gains_x: Tensor, gains_d: Tensor, slots: Tensor, seed: int
) -> tuple[Tensor, Tensor, int]:
    """Return the coincidences of stochastic bit streams, row after row (Gokmen & Vlasov 2016).

    x: (n, in), d: (n, out), float32. gains_x, gains_d, slots: as `gains` returns them. A line
    fires in a slot with probability min(gain |value|, 1); a slot where both fire is one pulse of
    the sign of -x d. seed: 0 to 2^63 - 1; the forms draw other numbers from it, so that they
    agree in distribution only. Returns flat index (m,) (row-major, out x in), signed count (m,),
    int64, and how many rows were done: all, but for those after the first MOST_EVENTS events. The
    events of a row come before those of the next; a weight has one in a row, or several where the
    stream is cut in parts.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    part = max(_BITS // (x.shape[1] + d.shape[1]), 1)
    found, events, rows = [(slots[:0], slots[:0])], 0, 0
    while rows < len(x) and events < MOST_EVENTS:
        p_x, p_d = (gains_x[rows] * x[rows].abs()).float(), (gains_d[rows] * d[rows].abs()).float()
        for slot in range(0, int(slots[rows]), part):
            length = min(int(slots[rows]) - slot, part)
            a, b = (
                (torch.rand(length, len(p), generator=generator, device=x.device) < p).float()
                * sign
                for p, sign in ((p_x, x[rows].sign()), (p_d, d[rows].sign()))
            )
            # A weight's sign is the same in every slot, so a product counts its pulses.
            found.append(_sparse((-(b.T @ a)).long().view(-1)))
            events += len(found[-1][0])
        rows += 1
    index, count = (torch.cat(values) for values in zip(*found, strict=True))
    return index, count, rows


def coincidences_sum(
    x: Tensor, d: Tensor, gains_x: Tensor, gains_d: Tensor, slots: Tensor, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the `coincidences` of every row of x and d, summed over the rows.

    Takes what `coincidences` takes. Returns up and down pulses apart, each as flat index (m,)
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
