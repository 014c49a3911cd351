"""The clock of an attempt as its loop sees it: pauses, evaluations, and steps that are done again."""

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from trainhooks.core.timing import Phase, Stopwatch


class Timekeeping:
    """The part of a tracker that says where the time goes. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._stopwatch = Stopwatch(time.monotonic())
        self._phases = threading.Lock()
        self._reached_step = 0
        """Steps that any earlier attempt has recorded."""
        self._is_replaying = False

    def pause(self) -> None:
        """Stop the clock: the time until `unpause` counts as paused. A second call changes nothing."""
        self._before_silence()
        with self._phases:
            if not self._stopwatch.is_in(Phase.PAUSED):
                self._stopwatch.enter(Phase.PAUSED, time.monotonic())

    def unpause(self) -> None:
        """Start the clock again. Without a pause this does nothing."""
        with self._phases:
            if self._stopwatch.is_in(Phase.PAUSED):
                self._stopwatch.leave(Phase.PAUSED, time.monotonic())

    def resume(self) -> None:
        """Deprecated name of `unpause`."""
        warnings.warn("resume() is deprecated: call unpause().", DeprecationWarning, stacklevel=2)
        self.unpause()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of this block."""
        with self._in(Phase.PAUSED):
            yield

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time of this block as evaluation, not as steps."""
        with self._in(Phase.EVALUATION):
            yield

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        """Count the time of this block, in which the user saves a checkpoint, as that."""
        with self._in(Phase.CHECKPOINT):
            yield

    def _before_silence(self) -> None:
        """The next row may be long in coming."""

    def _at_step(self, step: int) -> None:
        """Count the time as replayed while steps are done again, and as active from the first new one on."""
        is_replaying = step < self._reached_step
        if is_replaying is not self._is_replaying:
            with self._phases:
                self._is_replaying = is_replaying
                self._stopwatch.work_as(Phase.REPLAYED if is_replaying else Phase.ACTIVE, time.monotonic())

    @contextmanager
    def _in(self, phase: Phase) -> Iterator[None]:
        self._before_silence()
        with self._phases:
            self._stopwatch.enter(phase, time.monotonic())
        try:
            yield
        finally:
            with self._phases:
                self._stopwatch.leave(phase, time.monotonic())
