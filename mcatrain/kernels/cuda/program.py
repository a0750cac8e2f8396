"""MCA's whole update of an array of PCM pairs in one pass: chi, threshold, pulses, reads.

Nothing is listed or sorted and the card is waited for once: each pulse draws its normal from a
counter (Philox: Salmon et al., SC 2011) of the step's seed, the weight and the pulse, so that it
does not matter which block comes first.
"""

# No `from __future__ import annotations`: triton reads the annotations of kernels as types.
# A float without one would reach a kernel as float32.
import torch
import triton
import triton.language as tl
from torch import Tensor

from devicemodels.kernels.cuda.lists import take_places
from devicemodels.kernels.cuda.pairs import after_pulses
from devicemodels.kernels.cuda.pulses import set_constants, set_once
from devicemodels.synapses.base import Programmable
from mcatrain.kernels.cuda.update import chi_block, is_near, nearly, tiling, whole_pulses

#: Pulses of a weight that no update of training asks for: such a one takes the way of lists,
#: which counts before it touches anything.
MOST = 64
#: Pairs near saturation that are named; of more it is only said that they are many.
_ROOM = 2**16
#: Places of what a launch reports.
_EVENTS, _PULSES, _NEAR, _REFUSED = 0, 1, 2, 3


@triton.jit
def normal_of(seed, weight, pulse):
    """Return the standard normal, float32, of a pulse (from 0) of a weight (flat, int64).

    Box and Muller, Ann. Math. Stat. 29, 610 (1958), of 31 bits each; largest 6.6.
    """
    low, high = (weight & 0xFFFFFFFF).to(tl.uint32), (weight >> 32).to(tl.uint32)
    a, b, _, _ = tl.philox(seed, low, high, low * 0 + pulse, low * 0)
    unit = ((a >> 1).to(tl.float32) + 0.5) * 4.656612873077393e-10
    angle = (b >> 1).to(tl.float32) * 2.9258361598967724e-09  # 2 pi / 2^31
    return tl.sqrt(tl.maximum(-2.0 * tl.log(unit), 0.0)) * tl.cos(angle)


@triton.jit(do_not_specialize=["seed"])
def _program(
    chi, gradient, x, d, top, conductance, pulses, programmed_at, exponent, weight, variance, due,
    near, report, height, width, seed, scale: tl.float32, epsilon: tl.float64, least: tl.float32,
    most: tl.float64, high: tl.float32, both: tl.float32, now: tl.float64, t0: tl.float64,
    rate: tl.float64, tolerance: tl.float32, beta: tl.float32, m3: tl.float32, c3: tl.float32,
    m1: tl.float64, c1: tl.float64, A1: tl.float64, a: tl.float64, m2: tl.float64,
    c2: tl.float64, A2: tl.float64, g_min: tl.float64, g_max: tl.float64, ROOM: tl.constexpr,
    WHOLE: tl.constexpr, NOISY: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """top: pointer to the largest update of a weight; too large a one is refused by all."""
    if tl.load(top).to(tl.float64) <= most * epsilon:
        at, here, value = chi_block(
            chi, gradient, x, d, height, width, scale, True, WHOLE, TALL, WIDE
        )  # fmt: skip
        if is_near(value, least):
            value, asked = whole_pulses(value, here, epsilon, least, most)
            count = tl.reshape(asked, [TALL * WIDE])
            pair = tl.reshape(at, [TALL * WIDE])
            size = height.to(tl.int64) * width
            hit, up, number = count != 0, count > 0, tl.abs(count)
            i = tl.where(up, pair, pair + size)
            g = tl.load(conductance + i, mask=hit, other=0.0).to(tl.float64)
            done = tl.load(pulses + i, mask=hit, other=0)
            for k in range(0, tl.max(number, axis=0).to(tl.int32)):
                z = normal_of(seed, pair, k)
                risen = set_once(g, done + 1 + k, z, m1, c1, A1, a, m2, c2, A2, g_min, g_max)
                g = tl.where(number > k, risen, g)
            set_to = g.to(tl.float32)
            other = tl.load(conductance + tl.where(up, pair + size, pair), mask=hit, other=0.0)
            tl.store(conductance + i, set_to, mask=hit)
            tl.store(pulses + i, done + number.to(tl.int32), mask=hit)
            after_pulses(
                conductance, programmed_at, exponent, weight, variance, due, pair, size, hit, up,
                set_to, now, t0, rate, tolerance, beta, m3, c3, NOISY,
            )  # fmt: skip
            tl.atomic_add(report, tl.sum(hit.to(tl.int64), axis=0))
            tl.atomic_add(report + 1, tl.sum(number, axis=0))
            full = hit & (tl.maximum(set_to, other) > high) & (tl.minimum(set_to, other) > both)
            if tl.max(full.to(tl.int32), axis=0) > 0:
                place = take_places(report + 2, full)
                tl.store(near + place, pair, mask=full & (place < ROOM))
        tl.store(chi + at, value, mask=here)
    else:
        tl.store(report + 3, 1)


def program(
    chi: Tensor,
    gradient: Tensor | None,
    factors: tuple[Tensor, Tensor] | None,
    scale: float,
    epsilon: float,
    to: Programmable,
) -> tuple[int, int, Tensor | None] | None:
    """Add scale times the gradient, or d x^T of factors (x, d), to chi (out, in), and send its
    whole pulses to the devices.

    Returns how many weights were pulsed, with how many pulses, and the pairs (m,) of these that
    may read as saturated (None: too many to name); None, and nothing is touched, where a weight
    may ask for more than MOST pulses.
    """
    height, width = chi.shape
    device, p = chi.device, to.physics
    x, d = (chi, chi) if factors is None else factors
    largest = [gradient] if factors is None else factors
    norms = [torch.linalg.vector_norm(v, float("inf")) for v in largest]
    # What chi holds is below epsilon: a pulse at most comes from it.
    top = torch.stack(norms).prod() * abs(scale) + epsilon
    near = torch.empty(min(_ROOM, chi.numel()), dtype=torch.int64, device=device)
    report = torch.zeros(4, dtype=torch.int64, device=device)
    grid, tall, wide = tiling(height, width)
    g, pulses, at_s, nu = to.state
    weight, variance, due_s = to.caches
    # A kernel takes no None: what it will not touch stands in for it. Fused multiply-adds would
    # round chi - p epsilon once instead of twice.
    _program[grid](
        chi, chi if gradient is None else gradient, x, d, top, g, pulses, at_s, nu, weight,
        weight if variance is None else variance, due_s, near, report, height, width, to.seed,
        scale, epsilon, nearly(epsilon), float(MOST), to.high_us, to.both_us, to.now_s, p.t0_s,
        1 / p.t0_s, to.tolerance, to.beta_us, p.m3, p.c3, *set_constants(p), ROOM=len(near),
        WHOLE=gradient is not None, NOISY=variance is not None, TALL=tall, WIDE=wide,
        enable_fp_fusion=False,
    )  # fmt: skip
    found = report.tolist()  # waits for the card
    if found[_REFUSED]:
        return None
    listed = near[: found[_NEAR]] if found[_NEAR] <= len(near) else None
    return found[_EVENTS], found[_PULSES], listed
