"""Matrix products of float32, by whichever of torch's two libraries uses the whole processor.

torch multiplies matrices by MKL, which leaves half of the width of AMD's 512-bit processors unused;
oneDNN, torch's library for convolutions, does not (twice as fast on Zen 5).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from mcatrain.kernels import reference
from mcatrain.kernels.processor import capabilities

#: Rows, and multiplications, below which oneDNN's call takes longer than MKL's whole product.
_ROWS, _WORTH = 4, 2**20
#: Terms of each sum from which on oneDNN makes up for the sums' way through memory.
_TERMS = 16


@cache
def onednn_is_faster() -> bool:
    """Is this a processor that MKL uses by half, and can torch call oneDNN on it?"""
    found = capabilities()
    if not found.get("avx512_f") or not str(found.get("cpu_name", "")).startswith("AMD"):
        return False
    x = torch.arange(6.0).view(2, 3)
    try:
        return torch.equal(_by_onednn(x, x), torch.mm(x, x.T))
    except (AttributeError, RuntimeError, TypeError):  # it is not of torch's public interface
        return False


def _by_onednn(x: Tensor, w: Tensor) -> Tensor:
    if not (w.is_contiguous() or w.T.is_contiguous()):
        w = w.contiguous()  # parts of a matrix are multiplied a thousand times more slowly
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
    return y


def product(x: Tensor, w: Tensor, out: Tensor | None = None) -> Tensor:
    if not _is_for_onednn(x, w):
        return reference.product(x, w, out)
    y = _by_onednn(x, w)
    return y if out is None else out.copy_(y)


def add_product(to: Tensor, x: Tensor, w: Tensor, alpha: float) -> None:
    if x.shape[1] < _TERMS or not _is_for_onednn(x, w):
        reference.add_product(to, x, w, alpha)
    else:
        to.add_(_by_onednn(x, w), alpha=alpha)


def _is_for_onednn(x: Tensor, w: Tensor) -> bool:
    n = x.shape[0]
    return n >= _ROWS and n * w.numel() >= _WORTH and onednn_is_faster()
