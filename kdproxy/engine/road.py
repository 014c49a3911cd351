"""The road to one model at one upstream: one queue, and behind it a lane for each credential.

Whoever is first in line goes to the lane that can send soonest. A waiter that is cancelled leaves no hole: its permit,
if it was just granted, is given back. Event loop only.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from kdproxy.core.limits import Cost, Reading, exhausted
from kdproxy.core.pace import Grant
from kdproxy.core.pace_backoff import Backoffs, RequestBackoff
from kdproxy.core.ports import Clock
from kdproxy.core.retry import Park
from kdproxy.engine.gate import Gate
from kdproxy.engine.lane import Lane, Policy, Refusal
from kdproxy.engine.line import Line, Waiter

log = logging.getLogger("kdproxy.engine")

LONGEST_ADVICE_SECONDS = 120.0
"""The official clients do not wait longer than this; they give up instead."""


class RoadClosed(Exception):
    """No lane goes on, and the policy is to fail fast: the provider's own words say why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__("no lane goes on")
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a client is told that waits no longer."""

    seconds: float
    is_rate_limit: bool
    reason: str


class Permit:
    """The right to send one request. Exactly one of its endings must be called; more do nothing."""

    def __init__(
        self, road: "Road", lane: Lane, grant: Grant, waiter: Waiter, *, is_probe: bool, is_look: bool
    ) -> None:
        self._road = road
        self.lane = lane
        self._grant = grant
        self._question = waiter.question
        self._backoff = waiter.backoff
        self.is_probe = is_probe
        self._is_look = is_look
        self._is_over = False

    def accepted(self, readings: Iterable[Reading]) -> None:
        """The answer has begun. Its end is told by `done` or `broken`."""
        now = self._road.now()
        self.lane.pace.learn(self._grant, readings, now)
        self.lane.pace.accepted(self._grant, now)
        self._was_accepted()
        if self._is_look:
            self.lane.resume()
        self._road.gate.passed()

    def done(self, used: Cost | None = None) -> None:
        """The answer is complete."""
        if not self._is_over:
            self.lane.pace.done(self._grant, self._road.now(), used=used)
            self._end("answered")

    def declined(self, readings: Iterable[Reading]) -> None:
        """The provider said no to this request alone."""
        if not self._is_over:
            now = self._road.now()
            self.lane.pace.learn(self._grant, readings, now)
            self.lane.pace.accepted(self._grant, now)
            self._was_accepted()
            self.lane.pace.failed(self._grant)
            self._road.gate.passed()
            self._end("answered")

    def refused(self, readings: Iterable[Reading], wait_seconds: float | None) -> float:
        """A 429: pause the lane, or set this request aside. Returns for how long the lane pauses."""
        now = self._road.now()
        was_aside = self._backoff.is_aside
        self.lane.pace.learn(self._grant, readings, now)
        pause = self.lane.pace.refused(
            self._grant,
            now,
            wait_seconds=wait_seconds,
            jitter=self._road.jitter(),
            request=self._backoff,
            is_told=exhausted(readings) is not None,
            lanes=len(self._road.lanes),
        )
        self._road.backoffs.remember(self._question, self._backoff)
        if self._backoff.is_aside and not was_aside:
            log.warning(
                "a request is refused while others pass: it alone is tried again ever more rarely, the others go on",
                extra=self.lane.fields(),
            )
        self._road.gate.passed()
        self._end("refused")
        return pause

    def _was_accepted(self) -> None:
        if self._backoff.refusals:
            self._backoff.accepted()
            self._road.backoffs.forget(self._question)

    def failed(self, reason: str, readings: Iterable[Reading] = ()) -> None:
        """The upstream failed: unreachable, cut off, 5xx. Its head may speak of limits all the same."""
        if not self._is_over:
            now = self._road.now()
            self.lane.pace.learn(self._grant, readings, now)
            self.lane.pace.erred(self._grant, now)
            self._road.gate.failed(reason, was_probe=self.is_probe)
            self._end("failed")

    def broken(self) -> None:
        """An answer that had begun was not read to its end."""
        if not self._is_over:
            self.lane.pace.failed(self._grant)
            self._end("failed")

    def halted(self, verdict: Park, refusal: Refusal) -> None:
        """No wait helps: stop the lane."""
        parks = self._road.policy is Policy.PARK
        now = self._road.now()
        # Before anything that gives turns: the next one must find it stopped.
        self.lane.halt(verdict.reason, refusal, parks=parks, wait_seconds=verdict.wait_seconds, now=now)
        self.lane.pace.failed(self._grant)
        self._road.gate.passed()
        self._end("refused")

    def revoked(self, refusal: Refusal) -> None:
        """The credential is bad: take its lane out."""
        self.lane.revoke(refusal, self._road.now())
        self.lane.pace.failed(self._grant)
        self._road.gate.passed()
        self._end("refused")

    def drop(self) -> None:
        """Nothing was sent."""
        if not self._is_over:
            self.lane.pace.drop(self._grant)
            self.lane.counts["sent"] -= 1
            self._end("dropped")

    def _end(self, outcome: str) -> None:
        self._is_over = True
        self.lane.counts[outcome] += 1
        if self._is_look and self.lane.stop is not None and self.lane.stop.is_looking:
            # The look told nothing: the next request looks.
            self.lane.stop.is_looking = False
        self._road.gate.end(was_probe=self.is_probe)


@dataclass(slots=True, kw_only=True, eq=False)
class Road:
    """The queue before the lanes of one upstream and model."""

    gate: Gate
    lanes: tuple[Lane, ...]
    policy: Policy
    clock: Clock
    jitter: Callable[[], float]
    backoffs: Backoffs = field(default_factory=Backoffs)
    _line: Line = field(default_factory=Line)
    _timer: asyncio.TimerHandle | None = None
    _timer_at: float = math.inf

    def __post_init__(self) -> None:
        self.gate.listen(self.pump)

    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock.monotonic()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._line)

    def queue(self, cost: Cost, *, run: str = "", at_front: bool = False, question: Hashable = None) -> Waiter:
        """Get in line.

        Args:
            at_front: it has had its turn before, and was sent back.
            question: what is asked; its back-off holds for whoever asks it.
        """
        now = self.now()
        backoff = RequestBackoff() if question is None else self.backoffs.of(question, now)
        waiter = Waiter(cost, run, now, asyncio.get_running_loop().create_future(), question, backoff)
        self._line.add(waiter, now, at_front=at_front)
        return waiter

    async def turn(self, waiter: Waiter) -> Permit:
        """Return when it is this waiter's turn.

        Raises:
            RoadClosed: no lane goes on, and the policy is to fail fast.
        """
        self.pump()
        try:
            permit: Permit = await waiter.future
        except asyncio.CancelledError:
            self._leave(waiter)
            raise
        return permit

    def advise(self, waiter: Waiter | None) -> Advice:
        """Say when a waiter may come again, at most 120 s ahead, and whose fault the wait is."""
        now = self.now()
        if self.gate.is_open:
            seconds, is_rate_limit, reason = self.gate.wait(now), False, "the upstream fails every call"
        else:
            stops = [lane.stop for lane in self.lanes if lane.stop is not None]
            if len(stops) == len(self.lanes):
                seconds, is_rate_limit, reason = min(stop.look_at for stop in stops) - now, True, stops[0].reason
            else:
                seconds, is_rate_limit, reason = self._eta(waiter, now), True, "the rate limit"
        if not math.isfinite(seconds):
            seconds = 1.0
        return Advice(
            seconds=min(LONGEST_ADVICE_SECONDS, max(0.2, seconds)), is_rate_limit=is_rate_limit, reason=reason
        )

    def drain_seconds(self) -> float | None:
        """Return about how long the queue takes; None where the pace is not known."""
        if not self.waiting:
            return 0.0
        first = self._line.first()
        rate = None if first is None else self._rate(first.cost)
        return None if rate is None else self.waiting / rate

    def pump(self) -> None:
        """Give turns for as long as somebody may go now; then see to it that the next moment is not missed."""
        if self._line.is_empty and self._timer is None:
            return  # it is called as each call ends, mostly with nobody in line
        now = self.now()
        self._line.line_up_due(now)
        wait = math.inf
        while (waiter := self._line.first()) is not None:
            refusal = self._closed_by(now)
            if refusal is not None:
                self._line.take(waiter)
                waiter.future.set_exception(RoadClosed(refusal))
                continue
            lane, wait = self._soonest(waiter.cost, now)
            if wait <= 0 and waiter.backoff.refusals and lane.pace.is_probing:
                # Who was not refused shows more of how the lane is.
                waiter = self._line.least_refused()
                lane, wait = self._soonest(waiter.cost, now)
            wait = max(wait, self.gate.wait(now))
            if wait > 0:
                break
            self._line.take(waiter)
            waiter.future.set_result(self._grant(lane, waiter, now))
            wait = math.inf
        self._wake_in(min(wait, self._line.next_due_at - now), now)

    def _soonest(self, cost: Cost, now: float) -> tuple[Lane, float]:
        """Return the lane that can send first, and in how many seconds."""
        soonest, shortest = self.lanes[0], math.inf
        for lane in self.lanes:
            wait = lane.wait(cost, now)
            if wait < shortest:
                soonest, shortest = lane, wait
        return soonest, shortest

    def _grant(self, lane: Lane, waiter: Waiter, now: float) -> Permit:
        is_look = lane.stop is not None
        if lane.stop is not None:
            lane.stop.is_looking = True
        waited = now - waiter.since
        lane.waited_seconds += waited
        lane.longest_wait_seconds = max(lane.longest_wait_seconds, waited)
        lane.counts["sent"] += 1
        is_probe = self.gate.breaker.take()
        return Permit(self, lane, lane.pace.take(waiter.cost, now), waiter, is_probe=is_probe, is_look=is_look)

    @property
    def is_closed(self) -> bool:
        """Whether no lane goes on and nothing is held for it."""
        return all(lane.stop is not None and not lane.stop.is_parked for lane in self.lanes)

    def _closed_by(self, now: float) -> Refusal | None:
        """Return what all requests get, if every lane is stopped and none may look now."""
        if not self.is_closed:
            return None
        stops = [lane.stop for lane in self.lanes if lane.stop is not None]
        if any(stop.is_looking or stop.look_at <= now for stop in stops):
            return None
        return max(stops, key=lambda stop: stop.since).refusal

    def _leave(self, waiter: Waiter) -> None:
        if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
            # The turn came in the same moment: it goes to the next one.
            waiter.future.result().drop()
            return
        self._line.leave(waiter)
        self.pump()

    def _wake_in(self, seconds: float, now: float) -> None:
        at = now + seconds
        if self._timer is not None:
            if abs(at - self._timer_at) < 0.0005:
                return
            self._timer.cancel()
            self._timer = None
        if math.isfinite(seconds):
            self._timer_at = at
            self._timer = asyncio.get_running_loop().call_later(seconds, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self.pump()

    def _eta(self, waiter: Waiter | None, now: float) -> float:
        cost = Cost() if waiter is None else waiter.cost
        first = min(lane.wait(cost, now) for lane in self.lanes)
        if waiter is not None and waiter.backoff.ready_at > now:
            first = max(waiter.backoff.ready_at - now, first if math.isfinite(first) else 0.0)
        rate = self._rate(cost)
        ahead = 0 if rate is None else self._line.ahead(waiter) / rate
        return (first if math.isfinite(first) else 1.0) + ahead

    def _rate(self, cost: Cost) -> float | None:
        rates = [rate for lane in self.lanes if lane.stop is None and (rate := lane.pace.rate(cost)) is not None]
        return sum(rates) if rates else None
