"""The clock of an attempt: pauses, evaluations, saves, and steps that are done again."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainhooks.core.timing import Phase, Stopwatch


class Timekeeping:
    """Where the time of an attempt goes. Every method may be called from any thread.

    Args:
        before_gap: called where the next row may be long in coming.
    """

    def __init__(self, before_gap: Callable[[], None]) -> None:
        self.stopwatch = Stopwatch(time.monotonic())
        self.reached_step = 0
        """Steps that any earlier attempt has recorded."""
        self.is_replaying = False
        self._before_gap = before_gap
        self._lock = threading.Lock()

    def pause(self) -> None:
        """Stop the clock. A second call changes nothing."""
        self._before_gap()
        with self._lock:
            if not self.stopwatch.is_in(Phase.PAUSED):
                self.stopwatch.enter(Phase.PAUSED, time.monotonic())

    def unpause(self) -> None:
        """Start the clock again. Without a pause this does nothing."""
        with self._lock:
            if self.stopwatch.is_in(Phase.PAUSED):
                self.stopwatch.leave(Phase.PAUSED, time.monotonic())

    @contextmanager
    def counting(self, phase: Phase) -> Iterator[None]:
        """Count the time of this block as `phase`."""
        self._before_gap()
        with self._lock:
            self.stopwatch.enter(phase, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                self.stopwatch.leave(phase, time.monotonic())

    def at_step(self, step: int) -> None:
        """Count the time as replayed while steps are done again, and as active from the first new one on."""
        is_replaying = step < self.reached_step
        if is_replaying is not self.is_replaying:
            with self._lock:
                self.is_replaying = is_replaying
                self.stopwatch.work_as(Phase.REPLAYED if is_replaying else Phase.ACTIVE, time.monotonic())

    def working(self) -> float:
        """Return the seconds spent on steps so far, new and replayed."""
        return self.stopwatch.working(time.monotonic())

    def seconds(self) -> dict[Phase, float]:
        """Return the seconds of every phase so far."""
        return self.stopwatch.seconds(time.monotonic())
