"""Buys one answer, as often as it takes, and remembers what a question owes. The loop is engine/attempts.py."""

import random
from collections.abc import Callable

from kdproxy.core.limits import Cost
from kdproxy.core.missing_path import missing_path
from kdproxy.core.ports import Clock, UpstreamClient, UpstreamResponse
from kdproxy.core.retry_history import Debt, RetryHistory
from kdproxy.engine.attempts import Attempts
from kdproxy.engine.errand import Billing, Delivery, EachBilled, Errand, GaveUp, LastWords, RetrySettings
from kdproxy.engine.flights import Flight
from kdproxy.engine.lane import Refusal
from kdproxy.engine.ledger import CallOutcome, Ledger
from kdproxy.engine.probe import Prober
from kdproxy.engine.question_calls import QuestionCalls
from kdproxy.engine.refused import no_such_path
from kdproxy.engine.road import Road
from kdproxy.errors import UpstreamFailed
from kdproxy.providers.base import Broken

ERROR_BODY_BYTES = 64 << 20
"""Some errors quote the request (FastAPI's 422, vLLM's 400), which may be as large as this."""
REMEMBERED_BODY_BYTES = 64 << 10
"""Of the last words that are kept for who asks the same question later."""


class Fetcher:
    """Buys one answer, as often as it takes."""

    def __init__(
        self,
        upstream: UpstreamClient,
        clock: Clock,
        settings: RetrySettings,
        jitter: Callable[[], float] = random.random,
        *,
        ledger: Ledger | None = None,
        billing: Billing | None = None,
    ) -> None:
        self.upstream = upstream
        self.clock = clock
        self.settings = settings
        self.jitter = jitter
        self.ledger = ledger or Ledger()
        self.billing = billing or EachBilled()
        self.history: RetryHistory[LastWords] = RetryHistory()
        self.calls = QuestionCalls()
        self.prober = Prober(upstream, self.ledger)

    async def fetch(self, errand: Errand, flight: Flight, road: Road) -> Delivery | Refusal | GaveUp:
        """Return a 2xx or 3xx answer's head, or what to say instead.

        A cancelled fetch was not sent, or its connection is closed.

        Raises:
            KdproxyError: the upstream has no such path, or its answer cannot be read; nothing else is tried.
        """
        result = await Attempts(self, errand, flight, road).run()
        if isinstance(result, Refusal) and (words := missing_path(result.status, result.body)) is not None:
            request = errand.request(0)
            raise no_such_path(request.method, request.url, result.status, words)
        return result

    async def read_error(self, response: UpstreamResponse) -> bytes:
        """Return an error's body. Raises UpstreamFailed: it is cut or has no end."""
        return await response.read(ERROR_BODY_BYTES)

    def arrived(self, errand: Errand, delivery: Delivery, used: Cost | None = None) -> None:
        """The answer came to its end. `used` is what it took in truth."""
        delivery.permit.done(used)
        self.ledger.call_ended(CallOutcome.ANSWERED)
        self.history.succeeded(errand.question)
        self.calls.ended(errand.question)

    def lost(self, errand: Errand, delivery: Delivery, error: BaseException) -> None:
        """The answer broke off, or nobody read it to its end."""
        delivery.permit.broken()
        is_cut = isinstance(error, UpstreamFailed)
        self.ledger.call_ended(CallOutcome.MAYBE_BILLED if is_cut else CallOutcome.ABANDONED)
        if isinstance(error, UpstreamFailed):
            self.remember(errand, delivery.permit.road, LastWords(error.message, None))
        self.calls.ended(errand.question)

    def fell_short(self, errand: Errand, delivery: Delivery, broken: Broken, used: Cost | None = None) -> None:
        """The answer came to its end and is not whole: too late to ask again here, but it counts."""
        delivery.permit.done(used)
        self.ledger.call_ended(CallOutcome.MAYBE_BILLED)
        reason = f"The upstream sent an answer that is not whole: {broken.reason}."
        self.remember(errand, delivery.permit.road, LastWords(reason, None))
        self.calls.ended(errand.question)

    def remember(self, errand: Errand, road: Road, words: LastWords) -> Debt[LastWords] | None:
        """Count a call that may have been billed; None: this upstream's cost nothing, or nobody asks so again."""
        if not self.costs(road):
            return None
        if words.refusal is not None and len(words.refusal.body) > REMEMBERED_BODY_BYTES:
            words = LastWords(words.reason, None)
        return self.history.failed(errand.question, words, self.clock.monotonic())

    def costs(self, road: Road) -> bool:
        """Whether a call costs money, as far as is known."""
        return self.billing.is_billed(road.gate.upstream, road.model)

    async def close(self) -> None:
        """Stop looking."""
        await self.prober.close()
