"""The right to send one request, and what its end tells the lane and the gate. Event loop only."""

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kdproxy.core.limits import Cost, Reading, exhausted
from kdproxy.core.pacing.pace import Grant
from kdproxy.core.retry import Park
from kdproxy.engine.fair_queue import Waiter
from kdproxy.engine.lane import Lane, Policy, Refusal

if TYPE_CHECKING:
    from kdproxy.engine.lane_queue import LaneQueue

log = logging.getLogger("kdproxy.engine")


class Permit:
    """The right to send one request. Exactly one of its endings must be called; more do nothing."""

    def __init__(self, road: "LaneQueue", lane: Lane, grant: Grant, waiter: Waiter, *, is_look: bool) -> None:
        self.road = road
        self.lane = lane
        self._grant = grant
        self._question = waiter.question
        self._backoff = waiter.backoff
        self._is_look = is_look
        self._is_over = False
        self._holder: asyncio.Task[Any] | None = None
        self.is_taken_back = False

    def accepted(self, readings: Iterable[Reading]) -> None:
        """The answer has begun. Its end is told by `done` or `broken`."""
        now = self.road.now()
        self.road.unbegun.pop(self, None)
        self.lane.pace.learn(self._grant, readings, now)
        self.lane.pace.accepted(self._grant, now)
        self._was_accepted()
        if self._is_look:
            self.lane.resume()
        self.road.gate.passed()

    def done(self, used: Cost | None = None) -> None:
        """The answer is complete."""
        if not self._is_over:
            self.lane.pace.done(self._grant, self.road.now(), used=used)
            self._end("answered")
            self.road.relieve(self.lane)

    def declined(self, readings: Iterable[Reading]) -> None:
        """The provider said no to this request alone."""
        if not self._is_over:
            now = self.road.now()
            self.lane.pace.learn(self._grant, readings, now)
            self.lane.pace.accepted(self._grant, now)
            self._was_accepted()
            self.lane.pace.failed(self._grant)
            self.road.gate.passed()
            self._end("answered")

    def refused(self, readings: Iterable[Reading], wait_seconds: float | None) -> float:
        """A 429: pause the lane, or set this request aside. Returns for how long the lane pauses."""
        now = self.road.now()
        was_aside = self._backoff.is_aside
        self.lane.pace.learn(self._grant, readings, now)
        pause = self.lane.pace.refused(
            self._grant,
            now,
            wait_seconds=wait_seconds,
            jitter=self.road.jitter(),
            request=self._backoff,
            is_told=exhausted(readings) is not None,
            lanes=len(self.road.lanes),
        )
        self.road.backoffs.remember(self._question, self._backoff)
        if self._backoff.is_aside and not was_aside:
            log.warning(
                "a request is refused while others pass: it alone is tried again ever more rarely, the others go on",
                extra=self.lane.fields(),
            )
        self.road.gate.passed()
        self._end("refused")
        return pause

    def _was_accepted(self) -> None:
        if self._backoff.refusals:
            self._backoff.accepted()
            self.road.backoffs.forget(self._question)

    def failed(self, reason: str, readings: Iterable[Reading] = (), *, is_overload: bool = False) -> None:
        """The upstream failed: unreachable, cut off, 5xx. Its head may speak of limits all the same.

        Args:
            is_overload: it may have been too many at once: a 503 that says so, a refused connection, a deadline.
        """
        if not self._is_over:
            now = self.road.now()
            self.lane.pace.learn(self._grant, readings, now)
            self.lane.pace.erred(self._grant, now, overloaded_by=self._question if is_overload else None)
            self.road.gate.failed(reason, self._question)
            self._end("failed")

    def broken(self) -> None:
        """An answer that had begun was not read to its end."""
        if not self._is_over:
            self.lane.pace.failed(self._grant)
            self._end("failed")

    def halted(self, verdict: Park, refusal: Refusal) -> None:
        """No wait helps: stop the lane."""
        parks = self.road.policy is Policy.PARK
        now = self.road.now()
        # Before anything that gives turns: the next one must find it stopped.
        self.lane.halt(verdict.reason, refusal, parks=parks, wait_seconds=verdict.wait_seconds, now=now)
        self.lane.pace.failed(self._grant)
        self.road.gate.passed()
        self._end("refused")

    def revoked(self, refusal: Refusal) -> None:
        """The credential is bad: take its lane out."""
        self.lane.revoke(refusal, self.road.now())
        self.lane.pace.failed(self._grant)
        self.road.gate.passed()
        self._end("refused")

    def may_be_taken_back(self, holder: "asyncio.Task[Any] | None") -> None:
        """Name the task that waits for the answer: on a free upstream it is cancelled if the call was one too many."""
        if holder is not None and self.road.is_free:
            self._holder = holder
            self.road.unbegun[self] = None

    def take_back(self) -> None:
        """Cancel the call: its holder calls `taken_back` and gets in line again."""
        if self._holder is not None:
            self.is_taken_back = True
            self._holder.cancel()

    def taken_back(self) -> None:
        """The call was cancelled before a byte of its answer: it costs nothing, and counts for nothing."""
        if not self._is_over:
            self.lane.pace.drop(self._grant)
            self.lane.counts["sent"] -= 1
            self._end("taken_back")

    def drop(self) -> None:
        """Nothing was sent."""
        if not self._is_over:
            self.lane.pace.drop(self._grant)
            self.lane.counts["sent"] -= 1
            self._end("dropped")

    def _end(self, outcome: str) -> None:
        self._is_over = True
        self.road.unbegun.pop(self, None)
        self.lane.counts[outcome] += 1
        if self._is_look and self.lane.stop is not None and self.lane.stop.is_looking:
            # The look told nothing: the next request looks.
            self.lane.stop.is_looking = False
        self.road.gate.end(self._question)
