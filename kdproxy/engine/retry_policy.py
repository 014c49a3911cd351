"""How long to wait after a failed attempt, when to stop, and what to say then. Made once an attempt has failed.

tenacity asks. Most calls never fail, and setting it up for each would cost 150 us, a third of a miss.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tenacity

from kdproxy.core import retry
from kdproxy.core.attempt_outcome import Bound
from kdproxy.core.retry_history import BUDGET
from kdproxy.engine.fetch_request import FetchedResponse, GaveUp
from kdproxy.engine.lane import Refusal
from kdproxy.engine.lane_queue import LONGEST_ADVICE_SECONDS

if TYPE_CHECKING:
    from kdproxy.engine.attempts import Attempts

ATTEMPTS_WHILE_OTHERS_SUCCEED = 6
"""For a question that fails while others succeed."""
PAGE_ATTEMPTS = 3
"""For a question that only the HTML page of a middlebox answers."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt failed in a way that another one may not."""

    reason: str
    refusal: Refusal | None = None
    floor_seconds: float | None = None
    is_held: bool = False
    """Whether the lane or the circuit breaker does the waiting: the next attempt joins the queue at once."""
    bound: Bound | None = None
    """What ends the attempts; None: the client's timeout alone."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Answers what tenacity asks."""

    attempts: "Attempts"

    async def run(
        self,
        attempt: Callable[[], Awaitable[FetchedResponse | Refusal | GaveUp | FailedAttempt]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> FetchedResponse | Refusal | GaveUp:
        """Attempt until there is an answer, or no attempt is left."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda result: isinstance(result, FailedAttempt)),
            wait=self.wait,
            stop=self.is_enough,
            sleep=sleep,
            retry_error_callback=self.give_up,
        )
        result: FetchedResponse | Refusal | GaveUp = await retrying(attempt)
        return result

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds before the next attempt."""
        attempts, failed = self.attempts, _failed(state)
        if failed.is_held:
            return 0.0
        jitter = attempts.fetcher.jitter()
        if failed.bound is Bound.BUDGET:
            return (failed.floor_seconds or 0.0) + retry.billed_backoff_seconds(attempts.failures, jitter=jitter)
        return retry.wait_seconds(
            retry.Again(floor_seconds=failed.floor_seconds), max(attempts.failures, 1), jitter=jitter
        )

    def is_enough(self, state: tenacity.RetryCallState) -> bool:
        """Whether no attempt is left."""
        attempts, failed = self.attempts, _failed(state)
        settings = attempts.fetcher.settings
        if failed.bound is None:
            return False
        if settings.max_attempts is not None and attempts.failures >= settings.max_attempts:
            return True
        match failed.bound:
            case Bound.BUDGET:
                if attempts.is_spent():
                    return True
            case Bound.FEW:
                return attempts.failures >= PAGE_ATTEMPTS
            case Bound.COUNT_WHILE_OTHERS_SUCCEED:
                others_succeed = attempts.queue.health.succeeded_at >= attempts.failing_since
                if attempts.refusals >= ATTEMPTS_WHILE_OTHERS_SUCCEED and others_succeed:
                    return True
            case Bound.TIME:
                if settings.fails_fast:
                    return True
        return attempts.now() - attempts.failing_since + state.upcoming_sleep > settings.total_seconds

    def give_up(self, state: tenacity.RetryCallState) -> Refusal | GaveUp:
        """Return what the client gets when no attempt is left."""
        attempts, failed = self.attempts, _failed(state)
        failures = attempts.question_failures() if failed.bound is Bound.BUDGET else None
        if failures is not None and failures.calls >= BUDGET:
            return attempts.spent(failures, failed.refusal)
        if failed.bound is Bound.FEW and failed.refusal is not None:
            return as_fatal(failed.refusal)
        advice = attempts.queue.advise(None)
        wait = max(state.upcoming_sleep, advice.seconds if attempts.queue.health.is_open else 0.0)
        return GaveUp(
            wait_seconds=min(wait, LONGEST_ADVICE_SECONDS),
            is_rate_limit=False,
            reason=failed.reason,
            last=failed.refusal,
        )


def as_fatal(refusal: Refusal) -> Refusal:
    """Return a refusal that no retry changes."""
    return Refusal(status=refusal.status, headers=refusal.headers, body=refusal.body, is_fatal=True)


def _failed(state: tenacity.RetryCallState) -> FailedAttempt:
    assert state.outcome is not None  # wait and stop are asked after an attempt
    result = state.outcome.result()
    assert isinstance(result, FailedAttempt)
    return result
