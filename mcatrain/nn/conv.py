"""Convolutions on an array: every patch of the image is one vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from devicemodels.errors import InputError
from mcatrain.grid import product
from mcatrain.kernels.windows import Geometry
from mcatrain.nn.native import NativeConvolution
from mcatrain.nn.options import Foundry, LayerOptions, digital_bias, with_bias
from mcatrain.nn.patches import Patches
from mcatrain.nn.streamed import StreamedConvolution
from mcatrain.tile import Block, Tile


class AnalogConv(nn.Module):
    """nn.Conv1d or nn.Conv2d on one array of out x (k k in + 1).

    Columns lie in the order (kernel row, kernel column, channel), as in channels-last images;
    the last one is an analog bias. Each group of a grouped convolution is an array of its own.
    Where a tile's converters are ideal the product is torch's own convolution with the same
    statistics: read noise is independent at every position.
    """

    def __init__(
        self, layer: nn.Conv1d | nn.Conv2d, name: str, options: LayerOptions, foundry: Foundry
    ) -> None:
        super().__init__()
        self.kind = nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.Conv2d
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.groups, self.padding_mode = layer.groups, layer.padding_mode
        self.kernel_size, self.stride = layer.kernel_size, layer.stride
        self.padding, self.dilation = layer.padding, layer.dilation
        flat = _two(layer.kernel_size, 1)
        self.geometry = Geometry(flat, _two(layer.stride, 1), _two(layer.dilation, 1))
        self.margins = _margins(layer)
        self._padding_mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        w = layer.weight.detach()
        w = w.unsqueeze(2) if w.dim() == 3 else w
        rows = with_bias(w.permute(0, 2, 3, 1).reshape(len(w), -1), layer.bias, options)
        self.fan_in = flat[0] * flat[1] * (layer.in_channels // layer.groups)
        self.analog_bias = rows.shape[1] == self.fan_in + 1
        self.bias = digital_bias(layer.bias, options)
        if layer.groups == 1:
            self.tile = foundry.array(name, rows, options)
            return
        # Group g: its own outputs, its own patch, its own bias column.
        out, width = len(rows) // layer.groups, rows.shape[1]
        blocks = [
            Block(slice(g * out, (g + 1) * out), slice(g * width, (g + 1) * width))
            for g in range(layer.groups)
        ]
        matrix = torch.zeros(len(rows), layer.groups * width)
        for block in blocks:
            matrix[block.rows, block.columns] = rows[block.rows]
        self.tile = foundry.array(name, matrix, options, blocks)

    def forward(self, x: Tensor) -> Tensor:
        dims = len(self.kernel_size)
        if x.dim() not in (dims + 1, dims + 2) or x.shape[-dims - 1] != self.in_channels:
            sides = "length" if dims == 1 else "height, width"
            raise InputError(
                f"{self.kind.__name__} got a tensor of shape {tuple(x.shape)}: it wants "
                f"([batch,] {self.in_channels} channels, {sides})"
            )
        image = x if x.dim() == dims + 2 else x.unsqueeze(0)
        image = image.unsqueeze(2) if dims == 1 else image
        if any(self.margins):
            image = pad(image, self.margins, self._padding_mode)
        y = self._product(image.float()).to(x.dtype)
        if self.bias is not None:
            y = y + self.bias.view(-1, 1, 1)
        y = y.squeeze(2) if dims == 1 else y
        return y if x.dim() == dims + 2 else y.squeeze(0)

    def _product(self, image: Tensor) -> Tensor:
        """Return (batch, out, height, width) for a padded image (batch, in, height, width)."""
        tile = self.tile
        if isinstance(tile, Tile) and NativeConvolution.serves(tile):
            return NativeConvolution.apply(image, tile.chi, tile, self.geometry)
        if isinstance(tile, Tile) and self.groups == 1 and StreamedConvolution.serves(tile):
            return StreamedConvolution.apply(image, tile.chi, tile, self.geometry)
        rows = Patches.apply(image, self.geometry, self.groups, self.analog_bias)
        y = product(tile, rows, len(image))
        height, width = self.geometry.output(image.shape[2], image.shape[3])
        return y.view(len(image), height, width, self.out_channels).permute(0, 3, 1, 2)

    @property
    def weight(self) -> Tensor:
        """The weights as they read now without noise, in the array's own order."""
        return self.tile.weights()

    def unconvert(self) -> nn.Module:
        """Return a torch layer with the weights as they read now without noise."""
        layer = self.kind(
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            bias=self.analog_bias or self.bias is not None,
            padding_mode=self.padding_mode,
        )
        rows = self.weight
        if self.groups > 1:
            width = self.fan_in + self.analog_bias
            parts = rows.unflatten(0, (self.groups, -1)).unflatten(2, (self.groups, width))
            rows = torch.cat([parts[g, :, g] for g in range(self.groups)])
        kernel = self.geometry.kernel
        w = rows[:, : self.fan_in].reshape(self.out_channels, *kernel, -1).permute(0, 3, 1, 2)
        layer.weight.data = w.reshape(layer.weight.shape).contiguous()
        if layer.bias is not None:
            source = self.bias.detach() if self.bias is not None else rows[:, -1]
            layer.bias.data = source.clone()
        return layer

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}"
        )


def _two(values: Any, first: int) -> tuple[int, int]:
    return (first, values[0]) if len(values) == 1 else (values[0], values[1])


def _margins(layer: Any) -> tuple[int, int, int, int]:
    """Return what is padded at (left, right, top, bottom); a 1-d signal has one row."""
    sides: list[tuple[int, int]] = []
    for k, size in enumerate(layer.kernel_size):
        if layer.padding == "same":
            total = layer.dilation[k] * (size - 1)
            sides.append((total // 2, total - total // 2))
        elif layer.padding == "valid":
            sides.append((0, 0))
        else:
            sides.append((layer.padding[k], layer.padding[k]))
    if len(sides) == 1:
        sides.insert(0, (0, 0))
    return (*sides[1], *sides[0])
