"""The running step of a loop that `steps()` drives: from the batch that the loop gets to its return for the next."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from trainhooks.errors import ConfigInvalid
from trainhooks.host.unwinding import Left
from trainhooks.session import left_step
from trainhooks.session.handed import Handed

if TYPE_CHECKING:
    from trainhooks.session.feed import Feed
    from trainhooks.session.records import Records
    from trainhooks.session.resume_check import ResumeCheck


class RunningStep:
    """Begins and finishes steps, on the training's own thread."""

    def __init__(self, records: Records, feed: Feed) -> None:
        self.check: ResumeCheck | None = None
        """Of a session with `state`, until it is closed."""
        self.is_running = False
        """Whether the loop's body is running."""
        self.is_unfinished = False
        """Whether a step has begun and not ended: the loop is in it, or was left in it."""
        self.loops = 0
        """Loops over `steps()` so far."""
        self._left = Left.UNKNOWN
        """How the loop was left in the unfinished step."""
        self._handed = Handed(0, None)
        """What the loop got for the running step."""
        self._sees_pairs = False
        """Whether the running loop has taken apart what it got in earlier steps."""
        self._broken_off: Any = None
        """The batch of the step that an error broke off last."""
        self._records = records
        self._loop = records.loop
        self._feed = feed

    def begin_loop(self) -> int:
        """A loop begins; returns its number."""
        self.loops += 1
        self._sees_pairs = False
        return self.loops

    def begin(self, batch: Any) -> Handed:
        """The loop is about to get a batch: returns what to hand to it."""
        self._loop.attach(self._feed.made_of())
        if self.check is not None:
            self.check.begin_step(batch)
        self.is_running = self.is_unfinished = True
        self._handed = Handed(self._loop.finished, batch)
        return self._handed

    def finish(self) -> None:
        """The loop is done with it: count it."""
        self.is_running = self.is_unfinished = False
        self._left, self._broken_off = Left.UNKNOWN, None
        self._sees_pairs = self._sees_pairs or self._handed.is_seen
        self._handed.is_over = self.check is not None
        if asked := self._feed.asked_for():
            self._loop.attach(asked)
        is_first = self.check is not None and self.check.end_step()
        step = self._loop.finished
        self._loop.finished = step + 1
        self._records.add_attached()
        self._records.clock.at_step(step)
        self._records.sink.put((step, time.time(), self._records.clock.working(), None))  # where no row says so
        if self.check is not None and is_first:
            self.check.end_first()

    def leave(self, left: Left) -> None:
        """The loop was left within it."""
        self.is_running = False
        self._left = left

    def settle(self) -> None:
        """Decide what becomes of the step that a loop was left in: it counts, or its batch is given again.

        Raises:
            ConfigInvalid: an error has broken it off twice.
        """
        if not self.is_unfinished:
            return
        is_untouched, batch = self.is_untouched, self._handed.batch
        is_dropped = not self._handed.is_seen and (self._sees_pairs or is_untouched)
        by_error = self._left is Left.BY_ERROR
        if by_error and not self._has_stepped and self._broken_off is not None and self._broken_off is batch:
            raise ConfigInvalid(
                f"An error broke off step {self._loop.finished} twice with the same batch: it would end every loop.",
                hint="Fix what fails. To leave the batch out, catch the error within the loop's body: the step counts.",
                code="step_fails",
            )
        if left_step.counts(
            self._loop.finished,
            Left.BY_ITSELF if self.check is None else self._left,
            is_dropped=is_dropped,
            is_untouched=is_untouched,
            has_stepped=self._has_stepped,
        ):
            self.finish()
            return
        if by_error:
            self._broken_off = batch
        self._feed.take_back(batch)
        self.is_running = self.is_unfinished = False
        self._left = Left.UNKNOWN
        self._loop.attached = None

    def drop(self) -> None:
        """The session ends: a step that never ended is done again, and nothing of it is recorded."""
        self.check = None
        if self.is_unfinished:
            self._loop.attached = None

    @property
    def is_untouched(self) -> bool:
        """Whether the loop has recorded nothing in it, and no optimizer has stepped."""
        return self._loop.attached is not None and not self._has_stepped

    @property
    def _has_stepped(self) -> bool:
        return self.check is not None and self.check.state.has_stepped
