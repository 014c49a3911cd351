"""Fetches one answer with all its attempts, and keeps each question's retry budget. The loop is engine/attempts.py."""

import random
from collections.abc import Callable, Mapping

from kdproxy.core.call_event import Sent
from kdproxy.core.call_state import KILLED, FailedQuestion
from kdproxy.core.limits import Cost
from kdproxy.core.missing_path import missing_path
from kdproxy.core.models import Address
from kdproxy.core.ports import CallLog, Clock, UpstreamClient, UpstreamResponse
from kdproxy.core.retry_history import Failures, RetryHistory
from kdproxy.engine.attempts import Attempts
from kdproxy.engine.call_record import CallRecord, NoCalls
from kdproxy.engine.errors import no_such_path
from kdproxy.engine.fetch_request import (
    Billing,
    EachBilled,
    FetchedResponse,
    FetchRequest,
    GaveUp,
    LastError,
    RetrySettings,
)
from kdproxy.engine.flights import Flight, Phase
from kdproxy.engine.lane import Refusal
from kdproxy.engine.lane_queue import LaneQueue
from kdproxy.engine.ledger import CallOutcome, Ledger
from kdproxy.engine.permit import Permit
from kdproxy.engine.probe import Prober
from kdproxy.engine.question_calls import QuestionCalls
from kdproxy.errors import KdproxyError, UpstreamFailed
from kdproxy.providers.base import Broken

ERROR_BODY_BYTES = 64 << 20
"""Some errors quote the request (FastAPI's 422, vLLM's 400), which may be as large as this."""
KEPT_BODY_BYTES = 64 << 10
"""A longer last error is not kept for later requests of the same question."""


class Fetcher:
    """Fetches one answer with all its attempts."""

    def __init__(
        self,
        upstream: UpstreamClient,
        clock: Clock,
        settings: RetrySettings,
        jitter: Callable[[], float] = random.random,
        *,
        ledger: Ledger | None = None,
        billing: Billing | None = None,
        call_log: CallLog | None = None,
    ) -> None:
        self.upstream = upstream
        self.clock = clock
        self.settings = settings
        self.jitter = jitter
        self.ledger = ledger or Ledger()
        self.billing = billing or EachBilled()
        self.call_log = call_log or NoCalls()
        self.history: RetryHistory[LastError] = RetryHistory()
        self.calls = QuestionCalls()
        self.prober = Prober(upstream, self.ledger)

    async def fetch(
        self, fetch_request: FetchRequest, flight: Flight, queue: LaneQueue
    ) -> FetchedResponse | Refusal | GaveUp:
        """Return a 2xx or 3xx answer's head, or what to say instead.

        A cancelled fetch was not sent, or its connection is closed. Where there is no answer, the record of the calls
        is durable on return.

        Raises:
            KdproxyError: the upstream has no such path, or its answer cannot be read; nothing else is tried.
        """
        await self.call_log.ready()
        try:
            result = await Attempts(self, fetch_request, flight, queue).run()
        except KdproxyError:
            await self.call_log.settle()
            raise
        if not isinstance(result, FetchedResponse):
            await self.call_log.settle()
        if isinstance(result, Refusal) and (explanation := missing_path(result.status, result.body)) is not None:
            request = fetch_request.request(0)
            raise no_such_path(request.method, request.url, result.status, explanation)
        return result

    async def read_error(self, response: UpstreamResponse) -> bytes:
        """Return an error's body. Raises UpstreamFailed: it is cut or has no end."""
        return await response.read(ERROR_BODY_BYTES)

    def call(self, fetch_request: FetchRequest, permit: Permit, flight: Flight) -> CallRecord:
        """Begin the record of a call."""
        queue = permit.queue
        sent = Sent(
            upstream=queue.health.upstream.name,
            sent_at=0.0,  # not yet
            question=fetch_request.question if isinstance(fetch_request.question, Address) else None,
            model=queue.model,
            credential=permit.lane.identity[1],
            run=fetch_request.run,
            attempt=flight.attempts,
            is_free=not self.costs(queue),
            is_detached=not flight.waiters,
        )
        return CallRecord(self.call_log, self.ledger, self.clock, sent)

    def call_ended(
        self, call: CallRecord, queue: LaneQueue, flight: Flight, outcome: CallOutcome | None, reason: str | None = None
    ) -> None:
        """Record the end of a call that brought no answer. `outcome` None: it reached no server."""
        call.end(outcome, is_billed=self.costs(queue), is_detached=not flight.waiters, reason=reason)

    async def wait_for_disk(self, permit: Permit, flight: Flight) -> None:
        """Wait after a call that was not sent because it could not be recorded; then it joins the queue again."""
        permit.not_sent()
        flight.attempts -= 1
        flight.phase = Phase.WAITING
        flight.waits_for_disk = True
        await self.call_log.wait_writable()
        flight.waits_for_disk = False

    def completed(self, fetch_request: FetchRequest, delivery: FetchedResponse, used: Cost | None = None) -> None:
        """End: the answer was read to its end. `used` is what it took."""
        delivery.permit.completed(used)
        if not delivery.call.is_over:
            delivery.call.end(CallOutcome.ANSWERED, is_billed=self.costs(delivery.permit.queue))
        self.history.clear(fetch_request.question)
        self.calls.ended(fetch_request.question)

    async def aborted(self, fetch_request: FetchRequest, delivery: FetchedResponse, error: BaseException) -> None:
        """End: the answer was cut, or not read to its end."""
        delivery.permit.aborted()
        queue = delivery.permit.queue
        is_cut = isinstance(error, UpstreamFailed)
        outcome = CallOutcome.MAYBE_BILLED if is_cut else CallOutcome.ABANDONED
        reason = error.message if isinstance(error, KdproxyError) else None
        delivery.call.end(outcome, is_billed=self.costs(queue), reason=reason)
        if isinstance(error, UpstreamFailed):
            self.add_failure(fetch_request, queue, LastError(error.message, None))
        self.calls.ended(fetch_request.question)
        if isinstance(error, KdproxyError):
            await self.call_log.settle()

    def incomplete(
        self, fetch_request: FetchRequest, delivery: FetchedResponse, broken: Broken, used: Cost | None = None
    ) -> None:
        """End: the answer was read to its end and is not whole. It is too late for a retry, but it counts."""
        delivery.permit.completed(used)
        queue, reason = delivery.permit.queue, f"The upstream sent an answer that is not whole: {broken.reason}."
        delivery.call.end(CallOutcome.MAYBE_BILLED, is_billed=self.costs(queue), reason=reason)
        self.add_failure(fetch_request, queue, LastError(reason, None))
        self.calls.ended(fetch_request.question)

    def unstored(
        self, fetch_request: FetchRequest, delivery: FetchedResponse, reason: str, given: Refusal, used: Cost | None
    ) -> None:
        """End: the answer was delivered and cannot be stored, so the next request would buy it again.

        It counts like a failed one if the same bytes can be given again when the budget is used up.
        """
        queue, question = delivery.permit.queue, fetch_request.question
        if len(given.body) > KEPT_BODY_BYTES:
            self.completed(fetch_request, delivery, used)
            return
        delivery.permit.completed(used)
        delivery.call.end(CallOutcome.ANSWERED, is_billed=self.costs(queue))
        self.add_failure(fetch_request, queue, LastError(f"The answer cannot be stored: {reason}.", given))
        self.calls.ended(question)

    def add_failure(
        self, fetch_request: FetchRequest, queue: LaneQueue, last_error: LastError
    ) -> Failures[LastError] | None:
        """Count a call that may have been billed; None: calls to this upstream cost nothing."""
        if not self.costs(queue):
            return None
        if last_error.refusal is not None and len(last_error.refusal.body) > KEPT_BODY_BYTES:
            last_error = LastError(last_error.reason, None)
        return self.history.add_failure(fetch_request.question, last_error, self.clock.monotonic())

    def restore(self, failed_questions: Mapping[Address, FailedQuestion]) -> None:
        """Restore the failures that earlier processes counted: a restart resets no retry budget."""
        now, monotonic = self.clock.now(), self.clock.monotonic()
        for question, found in failed_questions.items():
            age = max(0.0, now - found.failed_at)  # a clock that went back makes nothing younger than now
            last_error = LastError(found.reason or KILLED, None)
            self.history.restore(question, calls=found.calls, failed_at=monotonic - age, last_error=last_error)

    def costs(self, queue: LaneQueue) -> bool:
        """Whether a call costs money, as far as is known."""
        return self.billing.is_billed(queue.health.upstream, queue.model)

    async def close(self) -> None:
        """Stop the probes."""
        await self.prober.close()
