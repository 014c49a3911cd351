"""What a failed attempt may have cost, and therefore whether to retry. Pure. docs/retries.md is the user's page.

There are three classes. *Unsent*: no byte of the request reached the server (DNS, connection refused, TLS). *Refused*:
the server answered in full that it did not process the request. *Maybe billed*: everything else, since the model may
have run: a timeout, a connection that broke after the request was sent, an answer that is cut or invalid, and a
gateway's statuses for these (502, 504 and their family). An unknown case counts as maybe billed.

Unsent and refused attempts cost nothing, so they are bounded by time and by the client's timeout. Maybe-billed
attempts are bounded by a count, which core/retry_history.py keeps.
"""

from enum import Enum, StrEnum, auto


class FailureClass(StrEnum):
    """How a call failed; the closed set that the ledger uses."""

    UNSENT = "unsent"
    REFUSED = "refused"
    MAYBE_BILLED = "maybe_billed"


class Bound(Enum):
    """What bounds the attempts at a question."""

    TIME = auto()
    """Time only: the upstream's state is the cause, or nothing was sent."""
    COUNT_WHILE_OTHERS_SUCCEED = auto()
    """Also a count while other questions succeed: the failure may then be this question's fault."""
    FEW = auto()
    """A small count, regardless of other questions: waiting seldom changes such an answer."""
    BUDGET = auto()
    """The question's budget of calls that may have been billed."""


OVERLOADED = frozenset({408, 409, 425, 429, 498, 503, 521, 522, 523, 525, 526, 529, 530})
"""The server is down or full, whatever the request: 498 is Groq's capacity, 529 Anthropic's overload, 425 RFC 8470.
521 to 523, 525, 526 and 530 are Cloudflare's for an origin that it could not connect to, so nothing reached the origin
(developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors, read 2026-11-30)."""

MAYBE_BILLED = frozenset({499, 502, 504, 520, 524, 527, 598, 599})
"""A gateway forwarded the request and got no answer: the model may have run. 499 is nginx's status for a client that
closed the connection; some proxies use 598 and 599 for read and connect timeouts."""

NEVER_RETRIED = frozenset({501, 505, 506, 508, 510, 511})
"""5xx statuses for a request that will never be answered (RFC 9110 sections 15.6.2 and 15.6.6; RFC 2295; RFC 5842: a
loop; RFC 2774; RFC 6585: a network needs a login)."""


def is_retried(status: int) -> bool:
    """Whether to retry an error with this status if the provider's table has no row for it."""
    return status in OVERLOADED or status in MAYBE_BILLED or (status >= 500 and status not in NEVER_RETRIED)


def class_of_status(status: int) -> FailureClass:
    """Classify a complete error answer; below 400, an answer that is not valid."""
    return FailureClass.MAYBE_BILLED if status < 400 or status in MAYBE_BILLED else FailureClass.REFUSED


def bound_of(failure: FailureClass, *, is_overload: bool, is_page: bool, is_billed: bool) -> Bound:
    """Return what bounds the attempts.

    Args:
        is_overload: the answer blames the upstream's state.
        is_page: it is an HTML page with a status that is otherwise final, so a middlebox sent it.
        is_billed: calls to this upstream cost money.
    """
    if failure is FailureClass.UNSENT:
        return Bound.TIME
    if failure is FailureClass.MAYBE_BILLED:
        return Bound.BUDGET if is_billed else Bound.COUNT_WHILE_OTHERS_SUCCEED
    if is_page:
        return Bound.FEW
    return Bound.TIME if is_overload else Bound.COUNT_WHILE_OTHERS_SUCCEED
