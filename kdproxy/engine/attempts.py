"""The attempts at one answer: wait for a permit, send, judge, and again until there is an answer or no retry is left.

What a failed attempt means for the next one is said in core/attempt_outcome.py: unsent and refused attempts are bounded
by time, those that may have been billed by a budget that belongs to the question and outlives this loop.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

from multidict import CIMultiDict

from kdproxy.core import limits, retry
from kdproxy.core.attempt_outcome import Bound, FailureClass, bound_of
from kdproxy.core.ports import UpstreamResponse
from kdproxy.core.retry_history import BUDGET, Failures
from kdproxy.engine.call_record import CallRecord
from kdproxy.engine.early_error import Beginning, BufferedResponse, read_beginning
from kdproxy.engine.fetch_request import FetchedResponse, FetchRequest, GaveUp, LastError
from kdproxy.engine.flights import Flight, Phase
from kdproxy.engine.lane import Refusal
from kdproxy.engine.lane_queue import LaneQueue, LaneQueueClosed, UpstreamDown
from kdproxy.engine.ledger import CallOutcome, outcome_of
from kdproxy.engine.permit import Permit
from kdproxy.engine.retry_policy import FailedAttempt, RetryPolicy, as_fatal
from kdproxy.engine.verdict import unbroken, verdict_on
from kdproxy.errors import CallNotRecorded, KdproxyError, UpstreamFailed

if TYPE_CHECKING:
    from kdproxy.engine.fetch import Fetcher

BAD_GATEWAY = 502
"""RFC 9110 section 15.6.3: what came from the upstream is no answer."""
SUSPECT_FROM = 4
"""Failures of one question, with no other one to compare it with, before a probe tests whether the upstream is up."""


@dataclass(slots=True)
class Attempts:
    """The attempts at one answer."""

    fetcher: "Fetcher"
    fetch_request: FetchRequest
    flight: Flight
    queue: LaneQueue
    failing_since: float = 0.0
    """When the first attempt failed; time in the queue does not count."""
    failures: int = 0
    refusals: int = 0
    """Those of the failures that may be the question's own fault."""
    sends_back: bool = False
    """Whether the next attempt keeps its place at the head of the queue."""
    is_shared: bool = True
    """Whether others may ask the same question."""

    def __post_init__(self) -> None:
        if self.fetch_request.question is None:
            self.is_shared = False
            self.fetch_request = self.fetch_request._replace(question=object())

    async def run(self) -> FetchedResponse | Refusal | GaveUp:
        failures = self.question_failures()
        if failures is not None and failures.ready_at > self.now():
            return self.spent(failures)
        first = await self._attempt()
        if not isinstance(first, FailedAttempt):
            return first  # most calls end here, and setting up tenacity costs a third of a miss

        made = [first]

        async def attempt() -> FetchedResponse | Refusal | GaveUp | FailedAttempt:
            return made.pop() if made else await self._attempt()

        return await RetryPolicy(self).run(attempt, self._sleep)

    def now(self) -> float:
        """Return monotonic seconds."""
        return self.fetcher.clock.monotonic()

    def question_failures(self) -> Failures[LastError] | None:
        """Return what earlier calls of the question may have cost; None: nothing."""
        history = self.fetcher.history
        if not len(history):
            return None
        failures = history.of(self.fetch_request.question, self.now())
        if failures is not None and not self.fetcher.costs(self.queue):
            history.clear(self.fetch_request.question)  # recognised meanwhile, or configured so
            return None
        return failures

    def is_spent(self) -> bool:
        """Whether the question's budget of calls that may have been billed is used up."""
        failures = self.question_failures()
        return failures is not None and failures.calls >= BUDGET

    async def _sleep(self, seconds: float) -> None:
        # Without waiters this cancels the flight's task, which takes effect at its next await: at the sleep, even one
        # of 0 s. Else the flight would take the next free lane and pay for an answer without a client.
        self.flight.phase = Phase.WAITING
        await self.fetcher.clock.sleep(seconds)

    def _down(self) -> GaveUp:
        reason = self.queue.health.last_reason or "the upstream fails every call"
        seconds = self.queue.advise(None).seconds
        return GaveUp(wait_seconds=seconds, is_rate_limit=False, reason=reason, last=None)

    def spent(self, failures: Failures[LastError], refusal: Refusal | None = None) -> GaveUp:
        """Give up, since the budget is used up for now."""
        return GaveUp(
            wait_seconds=max(0.0, failures.ready_at - self.now()),
            is_rate_limit=False,
            reason=failures.last_error.reason,
            last=refusal or failures.last_error.refusal,
            billed_calls=failures.calls,
        )

    # -- one attempt ------------------------------------------------------------------------------------------

    async def _attempt(self) -> FetchedResponse | Refusal | GaveUp | FailedAttempt:
        flight = self.flight
        flight.phase = Phase.WAITING
        fetch_request = self.fetch_request
        waiter = self.queue.join(
            fetch_request.cost,
            run=fetch_request.run,
            at_front=self.sends_back,
            question=fetch_request.question,
            deadline_seconds=fetch_request.deadline_seconds,
        )
        flight.advise = lambda: self.queue.advise(waiter)
        try:
            permit = await self.queue.turn(waiter)
        except LaneQueueClosed as closed:
            return closed.refusal
        except UpstreamDown:
            return self._down()
        calls, failures = self.fetcher.calls, self.question_failures()
        if failures is not None and not failures.may_send(
            self.now(), under_way=calls.under_way(fetch_request.question)
        ):
            return await self._stand_back(permit)
        calls.began(fetch_request.question)
        result = None
        try:
            result = await self._call(permit)
        finally:
            if not isinstance(result, FetchedResponse) or not self.is_shared:
                calls.ended(fetch_request.question)
        return result

    async def _call(self, permit: Permit) -> FetchedResponse | Refusal | FailedAttempt:
        flight = self.flight
        flight.phase = Phase.SENT
        flight.attempts += 1
        self.sends_back = True
        task = asyncio.current_task()
        permit.may_be_taken_back(task)
        call = self.fetcher.call(self.fetch_request, permit, flight)
        try:
            result, outcome = await self._send(permit, call)
            if isinstance(result, FailedAttempt) and result.bound is Bound.BUDGET and self.is_spent():
                # Before it is given up: a server of one's own costs nothing, and says so if it is asked.
                await self.fetcher.billing.find_out(self.queue.health.upstream)
                if not self.fetcher.costs(self.queue):
                    result = replace(result, bound=Bound.COUNT_WHILE_OTHERS_SUCCEED)
        except CallNotRecorded:
            self._end(call, None)
            await self.fetcher.wait_for_disk(permit, flight)
            return FailedAttempt("the disk refused the call's record", is_held=True)
        except KdproxyError as error:
            permit.aborted()
            self._end(call, outcome_of(error) if isinstance(error, UpstreamFailed) else None, error.message)
            if isinstance(error, UpstreamFailed) and error.maybe_billed:
                self.fetcher.add_failure(self.fetch_request, self.queue, LastError(error.message, None))
            raise
        except BaseException as error:
            # A cancelled call closes its connection; the lane must not wait for it.
            self._end(call, CallOutcome.ABANDONED)
            if isinstance(error, asyncio.CancelledError) and permit.is_taken_back and task and not task.uncancel():
                flight.attempts -= 1
                permit.not_sent()
                return FailedAttempt("taken back: the server has too many", is_held=True)
            permit.aborted()
            raise
        if not isinstance(result, FetchedResponse):
            self._end(call, outcome, result.reason if isinstance(result, FailedAttempt) else None)
        return result

    def _end(self, call: CallRecord, outcome: CallOutcome | None, reason: str | None = None) -> None:
        self.fetcher.call_ended(call, self.queue, self.flight, outcome, reason)

    async def _stand_back(self, permit: Permit) -> GaveUp | FailedAttempt:
        """Calls of the same question, in another form, are under way that may use its budget up: wait for one's end."""
        permit.not_sent()
        failures = self.question_failures()
        if failures is not None and failures.ready_at > self.now():
            return self.spent(failures)
        await self.fetcher.calls.wait(self.fetch_request.question)
        return FailedAttempt("another call of the same question is under way", is_held=True)

    async def _send(
        self, permit: Permit, call: CallRecord
    ) -> tuple[FetchedResponse | Refusal | FailedAttempt, CallOutcome | None]:
        rules = self.fetch_request.rules
        beginning: Beginning | None = None
        try:
            request = call.recorded(self.fetch_request.request(permit.lane.key_index))
            response = await self.fetcher.upstream.send(request)
            call.heard(response.status, response.headers)
            if response.status < 400:
                beginning = unbroken(await read_beginning(response, whole_bytes=self.fetch_request.whole_bytes))
                response = beginning.response
                verdict, judgement = await verdict_on(beginning, self.fetch_request, self.fetcher.clock.now())
                if not isinstance(verdict, retry.Again | retry.Park):
                    permit.started(self._readings(response), is_retry=self.failures > 0)
                    return FetchedResponse(response, permit, call, beginning.kind, judgement), None
                assert isinstance(response, BufferedResponse)  # an error has been seen in it
                body = response.drop()
            else:
                body = await self.fetcher.read_error(response)
            call.said(body)
        except UpstreamFailed as error:
            if not error.retryable:
                raise
            failure = FailureClass.MAYBE_BILLED if error.maybe_billed else FailureClass.UNSENT
            verdict = retry.Again(reason=error.message, failure=failure)
            is_late = error.code.endswith("_timeout")
            return self._transient(permit, verdict, is_late=is_late), outcome_of(error)
        readings = self._readings(response)
        if response.status >= 400:
            headers = CIMultiDict(response.headers)
            verdict = retry.judge(response.status, headers, body, rules, readings, now=self.fetcher.clock.now())
        refusal = Refusal(status=_status_of(response, beginning), headers=response.headers, body=body)
        is_billed = isinstance(verdict, retry.Again) and verdict.failure is FailureClass.MAYBE_BILLED
        outcome = CallOutcome.MAYBE_BILLED if is_billed else CallOutcome.REFUSED
        return self._act(verdict, permit, refusal, readings), outcome

    def _act(
        self, verdict: retry.Verdict, permit: Permit, refusal: Refusal, readings: tuple[limits.Reading, ...]
    ) -> Refusal | FailedAttempt:
        match verdict:
            case retry.Again(is_rate_limit=True):
                permit.rate_limited(readings, verdict.floor_seconds)
                return FailedAttempt(verdict.reason, refusal, is_held=True)
            case retry.Again():
                return self._transient(permit, verdict, refusal, readings)
            case retry.Park():
                fatal = as_fatal(refusal)
                permit.lane_stopped(verdict, fatal)
                if self.queue.is_closed:
                    return fatal
                # Back into the queue: another lane takes it, or it is held until the quota is back.
                return FailedAttempt(verdict.reason, fatal, is_held=True)
            case retry.GiveUp(is_credential=True) if len(self.queue.lanes) > 1:
                permit.credential_rejected(refusal)
                return FailedAttempt(verdict.reason, refusal, is_held=True)
            case retry.GiveUp() | retry.Done():
                permit.rejected(readings)
                return refusal
        assert_never(verdict)

    def _transient(
        self,
        permit: Permit,
        verdict: retry.Again,
        refusal: Refusal | None = None,
        readings: tuple[limits.Reading, ...] = (),
        *,
        is_late: bool = False,
    ) -> FailedAttempt:
        bound = bound_of(
            verdict.failure,
            is_overload=verdict.is_overload,
            is_page=verdict.is_page,
            is_billed=verdict.failure is not FailureClass.MAYBE_BILLED
            or self.fetcher.add_failure(self.fetch_request, self.queue, LastError(verdict.reason, refusal)) is not None,
        )
        if not self.failures:
            self.failing_since = self.now()
        self.failures += 1
        self.flight.trouble = verdict.reason
        self.refusals += bound is Bound.COUNT_WHILE_OTHERS_SUCCEED
        if bound is Bound.FEW or verdict.is_complete:
            permit.rejected(readings)
        else:
            # Too many at once may be the cause.
            is_overload = verdict.reason == "overloaded" or is_late or verdict.failure is FailureClass.UNSENT
            permit.upstream_failed(verdict.reason, readings, is_overload=is_overload)
            self._suspect(verdict, bound)
        # Its first failure keeps its place; from then on the others go first.
        self.sends_back = self.failures == 1 and not self.queue.health.is_open
        return FailedAttempt(
            verdict.reason, refusal, verdict.floor_seconds, is_held=self.queue.health.is_open, bound=bound
        )

    def _suspect(self, verdict: retry.Again, bound: Bound) -> None:
        """Start a probe where one question keeps failing: is the upstream down, or is it this question alone?

        Not where a budget ends the attempts soon, nor where nothing was sent: a probe would be one more such attempt.
        """
        health = self.queue.health
        if health.probe is None:
            health.probe = self.fetcher.prober.start
        is_alone = health.succeeded_at < self.failing_since
        if (
            self.failures >= SUSPECT_FROM
            and is_alone
            and bound is not Bound.BUDGET
            and verdict.failure is not FailureClass.UNSENT
        ):
            health.suspect(verdict.reason)

    def _readings(self, response: UpstreamResponse) -> tuple[limits.Reading, ...]:
        rules = self.fetch_request.rules
        if rules.limit_names.isdisjoint([name.lower() for name, _ in response.headers]):
            return ()
        return limits.read(CIMultiDict(response.headers), rules.limits, now=self.fetcher.clock.now())


def _status_of(response: UpstreamResponse, beginning: Beginning | None) -> int:
    """Return the status under which an answer's bytes may be handed on: what is no answer never goes out as one."""
    return BAD_GATEWAY if beginning is not None and beginning.fault else response.status
