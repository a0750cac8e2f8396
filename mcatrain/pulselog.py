"""Every pulse that a rule commands, in Parquet files from which it can be replayed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from devicemodels.errors import InputError
from devicemodels.pulses import PulseEvents
from mcatrain.tile import Tile, tiles

#: Rows that are held before a file is written: some 40 MB.
_MOST_ROWS = 2**20
_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("call", pa.int32()),
        ("time_s", pa.float64()),
        ("layer", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int32()),
        ("column", pa.int32()),
        ("polarity", pa.int8()),
        ("count", pa.int64()),
        ("repeats", pa.bool_()),
    ]
)


class PulseLog:
    """Writes what the tiles of a model are sent to ``folder``/STEP.parquet, STEP the last one.

    A row is a weight's pulses: step, call (of a step's calls to the tile), time_s, layer (the
    tile's name in the model), row (output), column (input), polarity (+1, -1), count, repeats
    (whether weights may occur twice in the call). A row with polarity 0, row and column -1 is a
    refresh of the tile that re-wrote ``count`` pairs, 0 too: it read devices, with noise of their
    stream; their pulses follow from the devices.

    A log changes nothing of the run: devices draw from a stream of their own, so that the calls
    in their order are all that it takes to find their noise again.
    """

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.folder, self.step = folder, 0
        self._calls: dict[Tile, int] = {}
        self._parts: list[pa.RecordBatch] = []
        self._rows = 0
        self._names = {tile: name for name, tile in tiles(model).items()}
        for tile in self._names:
            tile.log = self

    def begin(self, step: int) -> None:
        """Begin a training step: its number, above that of the one before."""
        if self._rows >= _MOST_ROWS:
            self.flush()
        self.step = step
        self._calls.clear()

    def pulse(self, tile: Tile, events: PulseEvents) -> None:
        """Send pulses to a tile's synapse and note them."""
        if not len(events):
            return
        index, count = events.index.cpu(), events.count.cpu()
        columns = tile.shape[1]
        tile.synapse.pulse(events, tile.now_s)
        self._note(
            tile, index // columns, index % columns, count.sign(), count.abs(), events.repeats
        )

    def refresh(self, tile: Tile) -> None:
        """Refresh a tile's synapse and note it, if its devices were looked at."""
        before = tile.synapse.refreshes
        tile.synapse.refresh(tile.now_s)
        if tile.synapse.can_saturate:
            none = torch.tensor([-1])
            done = torch.tensor([tile.synapse.refreshes - before])
            self._note(tile, none, none, none * 0, done, False)

    def _note(self, tile: Tile, *rest: Any) -> None:
        call = self._calls.get(tile, 0)
        self._calls[tile] = call + 1
        row, column, polarity, count, repeats = rest
        n = len(row)
        name = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(n, np.int32)), pa.array([self._names[tile]])
        )
        values = [
            np.full(n, self.step), np.full(n, call, np.int32), np.full(n, tile.now_s), name,
            row.numpy().astype(np.int32), column.numpy().astype(np.int32),
            polarity.numpy().astype(np.int8), count.numpy(), np.full(n, repeats),
        ]  # fmt: skip
        self._parts.append(pa.record_batch(values, schema=_SCHEMA))
        self._rows += n

    def flush(self) -> None:
        """Write what is held; call it before a checkpoint, whose log must be whole."""
        if not self._parts:
            return
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{self.step:012d}.parquet"
        table = pa.Table.from_batches(self._parts, _SCHEMA).unify_dictionaries()
        pq.write_table(table, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        self._parts.clear()
        self._rows = 0

    def cut(self, step: int) -> None:
        """Remove what was written after ``step``: a resumed run makes these steps again."""
        for path in _files(self.folder):
            if int(path.stem) > step:
                path.unlink()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else []


def replay(folder: Path, model: nn.Module) -> nn.Module:
    """Send a log's pulses to a model as it was made, from the same seed and options; return it.

    Its devices end as those of the logged training did, bit for bit.
    Raises InputError for a folder without a log and one of another model.
    """
    files = _files(folder)
    if not files:
        raise InputError(f"{folder}: holds no pulse log: give a folder that --pulse-log wrote")
    found = tiles(model)
    for path in files:
        try:
            table = pq.read_table(path, schema=_SCHEMA)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({error}): restore it, or log anew") from None
        for call in _calls(table):
            tile = found.get(call["layer"])
            if tile is None:
                raise InputError(
                    f"{path}: layer {call['layer']!r} is not in the model: give the one that "
                    "was logged"
                )
            tile.now_s = call["time_s"]
            if call["events"] is None:
                tile.synapse.refresh(tile.now_s)
            else:
                tile.synapse.pulse(call["events"](tile), tile.now_s)
    return model


def _calls(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the calls of a log in order, each with a function that makes its events of a tile."""
    frame = table.to_pandas()
    keys = frame[["step", "call"]].to_numpy()
    layer = frame["layer"].cat.codes.to_numpy()
    changes = (np.diff(keys, axis=0) != 0).any(1) | (np.diff(layer) != 0)
    edges = [0, *(np.flatnonzero(changes) + 1), len(frame)]
    for start, stop in pairwise(edges):
        part = frame.iloc[start:stop]
        head = part.iloc[0]

        def events(tile: Tile, part: Any = part, head: Any = head) -> PulseEvents:
            at = part["row"].to_numpy().astype(np.int64) * tile.shape[1] + part["column"].to_numpy()
            if at.max() >= tile.chi.numel():
                raise InputError(f"layer {head['layer']!r} is smaller than the one logged")
            count = part["polarity"].to_numpy() * part["count"].to_numpy()
            return PulseEvents(
                torch.from_numpy(at).to(tile.chi.device),
                torch.from_numpy(count).to(tile.chi.device),
                bool(head["repeats"]),
            )

        yield {
            "step": int(head["step"]), "call": int(head["call"]), "layer": head["layer"],
            "time_s": float(head["time_s"]), "events": events if head["polarity"] else None,
        }  # fmt: skip
