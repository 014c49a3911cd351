"""Reads an answer to its end: chooses what watches it, and says when a stream that does not end has ended.

A stream whose choices have all ended is over for its client after a grace of 1 s without an event (10 s while usage
that was asked for is to come), whatever its server still sends: comments for ever, `[DONE]` minutes later, a reset.
An event that may be the end (Gemini's finishReason, which can stand in every chunk) is held for a moment, then
forwarded.
"""

import asyncio

from kdproxy.core.models import Form, Question
from kdproxy.core.ports import UpstreamResponse
from kdproxy.core.sniff import Kind
from kdproxy.engine.early_error import ANSWERING, BufferedResponse
from kdproxy.engine.fetch_request import FetchedResponse
from kdproxy.engine.flights import Flight
from kdproxy.engine.lane import Refusal
from kdproxy.engine.recorder import GRACE_SECONDS, BodyRecorder, Recorder, StreamRecorder
from kdproxy.errors import UpstreamFailed
from kdproxy.providers.base import Complete, Criteria, Judgement
from kdproxy.providers.question import endpoint_named

HOLD_SECONDS = 0.1
"""How long an event is held that may be the last: a clean end follows it at once, or it is none."""


def recorder_of(
    question: Question, criteria: Criteria, delivery: FetchedResponse, *, limit_bytes: int
) -> tuple[Recorder, str | None]:
    """Return what watches this answer, and why it cannot be kept however good it is.

    What it is follows from its first bytes and from what was asked; a content type alone decides nothing but of sound.
    """
    response, kind = delivery.response, delivery.kind
    endpoint = endpoint_named(question.provider, question.endpoint)
    labels = response if isinstance(response, BufferedResponse) else BufferedResponse(response)
    content_type = labels.content_type
    if response.status in ANSWERING and _is_stream(question.form, kind, content_type):
        misfit = None if question.form is Form.SSE else "it is a stream that was not asked for"
        return StreamRecorder(endpoint.judge_stream(criteria), limit_bytes), misfit
    misfit = None
    if response.status not in ANSWERING:
        misfit = f"its status is {response.status}"
    elif labels.is_coded:
        misfit = "it has a coding that is not undone here"
    elif question.form is Form.SSE and kind is not Kind.JSON:
        misfit = "it is no stream"
    elif question.form is Form.BINARY and not content_type.startswith(endpoint.content_types):
        misfit = "it has an unexpected content type"
    elif question.form is Form.BINARY and not response.is_end_marked:
        # Of JSON and streams the last bytes say that they are the last.
        misfit = "the end of its bytes is that of the connection, which may have been cut"
    is_live = question.form is Form.BINARY
    form = Form.BINARY if is_live else Form.JSON
    return BodyRecorder(endpoint.judge, criteria, is_live, limit_bytes, form, delivery.judgement), misfit


def _is_stream(form: Form, kind: Kind | None, content_type: str) -> bool:
    names_events = content_type.startswith("text/event-stream")
    if form is Form.BINARY or kind is None:
        return names_events
    return kind is Kind.EVENTS or (names_events and kind is Kind.OTHER)


def again_of(
    judgement: Judgement, response: UpstreamResponse, recorder: Recorder, misfit: str | None
) -> Refusal | None:
    """Return what a client that asks again may get in place of another call; None: the answer is stored or sound, or
    may be good, so that another call is right."""
    if isinstance(judgement, Complete) or recorder.form is Form.BINARY or (judgement.may_be_good and not misfit):
        return None
    return Refusal(status=response.status, headers=response.headers, body=recorder.recording)


async def read_to_end(response: UpstreamResponse, recorder: Recorder, flight: Flight) -> None:
    """Read the body, and pass on what may go.

    Raises:
        UpstreamFailed: it was cut before its end.
    """
    if isinstance(recorder, StreamRecorder) and isinstance(response, BufferedResponse):
        await _read_stream(response, recorder, flight)
        return
    while chunk := await response.chunk():
        flight.add(recorder.feed(chunk))


async def _read_stream(response: BufferedResponse, recorder: StreamRecorder, flight: Flight) -> None:
    loop = asyncio.get_running_loop()
    events, ends_at, was_over = 0, loop.time() + GRACE_SECONDS, False
    while True:
        grace = recorder.grace_seconds
        if grace is not None:
            if recorder.events != events and not was_over:
                events, ends_at, was_over = recorder.events, loop.time() + grace, recorder.is_over
            try:
                chunk = await response.chunk_before(ends_at)
            except UpstreamFailed:
                return  # it had ended
            if chunk is None:
                return
        elif recorder.has_held:
            chunk = await response.chunk_before(loop.time() + HOLD_SECONDS)
            if chunk is None:
                flight.add(recorder.release())
                continue
        else:
            chunk = await response.chunk()
        if not chunk:
            return
        flight.add(recorder.feed(chunk))
