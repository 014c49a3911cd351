"""Every error that the engine itself gives: why there is no answer, what that means for money, when to ask again.

It turns a refusal, spent attempts, a crash or a stop into the end of a flight, and refuses what replay, a shutdown or a
full disk keeps from being sent. What an upstream call fails with is named at its adapter.
"""

import logging
import re
from http import HTTPStatus
from urllib.parse import urlsplit

from kdproxy.core.models import HeaderPairs
from kdproxy.engine.fetch_request import GaveUp
from kdproxy.engine.flights import Flight, Head, Phase
from kdproxy.engine.lane import Refusal
from kdproxy.engine.lane_queue import LONGEST_ADVICE_SECONDS, Advice
from kdproxy.errors import KdproxyError, RequestRefused

log = logging.getLogger("kdproxy.engine")

CREDENTIAL_STATUSES = frozenset({401, 402, 403, 404})
"""What one credential gets and another may not: not known, not paid, not allowed, no such model for this account."""


# -- before a call: replay, a shutdown, a client that waits no longer ---------------------------------------------


def not_stored(question_key: str) -> KdproxyError:
    """Replay has no answer."""
    return RequestRefused(
        f"Nothing stored answers this request (key {question_key}).",
        hint="The mode is replay: the proxy makes no upstream call. Ask in mode cache to fetch the answer.",
        code="not_stored",
        http_status=504,
    )


def not_replayable() -> KdproxyError:
    """Replay cannot answer such a request."""
    return RequestRefused(
        "This request cannot be answered from the store.",
        hint="The mode is replay: nothing goes to the upstream. Use mode cache for such requests.",
        code="not_replayable",
        http_status=504,
    )


def draining() -> KdproxyError:
    """Refuse a new call: the proxy is shutting down."""
    return KdproxyError(
        "The proxy is shutting down and starts no new calls.",
        hint="Ask again once it is back; answers under way are finished and stored.",
        code="draining",
        http_status=503,
        retryable=True,
        retry_after_seconds=5.0,
    )


class ComeAgain(KdproxyError):
    """The client stops waiting; its request keeps its place in the queue for a while."""


def disk_refuses(trouble: str, hint: str) -> ComeAgain:
    """Answer a client that has waited as long as it can while the disk accepts no writes; the hint names the cause."""
    return ComeAgain(
        f"The request waits for the disk, which refuses to store answers. {trouble}",
        hint=f"{hint} Waiting requests then continue without a restart. "
        "Until then the proxy sends no new call, since an answer that it cannot store would be paid for twice.",
        code="disk_refuses",
        http_status=503,
        retryable=True,
        retry_after_seconds=5.0,
    )


def come_again(flight: Flight) -> ComeAgain:
    """Answer a client that has waited as long as it can before its request was sent."""
    advice = Advice(seconds=1.0, is_rate_limit=False, reason="its turn") if flight.advise is None else flight.advise()
    if flight.trouble is not None:
        return ComeAgain(
            f"The upstream has not answered this request yet. Last: {flight.trouble}",
            hint="Ask again: a retry joins the call in progress, or gets the answer that was stored meanwhile.",
            code="still_failing",
            http_status=503,
            retryable=True,
            retry_after_seconds=advice.seconds,
        )
    return ComeAgain(
        f"The request still waits for its turn at the upstream ({advice.reason}).",
        hint="Ask again: a retry joins the call in progress, or gets the answer that was stored meanwhile.",
        code="still_waiting",
        http_status=429 if advice.is_rate_limit else 503,
        retryable=True,
        retry_after_seconds=advice.seconds,
    )


# -- the end of a flight ------------------------------------------------------------------------------------------


class completing:  # noqa: N801  # a context manager of contextlib takes four calls more, for each miss
    """Complete a flight at the end of the block, whatever happens in it."""

    __slots__ = ("_flight",)

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Complete it; an error ends here, a cancellation does not."""
        flight = self._flight
        if isinstance(error, KdproxyError):
            flight.complete(error=error)
        elif isinstance(error, Exception):
            log.error("a flight crashed", exc_info=error)
            flight.complete(error=_crashed())
        elif flight.phase is not Phase.COMPLETE:
            # A cancelled flight: no client waits for it, or the server stops.
            flight.complete(error=_stopped())
        return isinstance(error, Exception)


def complete_refused(flight: Flight, result: Refusal | GaveUp) -> None:
    """Complete a flight with the provider's own error, and with advice for the client's own retries.

    Raises:
        KdproxyError: the provider sent no error of its own.
    """
    match result:
        case Refusal():
            flight.is_refused_credential = result.is_fatal or result.status in CREDENTIAL_STATUSES
            _hand_over(flight, result, _NO_RETRY if result.is_fatal else ())
        case GaveUp(last=None) if result.billed_calls:
            raise _budget_spent(result)
        case GaveUp(last=None):
            raise _out_of_attempts(result)
        case GaveUp(last=Refusal() as last) if result.billed_calls:
            log.warning("retry budget spent: the question is not sent again for now", extra=_fields(result))
            if last.status < HTTPStatus.BAD_REQUEST:
                flight.detail = "incomplete"
            _hand_over(flight, last, _NO_RETRY)
        case GaveUp(last=Refusal() as last):
            _hand_over(flight, last, _retry_after(result.wait_seconds))


def _hand_over(flight: Flight, refusal: Refusal, more: HeaderPairs) -> None:
    flight.phase = Phase.SENT
    names = {name.lower() for name, _ in more}
    headers = tuple((name, value) for name, value in refusal.headers if name.lower() not in names)
    flight.set_head(Head(status=refusal.status, headers=(*headers, *more), is_whole=True))
    flight.add(refusal.body)
    flight.complete()


def _retry_after(seconds: float) -> HeaderPairs:
    seconds = min(seconds, LONGEST_ADVICE_SECONDS)
    return (
        ("retry-after", str(max(1, round(seconds)))),
        ("retry-after-ms", str(max(1, round(seconds * 1000)))),
        ("x-should-retry", "true"),
    )


_NO_RETRY: HeaderPairs = (("x-should-retry", "false"),)


def _fields(result: GaveUp) -> dict[str, object]:
    return {
        "reason": result.reason,
        "maybe_billed_calls": result.billed_calls,
        "next_attempt_seconds": round(result.wait_seconds),
    }


def _budget_spent(result: GaveUp) -> KdproxyError:
    log.warning("retry budget spent: the question is not sent again for now", extra=_fields(result))
    calls = "1 call" if result.billed_calls == 1 else f"{result.billed_calls} calls"
    return KdproxyError(
        f"{result.reason} {calls} of this question returned no answer, and the provider may have billed each.",
        hint=f"If you ask again in {max(1, round(result.wait_seconds))} s or later, it is sent once more. "
        "Check the request; if calls to this upstream cost nothing, set billed = false for it.",
        code="retry_budget_spent",
        http_status=502,
    )


def _out_of_attempts(result: GaveUp) -> KdproxyError:
    return KdproxyError(
        f"The upstream did not answer in time. Last: {result.reason}",
        hint="Ask again: answers that arrive meanwhile are stored. If it happens again, check the upstream.",
        code="upstream_unavailable",
        http_status=429 if result.is_rate_limit else 503,
        retryable=True,
        retry_after_seconds=min(result.wait_seconds, LONGEST_ADVICE_SECONDS),
    )


def no_such_path(method: str, url: str, status: int, words: str) -> KdproxyError:
    """The upstream handles no such path: its base URL, or the client's, is mistyped."""
    bare = url.partition("?")[0]  # a query may hold a credential
    path = urlsplit(bare).path
    if _DOUBLED.search(path):
        advice = "It has the version twice: remove one from the client's base URL or from --upstream."
    elif not _VERSIONED.search(path):
        advice = "Most servers want /v1 in it: add it to --upstream."
    else:
        advice = "The part before the endpoint comes from --upstream: compare it with the provider's own examples."
    return KdproxyError(
        f"The upstream has no path {method} {bare}: it answered {status}, {words}.",
        hint=f"A call to a path that does not exist is not billed. {advice}",
        code="upstream_no_such_path",
        http_status=status,
    )


_VERSIONED = re.compile(r"/v\d+[a-z0-9]*(?:/|$)")
_DOUBLED = re.compile(r"/(v\d+[a-z0-9]*)/(?:\1)(?:/|$)")


def _crashed() -> KdproxyError:
    return KdproxyError(
        "The proxy failed on this request.", hint="This is a bug: its traceback is in the log.", code="internal_error"
    )


def _stopped() -> KdproxyError:
    return KdproxyError(
        "The call was stopped before its answer was complete.",
        hint="Ask again.",
        code="stopped",
        http_status=503,
        retryable=True,
        retry_after_seconds=1.0,
    )
