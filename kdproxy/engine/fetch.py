"""The one loop that buys: turn, send, verdict, wait, again. tenacity decides when to stop, the lane how long to wait."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import tenacity
from multidict import CIMultiDict

from kdproxy.core import retry
from kdproxy.core.ports import Clock, UpstreamClient, UpstreamRequest, UpstreamResponse
from kdproxy.engine.flights import Flight, Phase
from kdproxy.engine.lanes import Lane
from kdproxy.errors import UpstreamFailed

ERROR_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """When to stop."""

    total_seconds: float
    """From the first attempt to the last, waits included."""
    max_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error answer, read in full, that is the last word."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_fatal: bool = False


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
class _Retry:
    """One attempt failed in a way that another may mend."""

    verdict: retry.Again
    reason: str
    refusal: Refusal | None = None


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

    async def fetch(self, request: UpstreamRequest, flight: Flight, lane: Lane) -> UpstreamResponse | Refusal | GaveUp:
        """Return a 2xx or 3xx answer's head, or what to say instead.

        A cancelled fetch was not sent, or its connection is closed.
        """
        started = self._clock.monotonic()

        async def attempt() -> UpstreamResponse | Refusal | _Retry:
            flight.phase = Phase.WAITING
            await lane.wait_turn(self._clock)
            flight.phase = Phase.SENT
            flight.attempts += 1
            return await self._attempt(request)

        def wait(state: tenacity.RetryCallState) -> float:
            failed = _failed(state)
            seconds = retry.wait_seconds(failed.verdict, state.attempt_number, jitter=self._jitter())
            if failed.verdict.is_rate_limit:
                lane.pause(self._clock.monotonic() + (failed.verdict.floor_seconds or seconds))
            return seconds

        def is_out_of_time(state: tenacity.RetryCallState) -> bool:
            elapsed = self._clock.monotonic() - started
            if elapsed + state.upcoming_sleep > self._settings.total_seconds:
                return True
            # A rate limit is not a failure: the provider says when it goes on, and only the deadline ends that.
            return not _failed(state).verdict.is_rate_limit and state.attempt_number >= self._settings.max_attempts

        async def sleep(seconds: float) -> None:
            flight.phase = Phase.WAITING
            await self._clock.sleep(seconds)

        def give_up(state: tenacity.RetryCallState) -> Refusal | GaveUp:
            failed = _failed(state)
            return GaveUp(
                wait_seconds=state.upcoming_sleep,
                is_rate_limit=failed.verdict.is_rate_limit,
                reason=failed.reason,
                last=failed.refusal,
            )

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda result: isinstance(result, _Retry)),
            wait=wait,
            stop=is_out_of_time,
            sleep=sleep,
            retry_error_callback=give_up,
        )
        result: UpstreamResponse | Refusal | GaveUp = await retrying(attempt)
        return result

    async def _attempt(self, request: UpstreamRequest) -> UpstreamResponse | Refusal | _Retry:
        try:
            response = await self._upstream.send(request)
            if response.status < 400:
                return response
            body = await response.read(ERROR_BODY_BYTES)
        except UpstreamFailed as error:
            return _Retry(retry.Again(None, is_rate_limit=False), error.message)
        refusal = Refusal(status=response.status, headers=response.headers, body=body)
        verdict = retry.judge(response.status, CIMultiDict(response.headers), body, now=self._clock.now())
        match verdict:
            case retry.Again():
                return _Retry(verdict, f"The upstream answered {response.status}.", refusal)
            case retry.Final(is_fatal=is_fatal):
                return replace(refusal, is_fatal=is_fatal)


def _failed(state: tenacity.RetryCallState) -> _Retry:
    assert state.outcome is not None  # wait and stop are asked after an attempt
    result = state.outcome.result()
    assert isinstance(result, _Retry)
    return result
