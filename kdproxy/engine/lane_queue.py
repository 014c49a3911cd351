"""The queue to one model at one upstream: one queue, and behind it a lane for each credential.

The first waiter goes to the lane that can send soonest. A waiter that is cancelled leaves no hole: a permit that it was
just granted goes to the next one. Event loop only.
"""

import asyncio
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from kdproxy.core.limits import Cost
from kdproxy.core.pacing.backoff import Backoffs, RequestBackoff
from kdproxy.core.ports import Clock
from kdproxy.core.server_kind import Recognition
from kdproxy.engine.fair_queue import FairQueue, Waiter
from kdproxy.engine.lane import Lane, Policy, Refusal
from kdproxy.engine.permit import Permit
from kdproxy.engine.upstream_health import UpstreamHealth

LONGEST_ADVICE_SECONDS = 120.0
"""The official clients do not wait longer than this; they give up instead."""


class LaneQueueClosed(Exception):
    """All lanes are stopped, and the policy is to fail: the provider's own error says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__("all lanes are stopped")
        self.refusal = refusal


class UpstreamDown(Exception):
    """The breaker is open, and requests are not to be held for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a client gets that has waited as long as it can."""

    seconds: float
    is_rate_limit: bool
    reason: str
    is_parked: bool = False
    """Whether its credentials have no quota left: nothing goes before that is back."""


@dataclass(slots=True, kw_only=True, eq=False)
class LaneQueue:
    """The queue before the lanes of one upstream and model."""

    health: UpstreamHealth
    lanes: tuple[Lane, ...]
    policy: Policy
    clock: Clock
    jitter: Callable[[], float]
    is_free: bool = False
    """Whether a call costs nothing: one too many is taken back."""
    is_recognised: bool = False
    used_at: float = -math.inf
    """When it was last asked for."""
    unstarted: dict[Permit, None] = field(default_factory=dict)
    """Calls of a free upstream that wait for the first byte of their answer, oldest first."""
    backoffs: Backoffs = field(default_factory=Backoffs)
    _waiters: FairQueue = field(default_factory=FairQueue)
    _timer: asyncio.TimerHandle | None = None
    _timer_at: float = math.inf

    def __repr__(self) -> str:
        """Name it, with who waits, the breaker's state and its lanes."""
        name = f"{self.health.upstream.name}/{self.model}"
        return f"<LaneQueue {name} waiting={self.waiting} breaker={self.health.breaker.state} lanes={list(self.lanes)}>"

    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether there are no waiters and no calls in flight."""
        return self._waiters.is_empty and not any(lane.pace.in_flight for lane in self.lanes)

    @property
    def model(self) -> str:
        """The model that it leads to; empty where the request does not say."""
        return self.lanes[0].identity[2]

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiters)

    def join(
        self,
        cost: Cost,
        *,
        run: str = "",
        at_front: bool = False,
        question: Hashable = None,
        deadline_seconds: float = math.inf,
    ) -> Waiter:
        """Join the queue.

        Args:
            at_front: it had a permit before, and was sent back.
            question: what is asked; its back-off holds for whoever asks it.
            deadline_seconds: how long its client waits.
        """
        now = self.now()
        backoff = RequestBackoff() if question is None else self.backoffs.of(question, now)
        waiter = Waiter(cost, run, now, asyncio.get_running_loop().create_future(), question, backoff, deadline_seconds)
        self._waiters.add(waiter, now, at_front=at_front)
        return waiter

    async def turn(self, waiter: Waiter) -> Permit:
        """Return when it is this waiter's turn.

        Raises:
            LaneQueueClosed: all lanes are stopped, and the policy is to fail.
            UpstreamDown: the breaker is open, and requests are not held.
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
        if self.health.is_open:
            seconds, is_rate_limit, reason = self.health.breaker.wait(now), False, self._outage()
        else:
            stops = [lane.stop for lane in self.lanes if lane.stop is not None]
            if len(stops) == len(self.lanes):
                seconds, is_rate_limit, reason = min(stop.probe_at for stop in stops) - now, True, stops[0].reason
            else:
                seconds, is_rate_limit, reason = self._eta(waiter, now), True, "the rate limit"
        if not math.isfinite(seconds):
            seconds = 1.0
        return Advice(
            seconds=min(LONGEST_ADVICE_SECONDS, max(0.2, seconds)),
            is_rate_limit=is_rate_limit,
            reason=reason,
            is_parked=all(lane.stop is not None for lane in self.lanes),
        )

    def _outage(self) -> str:
        reason = self.health.last_reason
        return "the upstream fails every call" if reason is None else f"the upstream fails every call: {reason}"

    def drain_seconds(self) -> float | None:
        """Return about how long the queue takes; None where the pace is not known."""
        if not self.waiting:
            return 0.0
        first = self._waiters.first()
        rate = None if first is None else self._rate(first.cost)
        return None if rate is None else self.waiting / rate

    def pump(self) -> None:
        """Grant permits while a waiter may go now; then set the timer for the next one."""
        if self._waiters.is_empty and self._timer is None:
            self.health.forget(self.pump)
            return  # it is called as each call ends, mostly with no waiters
        now = self.now()
        self._waiters.admit_due(now)
        wait = math.inf
        while (waiter := self._waiters.first()) is not None:
            refusal = self._closed_by(now)
            if refusal is not None:
                self._waiters.take(waiter)
                waiter.future.set_exception(LaneQueueClosed(refusal))
                continue
            lane, wait = self._soonest(waiter.cost, now)
            if wait <= 0 and waiter.backoff.refusals and lane.pace.is_probing:
                # A request that was not refused is the better probe of the lane.
                waiter = self._waiters.least_refused()
                lane, wait = self._soonest(waiter.cost, now)
            if wait <= 0 and self.health.is_open:
                # A half-open probe is a question that has not failed.
                waiter = self._waiters.first_but(self.health.breaker.has_failed) or waiter
                lane, wait = self._soonest(waiter.cost, now)
            wait = wait if wait > 0 else self.health.wait(now, waiter.question)
            if wait > 0 and self.health.is_open and self.health.fails_fast:
                self._waiters.take(waiter)
                waiter.future.set_exception(UpstreamDown())
                continue
            if wait > 0:
                lane.log_if_full()
                break
            self._waiters.take(waiter)
            waiter.future.set_result(self._grant(lane, waiter, now))
            wait = math.inf
        if self._waiters.is_empty:
            self.health.forget(self.pump)
        else:
            self.health.listen(self.pump)
        self._wake_in(min(wait, self._waiters.next_due_at - now), now)

    def _soonest(self, cost: Cost, now: float) -> tuple[Lane, float]:
        """Return the lane that can send first, and in how many seconds."""
        soonest, shortest = self.lanes[0], math.inf
        if len(self.lanes) == 1:
            return soonest, soonest.wait(cost, now)
        for lane in self.lanes:
            wait = lane.wait(cost, now)
            if wait < shortest:
                soonest, shortest = lane, wait
        return soonest, shortest

    def _grant(self, lane: Lane, waiter: Waiter, now: float) -> Permit:
        is_probe = lane.stop is not None
        if lane.stop is not None:
            lane.stop.is_probing = True
        waited = now - waiter.since
        lane.waited_seconds += waited
        lane.longest_wait_seconds = max(lane.longest_wait_seconds, waited)
        lane.counts["sent"] += 1
        self.health.breaker.take(now, question=waiter.question)
        grant = lane.pace.take(waiter.cost, now, deadline_seconds=min(lane.deadline_seconds, waiter.deadline_seconds))
        return Permit(self, lane, grant, waiter, is_probe=is_probe)

    def recognise(self, found: Recognition, *, is_free: bool) -> None:
        """Take what is known of the upstream's server."""
        self.is_recognised, self.is_free = True, is_free
        for lane in self.lanes:
            lane.pace.recognise(is_batching=found.kind.is_batching, slots=found.slots)
        self.pump()

    @property
    def is_slow(self) -> bool:
        """Whether answers take a good part of the time that they may take."""
        for lane in self.lanes:  # noqa: SIM110  # a generator takes longer, and this runs for each call
            if lane.pace.throughput.bound != math.inf:
                return True
        return False

    def relieve(self, lane: Lane) -> None:
        """Take back what a free server cannot answer in time, the youngest first."""
        if not self.unstarted or not (excess := lane.pace.excess):
            return
        youngest = [permit for permit in reversed(self.unstarted) if permit.lane is lane and not permit.is_taken_back]
        for permit in youngest[:excess]:
            permit.take_back()

    @property
    def is_closed(self) -> bool:
        """Whether all lanes are stopped and no request is held for them."""
        for lane in self.lanes:  # noqa: SIM110  # a generator takes longer, and this runs for each call
            if lane.stop is None or lane.stop.is_parked:
                return False
        return True

    def _closed_by(self, now: float) -> Refusal | None:
        """Return what all requests get, if every lane is stopped and none may probe now."""
        if not self.is_closed:
            return None
        stops = [lane.stop for lane in self.lanes if lane.stop is not None]
        if any(stop.is_probing or stop.probe_at <= now for stop in stops):
            return None
        return max(stops, key=lambda stop: stop.since).refusal

    def _leave(self, waiter: Waiter) -> None:
        if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
            # The permit came in the same moment: the next waiter gets it.
            waiter.future.result().not_sent()
            return
        self._waiters.leave(waiter)
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
        ahead = 0 if rate is None else self._waiters.ahead(waiter) / rate
        return (first if math.isfinite(first) else 1.0) + ahead

    def _rate(self, cost: Cost) -> float | None:
        rates = [rate for lane in self.lanes if lane.stop is None and (rate := lane.pace.rate(cost)) is not None]
        return sum(rates) if rates else None
