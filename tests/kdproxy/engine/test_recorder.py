"""What goes on at once, what is held, and what is recorded: however the network cuts an answer."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdproxy.core.models import Form
from kdproxy.engine.recorder import BodyRecorder, StreamRecorder
from kdproxy.providers.base import ONE_ANSWER, Broken, Complete, Criteria
from kdproxy.providers.question import endpoint_named

CHAT = endpoint_named("openai", "chat.completions")
SPEECH = endpoint_named("openai", "audio.speech")
FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
STREAM = COMMENT + FIRST + COMMENT + LAST + USAGE + COMMENT + DONE


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    places = st.lists(st.integers(0, len(data)), max_size=12).map(sorted)
    return places.map(lambda found: [data[a:b] for a, b in zip([0, *found], [*found, len(data)], strict=True)])


def stream(limit: int = 1 << 20, criteria: Criteria = ONE_ANSWER) -> StreamRecorder:
    return StreamRecorder(CHAT.judge_stream(criteria), limit)


@settings(max_examples=200)
@given(cuts(STREAM))
def test_a_stream_cut_anywhere_is_the_same(chunks: list[bytes]) -> None:
    recorder = stream()
    live = b"".join(recorder.feed(chunk) for chunk in chunks)
    assert live == COMMENT + FIRST + COMMENT
    judgement = recorder.finish()
    assert isinstance(judgement, Complete)
    assert judgement.usage is not None
    assert judgement.usage.output_tokens == 2
    assert live + recorder.held == STREAM
    assert recorder.recording == FIRST + LAST + USAGE + DONE


@settings(max_examples=200)
@given(cuts(STREAM + FIRST[:20]), st.integers(0, 300))
def test_whatever_the_limit_all_bytes_are_delivered(chunks: list[bytes], limit: int) -> None:
    recorder = stream(limit)
    live = b"".join(recorder.feed(chunk) for chunk in chunks)
    judgement = recorder.finish()
    assert live + recorder.held == STREAM + FIRST[:20]
    if limit < len(STREAM):
        assert isinstance(judgement, Broken)
        assert not recorder.is_over


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (FIRST + LAST + DONE, True),
        (FIRST + LAST, True),
        (FIRST + DONE, False),
        (FIRST, False),
        (DONE, False),
        (b"", False),
        (FIRST + LAST[:-1], True),
        (FIRST + LAST[:-20], False),
        (FIRST + b'data: {"error":{"message":"x"}}\n\n' + DONE, False),
        (FIRST + b"event: error\ndata: {}\n\n" + LAST + DONE, False),
        (b"data: nonsense\n\n" + LAST + DONE, False),
        (FIRST.replace(b"\n", b"\r\n") + LAST.replace(b"\n", b"\r\n"), True),
        (FIRST.replace(b"\n", b"\r") + LAST.replace(b"\n", b"\r"), True),
    ],
)
def test_only_whole_streams_are_whole(data: bytes, is_whole: bool) -> None:
    recorder = stream()
    live = recorder.feed(data)
    assert isinstance(recorder.finish(), Complete) == is_whole
    assert live + recorder.held == data


def test_with_two_choices_both_must_have_finished() -> None:
    recorder = stream(criteria=Criteria(choices=2))
    assert recorder.feed(FIRST + LAST) == FIRST + LAST
    assert recorder.feed(FIRST.replace(b'"index":0', b'"index":1')) == FIRST.replace(b'"index":0', b'"index":1')
    assert recorder.feed(LAST.replace(b'"index":0', b'"index":1')) == b""
    assert isinstance(recorder.finish(), Complete)


@pytest.mark.parametrize("end", [b"", DONE])
def test_a_choice_that_has_not_begun_is_missing(end: bytes) -> None:
    """Some servers send one choice after the other; `[DONE]` does not say that all have come."""
    recorder = stream(criteria=Criteria(choices=2))
    recorder.feed(FIRST + LAST + end)
    assert recorder.finish() == Broken("2 choices were requested, but 1 came", 'choices = "as-served"')


def test_text_after_a_finish_reason_continues_and_the_next_is_held_no_more() -> None:
    """Some servers put "stop" into every chunk."""
    recorder = stream()
    each = FIRST.replace(b'"delta"', b'"finish_reason":"stop","delta"')
    assert recorder.feed(each) == b""
    assert recorder.grace_seconds is None
    assert recorder.feed(each) == each * 2
    assert recorder.feed(each) == each
    assert recorder.feed(DONE) == b""
    assert isinstance(recorder.finish(), Complete)


def test_the_grace_is_longer_while_usage_is_awaited() -> None:
    for criteria, seconds in ((ONE_ANSWER, 1.0), (Criteria(wants_usage=True), 10.0)):
        recorder = stream(criteria=criteria)
        recorder.feed(FIRST)
        assert recorder.grace_seconds is None
        recorder.feed(LAST)
        assert recorder.grace_seconds == seconds
        recorder.feed(COMMENT)
        assert recorder.events == 1
        recorder.feed(USAGE)
        assert (recorder.events, recorder.grace_seconds) == (2, 1.0)


def test_half_an_event_after_the_end_is_passed_on_and_not_recorded() -> None:
    recorder = stream()
    assert recorder.feed(FIRST + LAST + b"data: [DO") == FIRST
    assert isinstance(recorder.finish(), Complete)
    assert recorder.held == LAST + b"data: [DO"
    assert recorder.recording == FIRST + LAST


def test_a_stream_is_over_with_its_own_last_event_only() -> None:
    recorder = stream()
    recorder.feed(FIRST + LAST + USAGE)
    assert not recorder.is_over
    recorder.feed(DONE)
    assert recorder.is_over


@settings(max_examples=100)
@given(cuts(bytes(range(200))), st.integers(0, 300))
def test_sound_is_live_but_for_its_last_byte(chunks: list[bytes], limit: int) -> None:
    whole = bytes(range(200))
    recorder = BodyRecorder(SPEECH.judge, ONE_ANSWER, True, limit, Form.BINARY)
    live = b"".join(recorder.feed(chunk) for chunk in chunks)
    judgement: Any = recorder.finish()
    assert live + recorder.held == whole
    if limit >= len(whole):
        assert live == whole[:-1]
        assert recorder.recording == whole
        assert isinstance(judgement, Complete)
    else:
        assert isinstance(judgement, Broken)


@settings(max_examples=100)
@given(cuts(b'\n \n{"choices":[{"finish_reason":"stop","text":"a"}]}'), st.integers(0, 60))
def test_json_is_held_whole_and_recorded_without_keep_alives(chunks: list[bytes], limit: int) -> None:
    whole = b"".join(chunks)
    recorder = BodyRecorder(CHAT.judge, ONE_ANSWER, False, limit, Form.JSON)
    live = b"".join(recorder.feed(chunk) for chunk in chunks)
    judgement = recorder.finish()
    if limit >= len(whole):
        assert (live, recorder.held) == (b"", whole.lstrip())
        assert recorder.recording == whole.lstrip()
        assert isinstance(judgement, Complete)
    else:
        assert live + recorder.held == whole
        assert isinstance(judgement, Broken)
