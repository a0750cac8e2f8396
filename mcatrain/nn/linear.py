"""A fully connected layer on a tile."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mcatrain.tile import Tile, TileProduct

Bias = Literal["analog", "digital"]


class AnalogLinear(nn.Module):
    """y = W x + b with W on a tile, in place of nn.Linear.

    An analog bias is one more column of the array, driven by a constant 1; a digital bias is an
    ordinary parameter. x: (..., in_features); the first axis of a batch counts the examples.
    """

    def __init__(
        self, in_features: int, out_features: int, tile: Tile, bias: Tensor | None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.tile = tile
        self.analog_bias = tile.synapse.shape[1] == in_features + 1
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        rows = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        examples = x.shape[0] if x.dim() > 1 else 1
        y = TileProduct.apply(rows.float(), self.tile.chi, self.tile, examples)
        if x.dim() != 2:
            y = y.view(*x.shape[:-1], self.out_features)
        y = y.to(x.dtype)
        return y if self.bias is None else y + self.bias

    @property
    def weight(self) -> Tensor:
        """The weights as they read now without noise, (out, in [+ 1 for an analog bias])."""
        return self.tile.synapse.weights(self.tile.now_s)

    def extra_repr(self) -> str:
        bias = "analog" if self.analog_bias else "digital" if self.bias is not None else "none"
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"
