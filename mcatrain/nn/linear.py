"""A fully connected layer on an array."""

from __future__ import annotations

from torch import Tensor, nn

from devicemodels.errors import InputError
from mcatrain.grid import product
from mcatrain.nn.options import Foundry, LayerOptions, digital_bias, with_bias


class AnalogLinear(nn.Module):
    """y = W x + b with W on an array, in place of nn.Linear.

    An analog bias is one more column of the array, driven by a constant 1; a digital bias is an
    ordinary parameter. x: (..., in_features); the first axis of a batch counts the examples.
    """

    def __init__(
        self, layer: nn.Linear, name: str, options: LayerOptions, foundry: Foundry
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.tile = foundry.array(name, with_bias(layer.weight, layer.bias, options), options)
        self.analog_bias = self.tile.shape[1] == self.in_features + 1
        self.bias = digital_bias(layer.bias, options)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.in_features:
            raise InputError(
                f"Linear got a tensor of shape {tuple(x.shape)}: it wants (..., {self.in_features})"
            )
        rows = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        examples = x.shape[0] if x.dim() > 1 else 1
        y = product(self.tile, rows.float(), examples)
        if x.dim() != 2:
            y = y.view(*x.shape[:-1], self.out_features)
        y = y.to(x.dtype)
        return y if self.bias is None else y + self.bias

    @property
    def weight(self) -> Tensor:
        """The weights as they read now without noise, (out, in [+ 1 for an analog bias])."""
        return self.tile.weights()

    def unconvert(self) -> nn.Linear:
        """Return a torch layer with the weights as they read now without noise."""
        has_bias = self.analog_bias or self.bias is not None
        layer = nn.Linear(self.in_features, self.out_features, bias=has_bias)
        w = self.weight
        layer.weight.data = w[:, : self.in_features].clone()
        if self.analog_bias:
            layer.bias.data = w[:, -1].clone()
        elif self.bias is not None:
            layer.bias.data = self.bias.detach().clone()
        return layer

    def extra_repr(self) -> str:
        bias = "analog" if self.analog_bias else "digital" if self.bias is not None else "none"
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"
