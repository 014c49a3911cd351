"""What a failed attempt means for money, and so for the next one. Pure. docs/retries.md is the user's page.

Three classes. *Unsent*: no byte of the request reached the server (DNS, connection refused, TLS). *Refused*: the
server took it and said in full that it did not do it. *Maybe billed*: all else, since the model may have run: no answer
in time, a connection that broke after the request was out, an answer that is cut or is none, and the statuses by which
a gateway says so (502, 504 and their family). What nobody knows is maybe billed.

Unsent and refused attempts cost nothing, so they are bounded by time and by the client's patience. Maybe-billed ones
are bounded by a count, which core/retry_history.py keeps.
"""

from enum import Enum, StrEnum, auto


class FailureClass(StrEnum):
    """What became of a call that failed; the closed set that the ledger uses."""

    UNSENT = "unsent"
    REFUSED = "refused"
    MAYBE_BILLED = "maybe_billed"


class Bound(Enum):
    """What ends the attempts at a question."""

    TIME = auto()
    """Time alone: the upstream's state is to blame, or nothing was sent."""
    COUNT_WHILE_OTHERS_SUCCEED = auto()
    """A count too, while other questions succeed: then it may be this question's fault."""
    FEW = auto()
    """A small count, whatever others do: an answer that waiting seldom changes."""
    BUDGET = auto()
    """The question's budget of calls that may have been billed."""


OVERLOADED = frozenset({408, 409, 425, 429, 498, 503, 521, 522, 523, 525, 526, 529, 530})
"""The server is not there or full, whatever is asked: 498 is Groq's capacity, 529 Anthropic's overload, 425 RFC 8470.
521 to 523, 525, 526 and 530 are Cloudflare's for an origin that it could not connect to, so nothing reached it
(developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors, read 2026-11-30)."""

MAYBE_BILLED = frozenset({499, 502, 504, 520, 524, 527, 598, 599})
"""A gateway had passed the request on and did not get an answer back: the model may have run. 499 is nginx's for a
caller that left, 598 and 599 some proxies' for a read or connect that took too long."""

NEVER_RETRIED = frozenset({501, 505, 506, 508, 510, 511})
"""5xx statuses that say that the same request will never be answered (RFC 9110 sections 15.6.2 and 15.6.6; RFC 2295;
RFC 5842: it has come round; RFC 2774; RFC 6585: a network wants a login)."""


def is_retried(status: int) -> bool:
    """Whether an error with this status is worth another attempt where no table of the provider says otherwise."""
    return status in OVERLOADED or status in MAYBE_BILLED or (status >= 500 and status not in NEVER_RETRIED)


def class_of_status(status: int) -> FailureClass:
    """Say what a complete error answer means; below 400, what an answer that is none means."""
    return FailureClass.MAYBE_BILLED if status < 400 or status in MAYBE_BILLED else FailureClass.REFUSED


def bound_of(failure: FailureClass, *, is_overload: bool, is_page: bool, is_billed: bool) -> Bound:
    """Say what ends the attempts.

    Args:
        is_overload: the answer blames the upstream's state.
        is_page: it is an HTML page under a status that would else be final: a middlebox spoke.
        is_billed: calls to this upstream cost money.
    """
    if failure is FailureClass.UNSENT:
        return Bound.TIME
    if failure is FailureClass.MAYBE_BILLED:
        return Bound.BUDGET if is_billed else Bound.COUNT_WHILE_OTHERS_SUCCEED
    if is_page:
        return Bound.FEW
    return Bound.TIME if is_overload else Bound.COUNT_WHILE_OTHERS_SUCCEED
