"""Multi-head attention whose four linear maps lie on arrays; the attention itself is digital."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from devicemodels.errors import InputError
from mcatrain.nn.linear import AnalogLinear
from mcatrain.nn.options import Foundry, LayerOptions

_PARTS = ("query", "key", "value")


class AnalogAttention(nn.Module):
    """nn.MultiheadAttention with query, key, value and output maps on arrays of their own.

    Called as the torch layer is. add_bias_kv, add_zero_attn are refused.
    """

    def __init__(
        self, layer: nn.MultiheadAttention, name: str, options: LayerOptions, foundry: Foundry
    ) -> None:
        super().__init__()
        if layer.bias_k is not None or layer.add_zero_attn:
            raise InputError(
                f"layer {name!r} is a MultiheadAttention with add_bias_kv or add_zero_attn: not "
                f"supported on arrays; leave it digital with overrides={{{name!r}: None}}"
            )
        self.embed_dim, self.num_heads = layer.embed_dim, layer.num_heads
        self.kdim, self.vdim = layer.kdim, layer.vdim
        self.batch_first, self.dropout = layer.batch_first, layer.dropout
        # torch's encoder layers look at these to see that their fused path does not apply.
        self._qkv_same_embed_dim = False
        self.in_proj_bias = None
        self.maps = nn.ModuleDict()
        for part, source in zip(_PARTS, _linear_maps(layer), strict=True):
            self.maps[part] = AnalogLinear(source, f"{name}.{part}", options, foundry)
        self.out_proj = AnalogLinear(layer.out_proj, f"{name}.out_proj", options, foundry)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        inputs = [query, key, value] if batched else [t.unsqueeze(0) for t in (query, key, value)]
        if batched and not self.batch_first:
            inputs = [t.transpose(0, 1) for t in inputs]
        heads = [self._heads(self.maps[p](t)) for p, t in zip(_PARTS, inputs, strict=True)]
        scores = heads[0] @ heads[1].transpose(-2, -1) / heads[0].shape[-1] ** 0.5
        if is_causal and attn_mask is None:
            attn_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        scores = self._masked(scores, attn_mask, key_padding_mask)
        weights = dropout(scores.softmax(-1), self.dropout, self.training)
        y = self.out_proj((weights @ heads[2]).transpose(1, 2).flatten(2))
        if not batched:
            y, weights = y.squeeze(0), weights.squeeze(0)
        elif not self.batch_first:
            y = y.transpose(0, 1)
        if not need_weights:
            return y, None
        return y, weights.mean(-3) if average_attn_weights else weights

    def _heads(self, x: Tensor) -> Tensor:
        """Return (batch, heads, time, width) of (batch, time, embed)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _masked(self, scores: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
        if mask is not None:
            if mask.dim() == 3:  # torch's form: (batch heads, time, time)
                mask = mask.view(-1, self.num_heads, *mask.shape[1:])
            scores = _mask(scores, mask)
        if padding is not None:
            scores = _mask(scores, padding.view(-1, 1, 1, padding.shape[-1]))
        return scores

    def unconvert(self) -> nn.MultiheadAttention:
        """Return a torch layer with the weights as they read now without noise."""
        maps: list[Any] = [self.maps[part] for part in _PARTS]
        plain = [m.unconvert() for m in maps]
        has_bias = plain[0].bias is not None
        layer = nn.MultiheadAttention(
            self.embed_dim,
            self.num_heads,
            self.dropout,
            has_bias,
            kdim=self.kdim,
            vdim=self.vdim,
            batch_first=self.batch_first,
        )
        if layer.in_proj_weight is not None:
            layer.in_proj_weight.data = torch.cat([m.weight.data for m in plain])
        else:
            for part, m in zip("qkv", plain, strict=True):
                getattr(layer, f"{part}_proj_weight").data = m.weight.data
        if has_bias:
            layer.in_proj_bias.data = torch.cat([m.bias.data for m in plain])
        out = self.out_proj.unconvert()
        layer.out_proj.weight.data = out.weight.data
        if has_bias:
            layer.out_proj.bias.data = out.bias.data
        return layer


def _mask(scores: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return scores.masked_fill(mask, float("-inf"))
    return scores + mask


def _linear_maps(layer: nn.MultiheadAttention) -> list[nn.Linear]:
    """Return the three input maps of torch's layer as linear layers."""
    if layer.in_proj_weight is not None:
        weights = list(layer.in_proj_weight.detach().chunk(3))
    else:
        weights = [getattr(layer, f"{part}_proj_weight").detach() for part in "qkv"]
    biases = [None] * 3 if layer.in_proj_bias is None else layer.in_proj_bias.detach().chunk(3)
    maps = []
    for weight, bias in zip(weights, biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        linear.weight.data = weight.clone()
        if bias is not None:
            linear.bias.data = bias.clone()
        maps.append(linear)
    return maps
