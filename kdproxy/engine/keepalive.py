"""Harmless bytes that hold a client before its answer is there. They go to that client alone: nothing records them.

SSE comments (WHATWG HTML section 9.2.6) and white space before JSON (RFC 8259 section 2), as DeepSeek sends them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

from kdproxy.core.models import Form, HeaderPairs, Question
from kdproxy.engine.flights import Flight, Head
from kdproxy.errors import KdproxyError
from kdproxy.providers import replay

_CONTENT_TYPES = {Form.SSE: "text/event-stream; charset=utf-8", Form.JSON: "application/json"}
_COMMENT = b": waiting\n\n"
_WHITE_SPACE = b"\n"


class FailedLate(Exception):
    """An error after the first byte: no status can say it any more.

    Args:
        error: what happened.
        body: the provider's own words, where it said any.
    """

    def __init__(self, error: KdproxyError, body: bytes | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.body = body


def can_hold(form: Form) -> bool:
    """Whether this form has bytes that mean nothing."""
    return form in _CONTENT_TYPES


def head_of(question: Question) -> HeaderPairs:
    """Return the headers that are sent before the answer's own are known."""
    return (("Content-Type", _CONTENT_TYPES[question.form]),)


async def held(
    flight: Callable[[], Flight],
    head_within: Callable[[float], Awaitable[Head]],
    question: Question,
    every: float,
    before_last: Callable[[], None] | None = None,
) -> AsyncIterator[bytes]:
    """Yield a harmless byte at intervals, and the answer when it comes.

    Args:
        flight: returns the flight that the client is on by now.
        head_within: waits for its head.
        every: seconds from one such byte to the next.
        before_last: called before the last piece of a whole answer.

    Raises:
        FailedLate: there is none.
        KdproxyError: it was cut.
    """
    # google-genai takes a comment for a piece of JSON; a blank line is harmless: no event is open.
    is_comment = question.form is Form.SSE and question.provider != "gemini"
    head = None
    while head is None:
        yield _COMMENT if is_comment else _WHITE_SPACE
        try:
            head = await head_within(every)
        except TimeoutError:
            continue
        except KdproxyError as error:
            raise FailedLate(error) from error
    if not 200 <= head.status < 300:
        raise FailedLate(_refused(head.status), flight().body)
    if head.is_whole:
        if before_last is not None:
            before_last()
        yield flight().body
        return
    async for chunk in replay.fitted_live(flight().chunks(before_last), flight().stream_options, question):
        yield chunk


def _refused(status: int) -> KdproxyError:
    return KdproxyError(
        f"The upstream answered with status {status}.", hint="Read the error that it sent.", code="upstream_refused"
    )
