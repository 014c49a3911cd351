"""What the flow itself says where there is no answer to give: why, and when to come again."""

from kdproxy.engine.flights import Flight
from kdproxy.engine.lane_queue import Advice
from kdproxy.errors import KdproxyError, RequestRefused


def not_stored(question_key: str) -> KdproxyError:
    """Replay has no answer."""
    return RequestRefused(
        f"Nothing stored answers this request (key {question_key}).",
        hint="The mode is replay: nothing is bought. Ask in mode cache to buy it.",
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
    """It shuts down."""
    return KdproxyError(
        "The proxy is shutting down and starts no new calls.",
        hint="Ask again once it is back; answers under way are finished and stored.",
        code="draining",
        http_status=503,
        retryable=True,
        retry_after_seconds=5.0,
    )


class ComeAgain(KdproxyError):
    """The client waits no longer; its request goes on waiting for a while."""


def no_room(trouble: str, hint: str) -> ComeAgain:
    """The disk refuses, and the client waits no longer; the hint goes with the cause."""
    return ComeAgain(
        f"The request waits for the disk, which refuses to store answers. {trouble}",
        hint=f"{hint} What waits then continues by itself. "
        "Nothing new is bought till then, since it would have to be paid for again.",
        code="disk_refuses",
        http_status=503,
        retryable=True,
        retry_after_seconds=5.0,
    )


def come_again(flight: Flight) -> ComeAgain:
    """It was not its turn, and the client waits no longer."""
    advice = Advice(seconds=1.0, is_rate_limit=False, reason="its turn") if flight.advise is None else flight.advise()
    if flight.trouble is not None:
        return ComeAgain(
            f"The upstream has not answered this request yet. Last: {flight.trouble}",
            hint="Ask again: a retry joins what is under way or gets what was stored meanwhile.",
            code="still_failing",
            http_status=503,
            retryable=True,
            retry_after_seconds=advice.seconds,
        )
    return ComeAgain(
        f"The request still waits for its turn at the upstream ({advice.reason}).",
        hint="Ask again: a retry joins what is under way or gets what was stored meanwhile.",
        code="still_waiting",
        http_status=429 if advice.is_rate_limit else 503,
        retryable=True,
        retry_after_seconds=advice.seconds,
    )
