"""The one loop that buys: turn, send, verdict, wait, again. tenacity says when to stop, the lane how long to wait."""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, assert_never

import tenacity
from multidict import CIMultiDict

from kdproxy.core import limits, retry
from kdproxy.core.limits import Cost
from kdproxy.core.pace_rules import Rules
from kdproxy.core.ports import Clock, UpstreamClient, UpstreamRequest, UpstreamResponse
from kdproxy.core.sniff import Kind
from kdproxy.engine.flights import Flight, Phase
from kdproxy.engine.lane import Refusal
from kdproxy.engine.peek import Peeked, peek
from kdproxy.engine.permit import Permit
from kdproxy.engine.road import LONGEST_ADVICE_SECONDS, Road, RoadClosed
from kdproxy.errors import UpstreamFailed

ERROR_BODY_BYTES = 64 << 20
"""Some errors quote the request (FastAPI's 422, vLLM's 400), which may be as large as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """When to stop."""

    total_seconds: float
    """From the first attempt to the last, waits included; a rate limit is not bounded by it but by who waits."""
    max_attempts: int
    """That failed, probes of a dead upstream not counted."""


class Errand(NamedTuple):
    """What is to be fetched."""

    request: Callable[[int], UpstreamRequest]
    """Makes the call for the credential of that index."""
    cost: Cost
    rules: Rules
    run: str = ""
    deadline_seconds: float = math.inf
    """How long its client waits."""
    whole_bytes: int = 0
    """Up to so many bytes of a body that is no stream are read before it counts as had: one that is cut failed."""


class Delivery(NamedTuple):
    """An answer's head. `permit.done` or `permit.broken` must be called at the end of its body."""

    response: UpstreamResponse
    permit: Permit
    kind: Kind | None = None
    """What its body is by its first bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp:
    """Attempts or time ran out before the provider relented."""

    wait_seconds: float
    """When to ask again."""
    is_rate_limit: bool
    reason: str
    last: Refusal | None
    """The provider's last word, if it said any."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """One attempt failed in a way that another may mend."""

    reason: str
    refusal: Refusal | None = None
    floor_seconds: float | None = None
    is_held: bool = False
    """The lane or the gate sees to the wait: the next attempt gets in line at once."""
    is_counted: bool = True


class Fetcher:
    """Buys one answer, as often as it takes."""

    def __init__(
        self,
        upstream: UpstreamClient,
        clock: Clock,
        settings: RetrySettings,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._upstream = upstream
        self._clock = clock
        self._settings = settings
        self._jitter = jitter

    async def fetch(self, errand: Errand, flight: Flight, road: Road) -> Delivery | Refusal | GaveUp:
        """Return a 2xx or 3xx answer's head, or what to say instead.

        A cancelled fetch was not sent, or its connection is closed.
        """
        return await _Try(self._upstream, self._clock, self._settings, self._jitter, errand, flight, road).run()


@dataclass(slots=True)
class _Try:
    """The attempts at one answer."""

    upstream: UpstreamClient
    clock: Clock
    settings: RetrySettings
    jitter: Callable[[], float]
    errand: Errand
    flight: Flight
    road: Road
    failing_since: float = 0.0
    """When the first attempt failed: time in line is no failure."""
    failures: int = 0
    sends_back: bool = False
    """Whether the next attempt keeps its place at the head of the line."""

    async def run(self) -> Delivery | Refusal | GaveUp:
        first = await self._attempt()
        if not isinstance(first, _Failed):
            return first  # most calls end here, and setting up tenacity costs a third of a miss

        made = [first]

        async def attempt() -> Delivery | Refusal | _Failed:
            return made.pop() if made else await self._attempt()

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda result: isinstance(result, _Failed)),
            wait=self._wait,
            stop=self._is_enough,
            sleep=self._sleep,
            retry_error_callback=self._give_up,
        )
        result: Delivery | Refusal | GaveUp = await retrying(attempt)
        return result

    # -- what tenacity asks -----------------------------------------------------------------------------------

    def _wait(self, state: tenacity.RetryCallState) -> float:
        failed = _failed(state)
        if failed.is_held:
            return 0.0
        again = retry.Again(floor_seconds=failed.floor_seconds)
        return retry.wait_seconds(again, max(self.failures, 1), jitter=self.jitter())

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        failed = _failed(state)
        if not failed.is_counted:
            return False
        elapsed = self.clock.monotonic() - self.failing_since
        return (
            self.failures >= self.settings.max_attempts or elapsed + state.upcoming_sleep > self.settings.total_seconds
        )

    async def _sleep(self, seconds: float) -> None:
        # Where nobody wants the flight any more this cancels its task, which shows where that next stands still: here,
        # even if for no time. Else the next free lane would be paid for an answer that nobody gets.
        self.flight.phase = Phase.WAITING
        await self.clock.sleep(seconds)

    def _give_up(self, state: tenacity.RetryCallState) -> Refusal | GaveUp:
        failed = _failed(state)
        advice = self.road.advise(None)
        wait = max(state.upcoming_sleep, advice.seconds if self.road.gate.is_open else 0.0)
        return GaveUp(
            wait_seconds=min(wait, LONGEST_ADVICE_SECONDS),
            is_rate_limit=False,
            reason=failed.reason,
            last=failed.refusal,
        )

    # -- one attempt ------------------------------------------------------------------------------------------

    async def _attempt(self) -> Delivery | Refusal | _Failed:
        flight = self.flight
        flight.phase = Phase.WAITING
        waiter = self.road.queue(
            self.errand.cost,
            run=self.errand.run,
            at_front=self.sends_back,
            question=flight.identity,
            deadline_seconds=self.errand.deadline_seconds,
        )
        flight.advise = lambda: self.road.advise(waiter)
        try:
            permit = await self.road.turn(waiter)
        except RoadClosed as closed:
            return closed.refusal
        flight.phase = Phase.SENT
        flight.attempts += 1
        self.sends_back = True
        task = asyncio.current_task()
        permit.may_be_taken_back(task)
        try:
            return await self._send(permit)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and permit.is_taken_back and task and not task.uncancel():
                flight.attempts -= 1
                permit.taken_back()
                return _Failed("taken back: the server has too many", is_held=True, is_counted=False)
            # A cancelled call closes its connection; the lane must not wait for it.
            permit.broken()
            raise

    async def _send(self, permit: Permit) -> Delivery | Refusal | _Failed:
        rules = self.errand.rules
        try:
            response = await self.upstream.send(self.errand.request(permit.lane.key_index))
            if response.status < 400:
                glance = await peek(response, whole_bytes=self.errand.whole_bytes)
                response = glance.response
                if glance.fault:
                    response.close()
                    permit.failed(glance.fault, self._readings(response))
                    return self._transient(permit, f"The upstream sent {glance.fault} (status {response.status}).")
                verdict: retry.Verdict = retry.Done()
                if glance.error:
                    verdict = retry.judge_event(glance.error, rules, now=self.clock.now())
                if not isinstance(verdict, retry.Again | retry.Park):
                    permit.accepted(self._readings(response))
                    self.road.gate.budget.succeeded(is_retry=self.failures > 0)
                    return Delivery(response=response, permit=permit, kind=glance.kind)
                assert isinstance(response, Peeked)  # an error has been seen in it
                body = response.drop()
            else:
                body = await response.read(ERROR_BODY_BYTES)
        except UpstreamFailed as error:
            if not error.retryable:
                raise
            permit.failed(error.message, is_overload=_may_be_overload(error))
            return self._transient(permit, error.message)
        readings = self._readings(response)
        if response.status >= 400:
            headers = CIMultiDict(response.headers)
            verdict = retry.judge(response.status, headers, body, rules, readings, now=self.clock.now())
        refusal = Refusal(status=response.status, headers=response.headers, body=body)
        return self._act(verdict, permit, refusal, readings)

    def _act(
        self, verdict: retry.Verdict, permit: Permit, refusal: Refusal, readings: tuple[limits.Reading, ...]
    ) -> Refusal | _Failed:
        match verdict:
            case retry.Again(is_rate_limit=True):
                permit.refused(readings, verdict.floor_seconds)
                return _Failed(verdict.reason, refusal, is_held=True, is_counted=False)
            case retry.Again():
                permit.failed(verdict.reason, readings, is_overload=verdict.reason == "overloaded")
                return self._transient(permit, verdict.reason, refusal, verdict.floor_seconds)
            case retry.Park():
                fatal = Refusal(status=refusal.status, headers=refusal.headers, body=refusal.body, is_fatal=True)
                permit.halted(verdict, fatal)
                if self.road.is_closed:
                    return fatal
                # In line again: the other lanes go on, or it is held until somebody pays.
                return _Failed(verdict.reason, fatal, is_held=True, is_counted=False)
            case retry.GiveUp(is_credential=True) if len(self.road.lanes) > 1:
                permit.revoked(refusal)
                return _Failed(verdict.reason, refusal, is_held=True, is_counted=False)
            case retry.GiveUp() | retry.Done():
                permit.declined(readings)
                return refusal
        assert_never(verdict)

    def _transient(
        self, permit: Permit, reason: str, refusal: Refusal | None = None, floor_seconds: float | None = None
    ) -> _Failed:
        # A request that fails as a probe goes to the back: the next look is another one's.
        self.sends_back = not permit.is_probe
        if not permit.is_probe:
            self.failing_since = self.failing_since if self.failures else self.clock.monotonic()
            self.failures += 1
        return _Failed(reason, refusal, floor_seconds, is_held=self.road.gate.is_open, is_counted=not permit.is_probe)

    def _readings(self, response: UpstreamResponse) -> tuple[limits.Reading, ...]:
        return limits.read(CIMultiDict(response.headers), self.errand.rules.limits, now=self.clock.now())


def _may_be_overload(error: UpstreamFailed) -> bool:
    """Whether too many at once may be the cause: a refused connection, or nothing in time."""
    return not error.was_sent or error.code.endswith("_timeout")


def _failed(state: tenacity.RetryCallState) -> _Failed:
    assert state.outcome is not None  # wait and stop are asked after an attempt
    result = state.outcome.result()
    assert isinstance(result, _Failed)
    return result
