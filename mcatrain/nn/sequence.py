"""How a recurrent layer drives its array through time: line by line, or the inputs beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

from mcatrain import kernels
from mcatrain.grid import Array
from mcatrain.kernels.reference import noise_product
from mcatrain.ledger import Reads
from mcatrain.periphery import Converters, draws, within_bounds
from mcatrain.tile import Tile


class StepByStep:
    """Every time step drives the whole array with [x, 1, h], as converters ask for."""

    def __init__(self, array: Array, lines: Tensor, units: int) -> None:
        self.array, self.lines = array, lines
        self.inputs = lines.shape[2] - units

    def start_forward(self) -> None:
        """Do what can be done before the first step."""

    def forward(self, t: int) -> Tensor:
        """Return the array's outputs (n, out) for line t, whose h is in place."""
        return self.array.forward(self.lines[t])

    def start_backward(self, d: Tensor) -> None:
        """Make room for what goes back to the inputs from d (time, n, out), not there yet."""
        self.back = torch.empty_like(self.lines[:, :, : self.inputs])

    def backward(self, t: int, d: Tensor) -> Tensor:
        """Return what goes back to h (n, units) from the outputs' d (n, out)."""
        back = self.array.backward(d)
        self.back[t] = back[:, : self.inputs]
        return back[:, self.inputs :]

    def to_inputs(self, d: Tensor) -> Tensor:
        """Return what went back to [x, 1] of all steps (time, n, in [+ 1]) from d."""
        return self.back


#: Normals that are drawn at a time: they stay in the cache until their time step comes.
_DRAWN = 2**18


class Converted(StepByStep):
    """Every time step drives the whole array through its converters, in order, like `matvec`."""

    array: Tile

    @staticmethod
    def serves(array: Array, n: int) -> bool:
        """Whether the array is one tile with converters, and n examples are no single vector."""
        return isinstance(array, Tile) and not array.reads_plainly and n > 1

    def start_forward(self) -> None:
        weights, variance = self.array.synapse.read(self.array.now_s)
        c = self.array.periphery.forward
        self.there = _Through(self.array, self.lines, self.inputs, weights, variance, c)

    def forward(self, t: int) -> Tensor:
        y = self.there(t, self.array.reads.forward)
        scale = self.array.output_scale
        return y if scale is None else y.mul_(scale)

    def start_backward(self, d: Tensor) -> None:
        super().start_backward(d)
        weights, variance = self.array.synapse.read(self.array.now_s)
        transposed = None if variance is None else variance.T
        c = self.array.periphery.backward
        self.home = _Through(self.array, d, 0, weights.T, transposed, c)

    def backward(self, t: int, d: Tensor) -> Tensor:
        back = self.home(t, self.array.reads.backward)
        self.back[t] = back[:, : self.inputs]
        return back[:, self.inputs :]


class _Through:
    """`matvec` of lines (time, n, in), of which the first ``ahead`` columns are there already."""

    def __init__(
        self,
        array: Tile,
        lines: Tensor,
        ahead: int,
        weights: Tensor,
        variance: Tensor | None,
        c: Converters,
    ) -> None:
        self.lines, self.weights, self.variance, self.c = lines, weights, variance, c
        self.convert = kernels.convert_lines(lines, ahead, weights, variance, c)
        self.chance = array.chance
        self.draw = draws(weights, variance is not None, c, self.chance)
        self.n = lines.shape[1]
        self.together = max(_DRAWN // (self.n * max(weights.shape)), 1)
        self.drawn: list[tuple[Tensor | None, ...]] = []

    def __call__(self, t: int, reads: Reads) -> Tensor:
        if not self.drawn:
            several = self.draw(self.n * self.together)
            self.drawn = [
                tuple(None if v is None else v[k : k + self.n] for v in several)
                for k in range(0, self.n * self.together, self.n)
            ]
        y, clipped = self.convert(t, *self.drawn.pop())
        reads.vectors += self.n
        if clipped is None:
            return y
        return within_bounds(
            y, clipped, self.lines[t], self.weights, self.variance, self.c, self.chance, reads
        )


class InputsFirst(StepByStep):
    """The inputs of all steps in one product, then h step by step: the sums are the same.

    Only where nothing stands between line and array: converters would see the whole line. The
    read noise of an output is the sum of the two parts'.
    """

    array: Tile

    @staticmethod
    def serves(array: Array) -> bool:
        """Whether the array is one tile with ideal converters."""
        return isinstance(array, Tile) and array.reads_plainly

    def __init__(self, array: Tile, lines: Tensor, units: int) -> None:
        super().__init__(array, lines, units)
        synapse, now_s = array.synapse, array.now_s
        # In one piece: every step reads them.
        self.to_h = synapse.weights(now_s)[:, self.inputs :].contiguous()
        self.to_x = synapse.weights(now_s)[:, : self.inputs]
        variance = synapse.read_variance(now_s)
        self.noisy = variance is not None
        if variance is not None:
            self.h_noise = variance[:, self.inputs :].contiguous()
            self.x_noise = variance[:, : self.inputs]

    def start_forward(self) -> None:
        self.from_h = self.to_h.T.contiguous()
        steps, n, _ = self.lines.shape
        self.array.reads.forward.vectors += steps * n
        x = self.lines[:, :, : self.inputs].reshape(steps * n, -1)
        self.sums = kernels.product(x, self.to_x).view(steps, n, -1)
        if self.noisy:
            self.h_noise = self.h_noise.T.contiguous().T
            self.spread = noise_product(x.square().to(self.x_noise.dtype), self.x_noise)
            self.spread = self.spread.view(steps, n, -1)
            self.noise = self.spread.new_empty(n, len(self.to_h))
            self.squares = self.noise.new_empty(n, self.to_h.shape[1])
            self.deviation = torch.empty_like(self.noise, dtype=torch.float32)
            self.normals = self.array.chance.normal(steps, n, self.sums.shape[2])

    def forward(self, t: int) -> Tensor:
        h = self.lines[t, :, self.inputs :]
        y = self.sums[t]  # which nobody asks for again
        kernels.add_product(y, h, self.from_h.T, 1.0)
        if self.noisy:
            torch.mul(h, h, out=self.squares)
            noise_product(self.squares, self.h_noise, self.noise)
            torch.add(self.noise, self.spread[t], out=self.deviation)
            y.addcmul_(self.normals[t], self.deviation.sqrt_())
        return y

    def start_backward(self, d: Tensor) -> None:
        steps, n, width = self.lines.shape
        self.array.reads.backward.vectors += steps * n
        if self.noisy:
            self.normals = self.array.chance.normal(steps, n, width - self.inputs)
            self.noise = self.h_noise.new_empty(n, width - self.inputs)
            self.squares = self.noise.new_empty(n, len(self.to_h))
            self.deviation = torch.empty_like(self.noise, dtype=torch.float32)

    def backward(self, t: int, d: Tensor) -> Tensor:
        dh = kernels.product(d, self.to_h.T)
        if self.noisy:
            torch.mul(d, d, out=self.squares)
            noise_product(self.squares, self.h_noise.T, self.noise)
            dh.addcmul_(self.normals[t], self.deviation.copy_(self.noise).sqrt_())
        return dh

    def to_inputs(self, d: Tensor) -> Tensor:
        steps, n, _ = d.shape
        rows = d.view(steps * n, -1)
        dx = kernels.product(rows, self.to_x.T)
        if self.noisy:
            spread = noise_product(rows.square().to(self.x_noise.dtype), self.x_noise.T)
            dx.addcmul_(self.array.chance.normal(*dx.shape), spread.float().sqrt_())
        return dx.view(steps, n, -1)
