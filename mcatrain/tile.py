"""One analog array with its periphery: forward, transposed backward, and what an update needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from devicemodels.pulses import PulseEvents
from devicemodels.state import Chance, StateModule
from devicemodels.synapses.base import Synapse
from mcatrain import kernels
from mcatrain.clock import Clock
from mcatrain.ledger import Ledger, Passes
from mcatrain.periphery import Periphery, matvec

if TYPE_CHECKING:
    from mcatrain.pulselog import PulseLog


@dataclass(frozen=True)
class Block:
    """A part of a weight matrix: its rows (outputs) and columns (inputs)."""

    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Weights as (out, in)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def split(self, limit: tuple[int, int]) -> list[Block]:
        """Cut into nearly equal pieces of at most ``limit`` (rows, columns)."""
        return [
            Block(r, c) for r in _cut(self.rows, limit[0]) for c in _cut(self.columns, limit[1])
        ]


def _cut(part: slice, limit: int) -> list[slice]:
    size = part.stop - part.start
    pieces = -(-size // limit)
    edges = [part.start + size * k // pieces for k in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


class Tile(StateModule):
    """An array of ``out x in`` weights between a DAC and an ADC.

    chi: the digital accumulator of MCA (out, in), float32, initially 0; it is the parameter that
    optimizers see, and its gradient is the gradient with respect to the weights. RPU leaves it 0
    and asks for the factors (x, d) of each example instead: ``factors`` says whether these are
    kept ('must'), may be kept where it saves work ('may'), or are summed at once ('no').
    output_scale: float32, (1,) or (out,), by which outputs are multiplied after the ADC to make up
    for drift (`mcatrain.compensation`); None: not at all. Of reading only: it is no part of the
    state, and gradients do not see it. chance: of reads, converters and bit streams; the synapse
    has its own for what happens in devices, so that pulses alone decide these (`pulselog.replay`).
    """

    scalars: ClassVar = {"now_s": float, "clock_examples": int}
    chi: nn.Parameter
    synapse: Synapse
    output_scale: Tensor | None

    def __init__(self, name: str, synapse: Synapse, periphery: Periphery, clock: Clock) -> None:
        super().__init__()
        self.name, self.periphery = name, periphery
        self.synapse = synapse
        self.chance = Chance(synapse.chance.seed, f"{synapse.chance.name}/reads")
        self.clock = clock
        self.ledger = Ledger()
        self.log: PulseLog | None = None
        self.chi = nn.Parameter(torch.zeros(synapse.shape))
        self.factors: Literal["no", "may", "must"] = "no"
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.examples = 0
        self.register_buffer("output_scale", None, persistent=False)

    @property
    def now_s(self) -> float:
        """Time on the model's clock [s]."""
        return self.clock.now_s

    @now_s.setter
    def now_s(self, value: float) -> None:
        self.clock.now_s = value

    @property
    def clock_examples(self) -> int:
        """Training examples on the model's clock."""
        return self.clock.examples

    @clock_examples.setter
    def clock_examples(self, value: int) -> None:
        self.clock.examples = value

    def forward(self, x: Tensor) -> Tensor:
        """Return y (n, out) = ADC(W DAC(x) + noise) for the rows of x (n, in)."""
        synapse = self.synapse
        read = synapse.read(self.clock.now_s)
        y = matvec(x, *read, self.periphery.forward, self.chance, self.reads.forward)
        scale = self._buffers["output_scale"]
        return y if scale is None else y.mul_(scale)

    def backward(self, d: Tensor) -> Tensor:
        """Return W^T d (n, in) for the rows of d (n, out), through the transposed array."""
        synapse = self.synapse
        weights, variance = synapse.read(self.clock.now_s)
        transposed = None if variance is None else variance.T
        return matvec(
            d, weights.T, transposed, self.periphery.backward, self.chance, self.reads.backward
        )

    @property
    def reads_plainly(self) -> bool:
        """Whether nothing stands between the array and its outputs, nor behind it."""
        p = self.periphery
        return p.forward.ideal and p.backward.ideal and self.output_scale is None

    @property
    def reads(self) -> Passes:
        """Where reads are counted now: those of training and of evaluation are kept apart."""
        return self.ledger.training if self.training else self.ledger.evaluation

    def pulse(self, events: PulseEvents) -> None:
        """Send a rule's pulses to the devices now."""
        if self.log is None:
            self.synapse.pulse(events, self.now_s)
        else:
            self.log.pulse(self, events)

    def refresh(self) -> None:
        """Re-write saturated weights."""
        before = self.synapse.set_pulses
        if self.log is None:
            self.synapse.refresh(self.now_s)
        else:
            self.log.refresh(self)
        self.ledger.refresh_checks += self.synapse.can_saturate
        self.ledger.refresh_set_pulses += self.synapse.set_pulses - before

    @property
    def shape(self) -> tuple[int, int]:
        """Weights as (out, in)."""
        return self.synapse.shape

    @property
    def blocks(self) -> list[Block]:
        """Where the parts lie in the array's weight matrix."""
        return [Block(slice(0, self.shape[0]), slice(0, self.shape[1]))]

    @property
    def parts(self) -> tuple[Tile, ...]:
        """The tiles of this array: itself (a `TileGrid` has several)."""
        return (self,)

    def weights(self) -> Tensor:
        """Return the weights as they read now without noise, (out, in). Do not modify."""
        return self.synapse.weights(self.now_s)

    def collect(
        self, x: Tensor, d: Tensor, examples: int, dense: bool = False
    ) -> list[Tensor | None]:
        """Take in the factors of the gradient d^T x: x (n, in), d (n, out), of ``examples``.

        Returns the gradient for the chi of every part: None where the factors themselves are
        kept (only where they must be, if ``dense``), and where chi is frozen.
        """
        if not self._parameters["chi"].requires_grad:  # type: ignore[union-attr]
            return [None]
        self.examples += examples
        self.ledger.update_vectors += x.shape[0]
        if self.factors == "no" or (dense and self.factors == "may"):
            return [kernels.product(d.T, x.T)]
        self.kept.append((x.contiguous(), d.contiguous()))
        return [None]

    def forget(self) -> None:
        """Drop what was collected since the last step."""
        self.kept.clear()
        self.examples = 0

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "ledger"] = self.ledger.state()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        saved = state_dict.pop(prefix + "ledger", None)
        if saved is None:
            rest[2].append(prefix + "ledger")
        else:
            self.ledger.restore(saved)
        super()._load_from_state_dict(state_dict, prefix, *rest)


@contextmanager
def apart(model: nn.Module, purpose: str) -> Iterator[None]:
    """Draw from streams of this purpose, and leave those of the model's tiles where they were."""
    with ExitStack() as streams:
        for tile in tiles(model).values():
            streams.enter_context(tile.chance.fork(purpose))
        yield


def tiles(model: nn.Module) -> dict[str, Tile]:
    """Return the tiles of a model by name, in order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Tile)}
