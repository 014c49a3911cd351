"""What goes on at once, what is held, and what is recorded: however the network cuts an answer."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdproxy.core.models import Form
from kdproxy.engine.recorder import BodyRecorder, StreamRecorder
from kdproxy.providers.base import Broken, Complete
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


def stream(limit: int = 1 << 20) -> StreamRecorder:
    return StreamRecorder(CHAT, 1, limit)


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
        (FIRST + DONE, True),
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
    recorder = StreamRecorder(CHAT, 2, 1 << 20)
    assert recorder.feed(FIRST + LAST) == FIRST + LAST
    assert recorder.feed(LAST.replace(b'"index":0', b'"index":1')) == b""
    assert isinstance(recorder.finish(), Complete)


@pytest.mark.parametrize(("end", "is_whole"), [(b"", False), (DONE, True)])
def test_a_choice_that_has_not_begun_is_missing(end: bytes, is_whole: bool) -> None:
    """Some servers send one choice after the other, and some no `[DONE]`."""
    recorder = StreamRecorder(CHAT, 2, 1 << 20)
    recorder.feed(FIRST + LAST + end)
    assert isinstance(recorder.finish(), Complete) == is_whole


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
    recorder = BodyRecorder(SPEECH, True, limit, Form.BINARY)
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
@given(cuts(b'\n \n{"choices":[{"finish_reason":"stop"}]}'), st.integers(0, 60))
def test_json_is_held_whole_and_recorded_without_keep_alives(chunks: list[bytes], limit: int) -> None:
    whole = b"".join(chunks)
    recorder = BodyRecorder(CHAT, False, limit, Form.JSON)
    live = b"".join(recorder.feed(chunk) for chunk in chunks)
    judgement = recorder.finish()
    if limit >= len(whole):
        assert (live, recorder.held) == (b"", whole.lstrip())
        assert recorder.recording == whole.lstrip()
        assert isinstance(judgement, Complete)
    else:
        assert live + recorder.held == whole
        assert isinstance(judgement, Broken)
