"""The right to send one request, and how its call ends, for the lane, its pace and the upstream's health. Loop only.

| ending | the call | in the pace | in the circuit breaker | in `counts` |
|---|---|---|---|---|
| `started` (no ending: one of the next two follows) | its answer has begun | got through | answered well | |
| `completed` | its answer was read to its end | ended, with what it used | | answered |
| `aborted` | was given up before the end of its answer | ended | | failed |
| `rate_limited` | 429 | pauses, or the request is set aside | answered | refused |
| `rejected` | 4xx: no to this request alone | got through | answered | answered |
| `upstream_failed` | unreachable, cut, 5xx | its slot goes to another call | failed | failed |
| `lane_stopped` | the quota is spent: no wait helps | ended | answered | refused |
| `credential_rejected` | the credential is bad | ended | answered | refused |
| `not_sent` | was not sent, or was taken back | never happened | | dropped, taken_back |
"""

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
    """The right to send one request. One of its endings must be called; a second one does nothing."""

    def __init__(self, queue: "LaneQueue", lane: Lane, grant: Grant, waiter: Waiter, *, is_probe: bool) -> None:
        self.queue = queue
        self.lane = lane
        self._grant = grant
        self._question = waiter.question
        self._backoff = waiter.backoff
        self._is_probe = is_probe
        self._is_over = False
        self._holder: asyncio.Task[Any] | None = None
        self.is_taken_back = False

    def __repr__(self) -> str:
        """Name its lane and its state, without the question."""
        state = "over" if self._is_over else "started" if self._grant.has_started else "open"
        probe = " probe" if self._is_probe else ""
        return f"<Permit {'/'.join(self.lane.identity)} {state}{probe}>"

    def started(self, readings: Iterable[Reading], *, is_retry: bool = False) -> None:
        """Take the head of an answer: `completed` or `aborted` follows."""
        if self._is_over:
            return
        now = self.queue.now()
        self.queue.unstarted.pop(self, None)
        self.lane.pace.learn(self._grant, readings, now)
        self.lane.pace.started(self._grant, now)
        self._reset_backoff()
        if self._is_probe:
            self.lane.resume()
        self.queue.health.started(is_retry=is_retry)

    def completed(self, used: Cost | None = None) -> None:
        """End: the answer was read to its end. `used` is what it took."""
        if not self._is_over:
            self.lane.pace.completed(self._grant, self.queue.now(), used=used)
            self._end("answered")
            self.queue.relieve(self.lane)

    def aborted(self) -> None:
        """End: the call was given up before the end of its answer; that says nothing about limits or the upstream."""
        if not self._is_over:
            self.lane.pace.aborted(self._grant)
            self._end("failed")

    def rate_limited(self, readings: Iterable[Reading], wait_seconds: float | None) -> float:
        """End with a 429: pause the lane, or set this request aside. Return for how long the lane pauses."""
        if self._is_over:
            return 0.0
        now = self.queue.now()
        was_aside = self._backoff.is_aside
        self.lane.pace.learn(self._grant, readings, now)
        pause = self.lane.pace.rate_limited(
            self._grant,
            now,
            wait_seconds=wait_seconds,
            jitter=self.queue.jitter(),
            request=self._backoff,
            is_exhausted=exhausted(readings) is not None,
            lanes=len(self.queue.lanes),
        )
        self.queue.backoffs.remember(self._question, self._backoff)
        if self._backoff.is_aside and not was_aside:
            log.warning(
                "request set aside: it is refused while others pass, so it alone backs off",
                extra=self.lane.fields(),
            )
        self.queue.health.answered()
        self._end("refused")
        return pause

    def rejected(self, readings: Iterable[Reading]) -> None:
        """End: the provider said no to this request alone."""
        if not self._is_over:
            now = self.queue.now()
            self.lane.pace.learn(self._grant, readings, now)
            self.lane.pace.rejected(self._grant, now)
            self._reset_backoff()
            self.queue.health.answered()
            self._end("answered")

    def upstream_failed(self, reason: str, readings: Iterable[Reading] = (), *, is_overload: bool = False) -> None:
        """End: the upstream failed. Its head may name limits all the same.

        Args:
            reason: what happened, in a sentence.
            readings: the limits that its head names.
            is_overload: it may have been too many at once: a 503 that says so, a refused connection, a deadline.
        """
        if not self._is_over:
            now = self.queue.now()
            self.lane.pace.learn(self._grant, readings, now)
            self.lane.pace.upstream_failed(self._grant, now, overloaded_by=self._question if is_overload else None)
            self.queue.health.upstream_failed(reason, self._question)
            self._end("failed")

    def lane_stopped(self, verdict: Park, refusal: Refusal) -> None:
        """End: no wait helps, so the lane stops."""
        if not self._is_over:
            parks = self.queue.policy is Policy.PARK
            now = self.queue.now()
            # Before anything that gives turns: the next request must find it stopped.
            self.lane.halt(verdict.reason, refusal, parks=parks, wait_seconds=verdict.wait_seconds, now=now)
            self.lane.pace.lane_stopped(self._grant)
            self.queue.health.answered()
            self._end("refused")

    def credential_rejected(self, refusal: Refusal) -> None:
        """End: the credential is bad, so its lane stops and the others serve its requests."""
        if not self._is_over:
            self.lane.revoke(refusal, self.queue.now())
            self.lane.pace.lane_stopped(self._grant)
            self.queue.health.answered()
            self._end("refused")

    def not_sent(self) -> None:
        """End: nothing was sent, or the call was taken back before a byte of its answer. It costs nothing."""
        if not self._is_over:
            self.lane.pace.not_sent(self._grant)
            self.lane.counts["sent"] -= 1
            self._end("taken_back" if self.is_taken_back else "dropped")

    def may_be_taken_back(self, holder: "asyncio.Task[Any] | None") -> None:
        """Name the task that waits for the answer: a free upstream that has too many calls gets it cancelled."""
        if holder is not None and self.queue.is_free:
            self._holder = holder
            self.queue.unstarted[self] = None

    def take_back(self) -> None:
        """Cancel the call: its holder calls `not_sent` and joins the queue again."""
        if self._holder is not None:
            self.is_taken_back = True
            self._holder.cancel()

    def _reset_backoff(self) -> None:
        if self._backoff.refusals:
            self._backoff.reset()
            self.queue.backoffs.forget(self._question)

    def _end(self, outcome: str) -> None:
        self._is_over = True
        self.queue.unstarted.pop(self, None)
        self.lane.counts[outcome] += 1
        if self._is_probe and self.lane.stop is not None and self.lane.stop.is_probing:
            # The probe ended without a result: the next request is the probe.
            self.lane.stop.is_probing = False
        self.queue.health.ended(self._question)
