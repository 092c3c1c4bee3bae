"""Where a running job can be stored, and when it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from cml_bench.models.divided import is_first
from cml_bench.runs.rhythm import Rhythm
from cml_bench.runs.stopping import Postponed
from cml_bench.training.template import SafePoint, pass_by


class SafePoints:
    """Stores a job where it can be stored: when it is time, or when the process has been asked to end.

    While this context is entered, a signal waits for the next such place.

    Args:
        rhythm: When it is time; None for a job that is not stored.

    Attributes:
        store: Stores the job after whatever has just been finished.
    """

    def __init__(self, rhythm: Rhythm | None) -> None:
        self.store: Callable[[SafePoint], object] = pass_by
        self._rhythm = rhythm
        self._signals = Postponed()
        self._stored = time.monotonic()

    def __enter__(self) -> None:
        """Let signals wait; of processes that share a job, in the one that stores it."""
        if self._rhythm is not None and is_first():
            self._signals.listen()

    def __exit__(self, *error: object) -> None:
        """Let them wait no longer."""
        self._signals.deliver()

    def __call__(self, point: SafePoint) -> None:
        """Store the job after a step, an epoch, a chunk or an experience, if it is time."""
        if self._rhythm is not None and (self._signals.waiting or self._is_time(self._rhythm, point)):
            with self._signals.held():
                self.store(point)
            self._stored = time.monotonic()
            if self._signals.waiting:
                self._signals.deliver()
                # The job goes on if who was told says so.
                self._signals.listen()

    def _is_time(self, rhythm: Rhythm, point: SafePoint) -> bool:
        if point == "experience" or (rhythm.epochs and point != "step"):
            return True
        return time.monotonic() - self._stored >= rhythm.seconds
