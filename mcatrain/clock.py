"""Simulated time: one clock a model, moved by the examples that train it."""

from __future__ import annotations

from devicemodels.errors import InputError

#: The platform of Nandakumar et al. 2020 took about this long for an image that programmed [s].
SECONDS_PER_EXAMPLE = 0.01


class Clock:
    """Time [s] and examples since the devices were made. Drift follows it by itself.

    now_s: float64 seconds. examples: training examples seen. Every tile of the model shows the
    one clock and saves it (a module of its own would change what containers hold).
    """

    def __init__(self, seconds_per_example: float = SECONDS_PER_EXAMPLE) -> None:
        if not seconds_per_example >= 0:
            raise InputError(f"seconds_per_example = {seconds_per_example}: give 0 or more seconds")
        self.seconds_per_example = seconds_per_example
        self.now_s = 0.0
        self.examples = 0

    def advance(self, seconds: float) -> None:
        """Let time pass without training, e.g. a pause between two runs."""
        if not seconds >= 0:
            raise InputError(f"the clock cannot go back by {-seconds} s")
        self.now_s += seconds

    def count(self, examples: int) -> None:
        """Pass the time of ``examples`` training examples."""
        self.examples += examples
        self.now_s += examples * self.seconds_per_example
