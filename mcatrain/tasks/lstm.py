"""The lstm task: a language model of characters."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, one_hot

from devicemodels.errors import InputError
from mcatrain.data import Text, load_text
from mcatrain.run.options import Options
from mcatrain.run.writing import write_text
from mcatrain.tasks.base import Task, descend

State = list[tuple[Tensor, Tensor]]
#: Streams that the test text is cut into: long ones, read side by side.
_TEST_STREAMS = 50


class CharacterModel(nn.Module):
    """One-hot characters, LSTM layers of the given widths, a linear map to the scores.

    Dropout acts between layers, on non-recurrent connections (Gokmen, Rasch & Haensch 2018).
    """

    def __init__(self, vocabulary: int, hidden: tuple[int, ...], drop: float) -> None:
        super().__init__()
        self.vocabulary, self.drop = vocabulary, drop
        widths = pairwise([vocabulary, *hidden])
        self.lstm = nn.ModuleList([nn.LSTM(n, m, batch_first=True) for n, m in widths])
        self.out = nn.Linear(hidden[-1], vocabulary)

    def forward(self, codes: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the scores (batch, time, vocabulary) after codes (batch, time), and the state."""
        x = one_hot(codes, self.vocabulary).float()
        after: State = []
        for k, layer in enumerate(self.lstm):
            x, last = layer(x, None if state is None else state[k])
            after.append((last[0].detach(), last[1].detach()))
            x = dropout(x, self.drop, self.training)
        return self.out(x), after


class LSTMTask(Task):
    """Predict the next character; the state is carried from one sequence to the next.

    The text is cut into batch_size streams read side by side; an example is a sequence of
    ``sequence`` characters. Losses in nats per character.
    """

    metric = "bits_per_character"

    def __init__(self, options: Options, device: torch.device) -> None:
        super().__init__(options, device)
        self.text: Text = load_text(options.data, options.data_dir, options.train_limit)
        self.train = self._streams(self.text.train, options.batch)
        self.test = self._streams(self.text.test, _TEST_STREAMS)
        if self.test.shape[1] < 2:
            raise InputError(
                f"{options.data}: its test text has {len(self.text.test)} characters: give at "
                f"least {2 * _TEST_STREAMS}"
            )
        self.windows = (self.train.shape[1] - 1) // options.sequence
        if self.windows < 1:
            raise InputError(
                f"--train-limit or {options.data}: {len(self.text.train)} characters are too few "
                f"for {options.batch} sequences of {options.sequence} (--batch-size, "
                f"--sequence): give at least {options.batch * (options.sequence + 1)}"
            )
        self.examples = self.windows * options.batch
        self._carried: State | None = None

    def _streams(self, codes: Tensor, number: int) -> Tensor:
        length = len(codes) // number
        return codes[: number * length].view(number, length).to(self.device)

    def model(self) -> CharacterModel:
        vocabulary = len(self.text.vocabulary)
        return CharacterModel(vocabulary, self.options.hidden_layers, self.options.dropout or 0.0)

    def start_epoch(self, shuffle: torch.Generator) -> None:
        self._carried = None

    def train_on(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, at: int
    ) -> tuple[float, int]:
        begin = at // self.options.batch * self.options.sequence
        loss, self._carried = self._loss(model, self.train, begin, self._carried)
        return descend(loss, optimizer), self.options.batch

    def _loss(
        self, model: nn.Module, streams: Tensor, begin: int, state: State | None
    ) -> tuple[Tensor, State]:
        """Return the mean cross-entropy [nats] of the sequences that begin there, and the state."""
        end = min(begin + self.options.sequence, streams.shape[1] - 1)
        scores, state = model(streams[:, begin:end].long(), state)
        target = streams[:, begin + 1 : end + 1].long()
        return cross_entropy(scores.flatten(0, 1), target.flatten()), state

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return test_loss [nats] and bits_per_character."""
        total, count, state = 0.0, 0, None
        length = self.test.shape[1] - 1
        with torch.no_grad():
            for begin in range(0, length, self.options.sequence):
                loss, state = self._loss(model, self.test, begin, state)
                size = min(self.options.sequence, length - begin)
                total, count = total + loss.item() * size, count + size
        nats = total / count
        return {"test_loss": nats, "bits_per_character": nats / math.log(2)}

    def sample(self, model: nn.Module, characters: int, seed: int = 0) -> str:
        """Return text that the model writes, beginning after a line end."""
        chance = torch.Generator().manual_seed(seed)
        start = self.text.vocabulary.index("\n")
        code = torch.full((1, 1), start, device=self.device)
        written: list[int] = []
        state: State | None = None
        with torch.no_grad():
            for _ in range(characters):
                scores, state = model(code, state)
                chosen = scores[0, -1].softmax(0).cpu().multinomial(1, generator=chance)
                written.append(int(chosen))
                code = chosen.view(1, 1).to(self.device)
        return self.text.decode(written)

    @property
    def is_asked_to_show(self) -> bool:
        return self.options.sample > 0

    def show(self, model: nn.Module, folder: Path) -> None:
        """Write sample.txt, if a sample was asked for."""
        if self.is_asked_to_show:
            written = self.sample(model, self.options.sample)
            write_text(folder / "sample.txt", written + "\n")

    def state(self) -> dict[str, Tensor]:
        pairs = enumerate(self._carried or [])
        return {f"{k}.{name}": t for k, pair in pairs for name, t in zip("hc", pair, strict=True)}

    def restore(self, state: dict[str, Tensor]) -> None:
        layers = range(len(state) // 2)
        held = [(state[f"{k}.h"].to(self.device), state[f"{k}.c"].to(self.device)) for k in layers]
        self._carried = held or None

    def facts(self) -> dict[str, Any]:
        return {"vocabulary": list(self.text.vocabulary)}
