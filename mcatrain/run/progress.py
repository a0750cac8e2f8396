"""The progress bar: accuracy, pulses per example, time left; silent when not on a terminal."""

from __future__ import annotations

import sys
import threading
from typing import Any

from tqdm import tqdm

# One bar a process: tqdm's own lock between processes would leak when a worker is stopped.
tqdm.set_lock(threading.RLock())


class Progress:
    """A bar over the examples of a run."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.bar: Any = tqdm(
            total=total,
            initial=done,
            desc=title,
            unit=" examples",
            disable=not sys.stderr.isatty(),
            mininterval=0.5,
            dynamic_ncols=True,
        )
        self._shown: dict[str, str] = {}

    def advance(self, examples: int) -> None:
        """Move by that many examples."""
        self.bar.update(examples)

    def show(self, **values: str) -> None:
        """Change the values at the end of the bar."""
        self._shown |= values
        self.bar.set_postfix(self._shown, refresh=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
