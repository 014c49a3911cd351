"""What is empty, what settings make of it, how many answers are asked for, and whether as many came."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core import sse
from kdproxy.core.models import Question, Upstream
from kdproxy.providers.base import (
    ONE_ANSWER,
    Broken,
    Complete,
    Criteria,
    End,
    NotAQuestion,
    criteria_of,
)
from kdproxy.providers.ending import error_in, says
from kdproxy.providers.question import Asking, endpoint_named, endpoint_of, read
from tests.kdproxy.providers.streams import message_stream, stream_of, streamed

CHAT = endpoint_named("openai", "chat.completions")
TEXT = endpoint_named("openai", "completions")
MESSAGES = endpoint_named("anthropic", "messages")
GENERATE = endpoint_named("gemini", "generateContent")
RESPONSES = endpoint_named("openai", "responses")
DONE = b"data: [DONE]\n\n"
TOKEN = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def candidate(text: str | None, reason: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"index": 0}
    if text is not None:
        found["content"] = {"role": "model", "parts": [{"text": text}]}
    if reason is not None:
        found["finishReason"] = reason
    return {"candidates": [found]}


def response(status: Any, **more: Any) -> dict[str, Any]:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]
    return {"id": "resp_1", "object": "response", "error": None, "status": status, "output": output, **more}


def chat(*choices: dict[str, Any], tokens: int | None = None) -> bytes:
    usage = {} if tokens is None else {"usage": {"prompt_tokens": 0, "completion_tokens": tokens}}
    return orjson.dumps({"choices": list(choices), **usage})


def said(index: int = 0, reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {"index": index, "finish_reason": reason, "message": {"role": "assistant", **message}}


@pytest.mark.parametrize(
    ("body", "is_empty"),
    [
        (chat(said(content=None), tokens=0), True),
        (chat(said(content="")), True),
        (chat({"index": 0, "finish_reason": "stop", "message": None}), True),
        (chat({"index": 0, "finish_reason": "stop"}), True),
        (chat(said(content=[{"type": "text", "text": ""}])), True),
        (chat(said(content=[]), tokens=0), True),
        (chat(said(content="", refusal=None, tool_calls=[])), True),
        (chat(said(content="a")), False),
        (chat(said(content=" ")), False),
        (chat(said(content=None, refusal="No.")), False),
        (chat(said(content=None, tool_calls=[{"id": "1", "function": {"name": "f", "arguments": ""}}])), False),
        (chat(said(content=None, function_call={"name": "f"})), False),
        (chat(said(content="", reasoning_content="Hm.")), False),
        (chat(said(content=None, audio={"data": "UklG"})), False),
        (chat(said(content="", reason="length"), tokens=900), False),
        (chat(said(content=None, reason="content_filter")), False),
    ],
)
def test_nothing_generated_and_nothing_said_is_empty(body: bytes, is_empty: bool) -> None:
    judged = CHAT.judge(body, ONE_ANSWER)
    assert (isinstance(judged, Broken) and judged.is_empty) == is_empty
    assert isinstance(judged, Complete) != is_empty
    assert isinstance(CHAT.judge(body, Criteria(keeps_empty=True)), Complete)


def test_one_of_several_that_is_empty_leaves_it_broken() -> None:
    both = chat(said(0, content="a"), said(1, content=""), tokens=5)
    assert isinstance(CHAT.judge(both, Criteria(choices=2)), Broken)


def test_streams_that_say_nothing_are_empty() -> None:
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    for judged in (
        streamed(CHAT, stream_of(role, STOP, DONE)),
        streamed(MESSAGES, message_stream("end_turn", text="")),
        streamed(GENERATE, stream_of(candidate("", "STOP"))),
        streamed(RESPONSES, stream_of({"type": "response.completed", "response": response("completed", output=[])})),
    ):
        assert isinstance(judged, Broken)
        assert judged.is_empty
        assert judged.setting == "keep_empty = true"
    assert isinstance(streamed(MESSAGES, message_stream("end_turn", text="", tokens=2)), Complete)


# -- servers that differ ----------------------------------------------------------------------------------------


def test_under_end_done_the_terminator_is_proof_and_an_error_word_still_none() -> None:
    done = Criteria(end=End.DONE)
    assert isinstance(streamed(CHAT, stream_of(TOKEN, DONE), done), Complete)
    assert isinstance(streamed(CHAT, stream_of(TOKEN), done), Broken)
    assert isinstance(streamed(MESSAGES, message_stream(None), done), Complete)
    assert isinstance(streamed(MESSAGES, message_stream(None, stop=False), done), Broken)
    body = {"index": 0, "message": {"content": "a"}, "finish_reason": None}
    assert isinstance(CHAT.judge(chat(body), done), Complete)
    assert isinstance(CHAT.judge(chat({**body, "finish_reason": "abort"}), done), Broken)
    assert isinstance(RESPONSES.judge(orjson.dumps(response(None)), done), Complete)


def test_under_as_served_as_many_choices_as_came_are_whole() -> None:
    assert isinstance(CHAT.judge(chat(said(content="a")), Criteria(choices=2)), Broken)
    assert isinstance(CHAT.judge(chat(said(content="a")), Criteria(choices=None)), Complete)
    stream = CHAT.judge_stream(Criteria(choices=None))
    for piece in sse.pieces(stream_of(TOKEN, STOP)):
        stream.take(piece)
    # Another choice may begin after any pause.
    assert not stream.is_settled
    assert isinstance(stream.finish(), Complete)


def question(path: str, **members: Any) -> Question:
    endpoint = endpoint_of("POST", path)
    assert endpoint is not None
    upstream = Upstream(name="u", url="")
    found = read(endpoint, Asking(upstream=upstream, path=path, query="", headers={}, body=orjson.dumps(members)))
    assert not isinstance(found, NotAQuestion)
    return found


@pytest.mark.parametrize(
    ("path", "members", "choices"),
    [
        ("/v1/embeddings", {"input": "x"}, 1),
        ("/v1/embeddings", {"input": ["x", "y"]}, 2),
        ("/v1/embeddings", {"input": [1, 2, 3]}, 1),
        ("/v1/embeddings", {"input": [[1, 2], [3]]}, 2),
        ("/v1/embeddings", {"input": [{"text": "x"}, {"image": "y"}, {"text": "z"}]}, 3),
        ("/v1/embeddings", {"messages": [{"role": "user", "content": "x"}]}, 1),
        ("/v1/embeddings", {}, None),
        ("/v1/moderations", {"input": "x"}, 1),
        ("/v1/moderations", {"input": ["x", "y"]}, 2),
        ("/v1/moderations", {"input": [{"type": "text", "text": "x"}, {"type": "image_url"}]}, None),
        ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "x", "n": 2}, 2),
        ("/v1/chat/completions", {"messages": [], "n": None}, 1),
        ("/v1/chat/completions", {"messages": [], "n": "3"}, None),
    ],
)
def test_how_many_are_asked_for(path: str, members: dict[str, Any], choices: int | None) -> None:
    assert question(path, **members).choices == choices


def rows(*items: Any, name: str = "embedding", places: Any = None) -> bytes:
    places = range(len(items)) if places is None else places
    data = [{"object": "x", "index": place, name: item} for place, item in zip(places, items, strict=True)]
    return orjson.dumps({"data": data})


@pytest.mark.parametrize(
    ("body", "asked", "is_whole"),
    [
        (rows([0.1, 0.2]), 1, True),
        (rows("AACAPw=="), 1, True),
        (rows([0.1], [0.2]), 2, True),
        (rows([[0.1], [0.2]]), 1, True),
        (rows([]), 1, False),
        (rows(""), 1, False),
        (rows([None, None]), 1, False),
        (rows([[0.1], []]), 1, False),
        (rows(None), 1, False),
        (rows([0.1]), 2, False),
        (rows([0.1], [0.2]), 1, False),
        (rows([0.1], [0.2], places=(0, 0)), 2, False),
        (b'{"data":[{"embedding":[0.1,NaN]}]}', 1, False),
        (b'{"data":[{"embedding":[0.1]}]}', 1, True),
        (b'{"data":[]}', 1, False),
        (b'{"data":[{"embedding":[0.1]}],"error":{"message":"x"}}', 1, False),
        (rows([0.1]), None, True),
        (rows([0.1, 0.2], [0.3]), 2, False),
        (rows([0.1, 0.2], [0.3]), None, False),
        (rows("AACAPwAAgD8=", "AACAPw=="), 2, False),
        (rows("AACAPw==", [0.1]), 2, False),
        (rows("AACAPw==", "AAAAAA=="), 2, False),
        (rows([[0.1], [0.2]], [[0.3]]), 2, True),
        (rows([[0.1], [0.2, 0.3]]), 1, False),
        (rows({"indices": [1], "values": [0.1]}, {"indices": [1, 2], "values": [0.1, 0.2]}), 2, True),
    ],
)
def test_vectors_are_as_many_as_asked_and_none_empty(body: bytes, asked: int | None, is_whole: bool) -> None:
    judged = endpoint_named("openai", "embeddings").judge(body, Criteria(choices=asked))
    assert isinstance(judged, Complete) == is_whole


@pytest.mark.parametrize(
    ("name", "body", "is_whole"),
    [
        ("pooling", rows([[0.1], [0.2]], [[0.3]], name="data"), True),
        ("pooling", rows([[0.1], [0.2, 0.3]], [[0.3]], name="data"), False),
        ("pooling", rows([0.1, 0.2], [0.3], name="data"), True),  # a score for each token
        ("classify", rows([0.1, 0.9], [0.3, 0.7], name="probs"), True),
        ("classify", rows([0.1, 0.9], [0.3], name="probs"), False),
        ("score", rows(0.1, 0.2, name="score"), True),
    ],
)
def test_vectors_of_self_hosted_servers_have_one_length(name: str, body: bytes, is_whole: bool) -> None:
    judged = endpoint_named("openai", name).judge(body, Criteria(choices=2))
    assert isinstance(judged, Complete) == is_whole


def test_vectors_of_gemini_have_one_length() -> None:
    judge = endpoint_named("gemini", "batchEmbedContents").judge
    vectors = [{"values": [0.1, 0.2]}, {"values": [0.1]}]
    assert isinstance(judge(orjson.dumps({"embeddings": vectors[:1] * 2}), Criteria(choices=2)), Complete)
    assert judge(orjson.dumps({"embeddings": vectors}), Criteria(choices=2)) == Broken("its vectors differ in length")


def test_images_moderations_counts_and_sound() -> None:
    images = endpoint_named("openai", "images.generations")
    assert isinstance(images.judge(rows("iVBO", name="b64_json"), ONE_ANSWER), Complete)
    assert isinstance(images.judge(rows("", name="b64_json"), ONE_ANSWER), Broken)
    ended = {"type": "image_generation.completed", "b64_json": "iVBO"}
    assert isinstance(streamed(images, stream_of(ended), Criteria(choices=2)), Broken)
    assert isinstance(streamed(images, stream_of(ended, ended), Criteria(choices=2)), Complete)
    moderations = endpoint_named("openai", "moderations")
    assert isinstance(moderations.judge(b'{"results":[{"flagged":false}]}', ONE_ANSWER), Complete)
    assert isinstance(moderations.judge(b'{"results":[{}]}', ONE_ANSWER), Broken)
    assert isinstance(moderations.judge(b'{"results":[{"flagged":true}]}', Criteria(choices=2)), Broken)
    count = endpoint_named("anthropic", "messages.count_tokens")
    assert isinstance(count.judge(b'{"input_tokens":3}', ONE_ANSWER), Complete)
    assert isinstance(count.judge(b'{"input_tokens":null}', ONE_ANSWER), Broken)
    speech = endpoint_named("openai", "audio.speech")
    assert isinstance(speech.judge(b"\xff\xfb\x90\x00", ONE_ANSWER), Complete)
    for body in (b"", b'{"error":{}}', b"<html>", b"\n"):
        assert isinstance(speech.judge(body, ONE_ANSWER), Broken)


# -- errors and words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, False, "", 0, {}])
def test_an_empty_error_is_none(nothing: Any) -> None:
    assert error_in({"error": nothing, "error_code": nothing or 0, "base_resp": {"status_code": 0}}) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.just(""), lambda inner: st.lists(inner, max_size=3)))
def test_no_text_is_nothing_said(value: Any) -> None:
    assert not says(value)
    assert not says({"role": "assistant", "content": value, "type": "text"})


def test_settings_of_the_upstream_make_the_criteria() -> None:
    asked = question("/v1/chat/completions", messages=[], n=2)
    assert criteria_of(asked, Upstream(name="u", url="")) == Criteria(choices=2)
    differing = Upstream(name="u", url="", end="done", choices="as-served", keep_empty=True)
    assert criteria_of(asked, differing) == Criteria(choices=None, end=End.DONE, keeps_empty=True)
