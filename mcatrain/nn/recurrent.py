"""LSTM and GRU layers, each layer and direction on one array of 4 m x (m + n + 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from devicemodels.errors import InputError
from mcatrain.grid import Array
from mcatrain.nn.cells import Cell, GRUCell, LSTMCell
from mcatrain.nn.options import Foundry, LayerOptions
from mcatrain.nn.sequence import Converted, InputsFirst, StepByStep
from mcatrain.tile import Tile

_CELLS: dict[type[nn.RNNBase], Cell] = {nn.LSTM: LSTMCell(), nn.GRU: GRUCell()}


class Recurrence(torch.autograd.Function):
    """All time steps of one layer in one direction: x (time, n, in) to h (time, n, m).

    Each step drives the array with [x, 1, h]; backward runs through the transposed array, and
    the factors of all steps are handed over together.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        bias: Tensor | None,
        array: Array,
        cell: Cell,
        *chis: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, n, inputs = x.shape
        m, width = h.shape[1], array.shape[1]
        lines = x.new_empty(steps, n, width)
        lines[:, :, :inputs] = x
        lines[:, :, inputs : width - m] = 1.0  # the analog bias, where there is one
        gates = []
        memory = x.new_empty(steps + 1, n, m)
        outputs = x.new_empty(steps, n, m)
        memory[0] = c
        way = _way(array, lines, m)
        way.start_forward()
        for t in range(steps):
            lines[t, :, width - m :] = h
            z = way.forward(t) if bias is None else way.forward(t).add_(bias)
            gates.append(z)
            h, c = cell.forward(z, h, c)
            outputs[t], memory[t + 1] = h, c
        ctx.save_for_backward(lines, memory, *gates)
        ctx.array, ctx.cell, ctx.inputs, ctx.has_bias = array, cell, inputs, bias is not None
        return outputs, h.clone(), c.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_outputs, dh, dc = grads
        lines, memory, *gates = ctx.saved_tensors
        array: Array = ctx.array
        steps, n, width = lines.shape
        m = memory.shape[2]
        d = lines.new_empty(steps, n, gates[0].shape[1])
        way = _way(array, lines, m)
        way.start_backward(d)
        for t in reversed(range(steps)):
            d[t], through, dc = ctx.cell.backward(
                gates[t], lines[t, :, width - m :], memory[t], memory[t + 1], dh + d_outputs[t], dc
            )
            dh = way.backward(t, d[t])
            if through is not None:
                dh = dh + through
        dx = way.to_inputs(d)[:, :, : ctx.inputs] if ctx.needs_input_grad[0] else None
        rows, columns = d.view(steps * n, -1), lines.view(steps * n, -1)
        gradients = array.collect(columns, rows, n, dense=True)
        twice = slice(0, ctx.cell.twice_biased * m)
        if width - m > ctx.inputs:
            _double_bias(array, gradients, twice.stop, ctx.inputs)
        d_bias = rows.sum(0) if ctx.has_bias else None
        if d_bias is not None:
            d_bias[twice] *= 2
        return dx, dh, dc, d_bias, None, None, *gradients


def _way(array: Array, lines: Tensor, units: int) -> StepByStep:
    if isinstance(array, Tile) and InputsFirst.serves(array):
        return InputsFirst(array, lines, units)
    if isinstance(array, Tile) and Converted.serves(array, lines.shape[1]):
        return Converted(array, lines, units)
    return StepByStep(array, lines, units)


def _double_bias(array: Array, gradients: list[Tensor | None], rows: int, column: int) -> None:
    """Count the gradient of the bias column twice in the first ``rows``, as torch's two do."""
    for block, gradient in zip(array.blocks, gradients, strict=True):
        c = block.columns
        if gradient is not None and block.rows.start < rows and c.start <= column < c.stop:
            gradient[: rows - block.rows.start, column - c.start] *= 2


class AnalogRecurrent(nn.Module):
    """nn.LSTM or nn.GRU on arrays: stacked, bidirectional, dropout between the layers.

    Called as the torch layer is; packed sequences are refused. The two biases of torch are one
    column here (or one digital parameter; a GRU's candidate has one in each of its two parts);
    its gradient is that of both, so that SGD moves their sum as torch would. RPU's streams know
    one bias only.
    """

    def __init__(
        self, layer: nn.RNNBase, name: str, options: LayerOptions, foundry: Foundry
    ) -> None:
        super().__init__()
        if layer.proj_size:
            raise InputError(
                f"layer {name!r} is an LSTM with proj_size: not supported on arrays; use a linear "
                f"layer after it, or leave it digital with overrides={{{name!r}: None}}"
            )
        self.kind = nn.LSTM if isinstance(layer, nn.LSTM) else nn.GRU
        self.cell = _CELLS[self.kind]
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size
        self.num_layers, self.batch_first = layer.num_layers, layer.batch_first
        self.bidirectional, self.dropout = layer.bidirectional, float(layer.dropout)
        self.has_bias = bool(layer.bias)
        self.analog_bias = self.has_bias and options.bias == "analog"
        self.arrays = nn.ModuleDict()
        self.biases = nn.ParameterDict()
        for suffix in self._suffixes():
            w_x, w_h = getattr(layer, f"weight_ih_{suffix}"), getattr(layer, f"weight_hh_{suffix}")
            b = [getattr(layer, f"bias_{p}_{suffix}") for p in ("ih", "hh") if layer.bias]
            w_x, w_h, column = self._rows(w_x.detach(), w_h.detach(), [v.detach() for v in b])
            if b and not self.analog_bias:
                self.biases[suffix] = nn.Parameter(column.clone())
            middle = [column.unsqueeze(1)] if self.analog_bias else []
            matrix = torch.cat([w_x, *middle, w_h], dim=1)
            blocks = self.cell.blocks(self.hidden_size, w_x.shape[1], matrix.shape[1])
            self.arrays[suffix] = foundry.array(f"{name}.{suffix}", matrix, options, blocks)

    def _suffixes(self) -> list[str]:
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [f"l{k}{end}" for k in range(self.num_layers) for end in ends]

    def _rows(
        self, w_x: Tensor, w_h: Tensor, biases: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return input and recurrent weights and the bias for the array's 4 m rows."""
        none = w_x.new_zeros(len(w_x))
        b_x, b_h = biases or (none, none)
        if self.kind is nn.LSTM:
            return w_x, w_h, b_x + b_h
        m = self.hidden_size
        zero_x, zero_h = torch.zeros_like(w_x[:m]), torch.zeros_like(w_h[:m])
        bias = torch.cat([(b_x + b_h)[: 2 * m], b_x[2 * m :], b_h[2 * m :]])
        return (
            torch.cat([w_x, zero_x]),
            torch.cat([w_h[: 2 * m], zero_h, w_h[2 * m :]]),
            bias,
        )

    def forward(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        if isinstance(x, PackedSequence):
            raise InputError("packed sequences are not supported on arrays: pad them to one length")
        batched = x.dim() == 3
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            raise InputError(
                f"{self.kind.__name__} got a tensor of shape {tuple(x.shape)}: it wants "
                f"([batch,] time, {self.input_size}), or time first without batch_first"
            )
        if x.shape[1 if batched and self.batch_first else 0] == 0:
            raise InputError(f"{self.kind.__name__} got a sequence of no time steps")
        steps = x.float() if batched else x.float().unsqueeze(1)
        steps = steps.transpose(0, 1) if batched and self.batch_first else steps
        h0, c0 = self._start(steps, state, batched)
        last_h, last_c = [], []
        directions = 2 if self.bidirectional else 1
        for k, suffix in enumerate(self._suffixes()):
            layer, reverse = k // directions, k % directions == 1
            if not reverse:
                given, outputs = steps, []
            array: Any = self.arrays[suffix]
            bias = self.biases.get(suffix)
            chis = [part.chi for part in array.parts]
            flow = given.flip(0) if reverse else given
            y, h, c = Recurrence.apply(flow, h0[k], c0[k], bias, array, self.cell, *chis)
            outputs.append(y.flip(0) if reverse else y)
            last_h.append(h)
            last_c.append(c)
            if len(outputs) == directions:
                steps = outputs[0] if directions == 1 else torch.cat(outputs, dim=2)
                if layer + 1 < self.num_layers:
                    steps = dropout(steps, self.dropout, self.training)
        return self._answer(x, steps, torch.stack(last_h), torch.stack(last_c), batched)

    def _start(self, steps: Tensor, state: Any, batched: bool) -> tuple[Tensor, Tensor]:
        shape = (len(self._suffixes()), steps.shape[1], self.hidden_size)
        if state is None:
            zero = steps.new_zeros(shape)
            return zero, zero
        h, c = state if self.cell.has_memory else (state, state)
        if not batched:
            h, c = h.unsqueeze(1), c.unsqueeze(1)
        for given in (h, c):
            if given.shape != shape:
                raise InputError(f"initial state of shape {tuple(given.shape)}: it wants {shape}")
        return h.float(), c.float()

    def _answer(
        self, x: Tensor, y: Tensor, h: Tensor, c: Tensor, batched: bool
    ) -> tuple[Tensor, Any]:
        if not batched:
            y, h, c = y.squeeze(1), h.squeeze(1), c.squeeze(1)
        elif self.batch_first:
            y = y.transpose(0, 1)
        y, h, c = y.to(x.dtype), h.to(x.dtype), c.to(x.dtype)
        return (y, (h, c)) if self.cell.has_memory else (y, h)

    def unconvert(self) -> nn.RNNBase:
        """Return a torch layer with the weights as they read now without noise.

        The one bias is given to b_ih; b_hh keeps only what a GRU's candidate needs.
        """
        layer = self.kind(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            bias=self.has_bias,
            batch_first=self.batch_first,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
        )
        m = self.hidden_size
        for suffix in self._suffixes():
            array: Any = self.arrays[suffix]
            rows = array.weights()
            inputs = rows.shape[1] - m - self.analog_bias
            w_x, w_h = rows[:, :inputs], rows[:, -m:]
            bias = rows[:, inputs] if self.analog_bias else w_x.new_zeros(4 * m)
            if suffix in self.biases:
                bias = self.biases[suffix].detach()
            b_h = torch.zeros_like(bias)
            if self.kind is nn.GRU:
                w_x, w_h = w_x[: 3 * m], torch.cat([w_h[: 2 * m], w_h[3 * m :]])
                b_h = torch.cat([b_h[: 2 * m], bias[3 * m :]])
                bias = bias[: 3 * m]
            getattr(layer, f"weight_ih_{suffix}").data = w_x.clone()
            getattr(layer, f"weight_hh_{suffix}").data = w_h.clone()
            if self.has_bias:
                getattr(layer, f"bias_ih_{suffix}").data = bias.clone()
                getattr(layer, f"bias_hh_{suffix}").data = b_h.clone()
        return layer

    def extra_repr(self) -> str:
        sizes = f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return f"{self.kind.__name__}, {sizes}, bidirectional={self.bidirectional}"
