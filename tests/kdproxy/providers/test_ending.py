"""What finish reasons mean, and which endings prove that an answer is whole: tables, for JSON and streams alike."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.providers.base import (
    ONE_ANSWER,
    Broken,
    Complete,
    Criteria,
    Judgement,
)
from kdproxy.providers.ending import ANTHROPIC, GEMINI, OPENAI, Ending, ending_of
from kdproxy.providers.question import endpoint_named
from tests.kdproxy.providers.streams import message_stream, stream_of, streamed

FAILED = ["error", "ERROR", "network_error", "error_finish", "server_error", "connection_error", "engine_overloaded"]
FAILED += ["cancelled", "canceled", "timeout", "timed_out", "unload", "load", "abort", "aborted", "failed", "FAILED"]
FAILED += ["insufficient_system_resource", "ERROR_TOXIC", "interrupted", "expired", "user_cancelled", "incomplete"]
FAILED += ["request-timeout", "upstream_unavailable", "exception", "malformed_function_call", "invalid_response"]
NOTHING: list[Any] = [None, "", " ", False, True, 0, 1, [], {}, {"type": "stop"}, "null", "NONE", "unknown", "other"]
ENDED = ["stop", "STOP", "length", "tool_calls", "tool-calls", "function_call", "eos", "model_length", "end_turn"]
ENDED += ["COMPLETE", "MAX_TOKENS", "stop_sequence", "repetition"]
REFUSED = ["content_filter", "content-filter", "refusal", "sensitive", "SAFETY"]
NEW = ["stopped_by_the_moon", "x"]

CHAT = endpoint_named("openai", "chat.completions")
TEXT = endpoint_named("openai", "completions")
MESSAGES = endpoint_named("anthropic", "messages")
GENERATE = endpoint_named("gemini", "generateContent")
RESPONSES = endpoint_named("openai", "responses")


@pytest.mark.parametrize(
    ("ending", "reasons"),
    [
        (Ending.ENDED, ENDED),
        (Ending.REFUSED, REFUSED),
        (Ending.FAILED, FAILED),
        (Ending.MISSING, NOTHING),
        (Ending.UNKNOWN, NEW),
    ],
)
def test_the_words_of_openais_dialect(ending: Ending, reasons: list[Any]) -> None:
    for reason in reasons:
        assert ending_of(reason, OPENAI) is ending, reason


def test_each_provider_has_words_of_its_own() -> None:
    for words, ended, refused, failed, missing in (
        (ANTHROPIC, "end_turn max_tokens tool_use stop_sequence pause_turn", "refusal", "error", "none"),
        (
            GEMINI,
            "STOP MAX_TOKENS",
            "SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY",
            "MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL MALFORMED_RESPONSE",
            "OTHER FINISH_REASON_UNSPECIFIED",
        ),
    ):
        for ending, found in (
            (Ending.ENDED, ended),
            (Ending.REFUSED, refused),
            (Ending.FAILED, failed),
            (Ending.MISSING, missing),
        ):
            assert {ending_of(word, words) for word in found.split()} == {ending}, found


@given(st.sampled_from(FAILED + ENDED + REFUSED), st.data())
def test_case_says_nothing(word: str, data: st.DataObject) -> None:
    other = "".join(data.draw(st.sampled_from((letter.lower(), letter.upper()))) for letter in word)
    assert ending_of(other, OPENAI) is ending_of(word, OPENAI)


# -- the same ending, in each form ------------------------------------------------------------------------------


DONE = b"data: [DONE]\n\n"


def of_reason(form: str, reason: Any) -> Judgement:
    """Judge an answer that says something and ends so."""
    choice = {"index": 0, "finish_reason": reason}
    first = {"index": 0, "finish_reason": None}
    match form:
        case "chat json":
            return CHAT.judge(orjson.dumps({"choices": [{**choice, "message": {"content": "a"}}]}), ONE_ANSWER)
        case "text json":
            return TEXT.judge(orjson.dumps({"choices": [{**choice, "text": "a"}]}), ONE_ANSWER)
        case "chat stream":
            events = [{"choices": [{**first, "delta": {"content": "a"}}]}, {"choices": [{**choice, "delta": {}}]}]
            return streamed(CHAT, stream_of(*events, end=DONE))
        case "text stream":
            return streamed(TEXT, stream_of({"choices": [{**choice, "text": "a"}]}, end=DONE))
        case "gemini json":
            candidate = {"content": {"parts": [{"text": "a"}]}, "finishReason": reason}
            return GENERATE.judge(orjson.dumps({"candidates": [candidate]}), ONE_ANSWER)
        case "gemini stream":
            candidate = {"content": {"parts": [{"text": "a"}]}, "finishReason": reason}
            return streamed(GENERATE, stream_of({"candidates": [candidate]}))
        case "message json":
            message = {"type": "message", "content": [{"type": "text", "text": "a"}], "stop_reason": reason}
            return MESSAGES.judge(orjson.dumps(message), ONE_ANSWER)
        case "message stream":
            return streamed(MESSAGES, message_stream(reason))
    raise AssertionError(form)


FORMS = ["chat json", "chat stream", "text json", "text stream"]
OTHERS = ["gemini json", "gemini stream", "message json", "message stream"]


@pytest.mark.parametrize("form", FORMS)
def test_a_finish_reason_means_the_same_in_each_form(form: str) -> None:
    for reason in (*ENDED, *REFUSED):
        refusal = reason if reason in REFUSED else None
        assert of_reason(form, reason) == Complete(finish=(reason,), refusal=refusal), reason
    for reason in (*FAILED, *NOTHING):
        assert isinstance(of_reason(form, reason), Broken), reason
    for reason in NEW:
        assert of_reason(form, reason) == Complete(unknown_reason=reason, finish=(reason,))


@pytest.mark.parametrize("form", OTHERS)
def test_so_it_does_at_other_providers(form: str) -> None:
    ended = ["STOP", "MAX_TOKENS", "SAFETY"] if form.startswith("gemini") else ["end_turn", "max_tokens", "refusal"]
    for reason in ended:
        assert isinstance(judged := of_reason(form, reason), Complete)
        assert (judged.finish, judged.unknown_reason) == ((reason,), None)
    for reason in ("ERROR", "MALFORMED_FUNCTION_CALL", "network_error", *NOTHING):
        assert isinstance(of_reason(form, reason), Broken), reason
    assert isinstance(judged := of_reason(form, "A_NEW_WORD"), Complete)
    assert judged.unknown_reason == "A_NEW_WORD"


def test_json_without_the_member_is_whole_and_named_and_one_that_lacks_it_in_part_is_not() -> None:
    whole = {"index": 0, "message": {"content": "a"}}
    other = {"index": 1, "message": {"content": "b"}, "finish_reason": "stop"}
    assert CHAT.judge(orjson.dumps({"choices": [whole]}), ONE_ANSWER) == Complete(note="no-finish-reason")
    assert isinstance(CHAT.judge(orjson.dumps({"choices": [whole, other]}), Criteria(choices=2)), Broken)
    assert isinstance(MESSAGES.judge(b'{"type":"message","content":[{"text":"a"}]}', ONE_ANSWER), Broken)
    assert isinstance(GENERATE.judge(b'{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}', ONE_ANSWER), Broken)


# -- what proves nothing by itself ------------------------------------------------------------------------------

TOKEN = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def second(event: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{**event["choices"][0], "index": 1}]}


@pytest.mark.parametrize(
    ("events", "choices", "reason"),
    [
        ([TOKEN, DONE], 1, "it has no finish reason"),
        ([TOKEN, DONE, STOP], 1, "it has no finish reason"),
        ([DONE, TOKEN, STOP, DONE], 1, "it has no choices"),
        ([{"choices": [{**TOKEN["choices"][0], "finish_reason": ""}]}] * 2, 1, "it was cut"),
        ([TOKEN, second(TOKEN), STOP, DONE], 2, "it was cut"),
        ([TOKEN, STOP, DONE], 2, "2 choices were requested, but 1 came"),
        ([TOKEN, STOP, second(TOKEN), second(STOP), DONE], 1, "1 choices were requested, but 2 came"),
        ([TOKEN, STOP, {"object": "error", "message": "x", "code": 500}, DONE], 1, "it carries an error"),
        ([TOKEN, b'{"error":{"message":"x"}}\n\n', STOP, DONE], 1, "it carries an error"),
        ([TOKEN, b'{"error":{"message":"x"}}\ndata: [DONE]\n\n'], 1, "it carries an error"),
        ([TOKEN, {"error": {"message": "x"}, "choices": []}, STOP, DONE], 1, "it carries an error"),
        ([TOKEN, {"error_code": 336003, "error_msg": "x"}, STOP, DONE], 1, "it carries an error"),
        ([TOKEN, {"base_resp": {"status_code": 1004}}, STOP, DONE], 1, "it carries an error"),
        ([TOKEN, {"choices": [{**STOP["choices"][0], "error": {"code": 502}}]}, DONE], 1, "it carries an error"),
        (
            [TOKEN, {"choices": [{**STOP["choices"][0], "native_finish_reason": "abort"}]}, DONE],
            1,
            "a choice ended with 'abort'",
        ),
        ([TOKEN, b"event: error\ndata: {}\n\n", STOP, DONE], 1, "it carries an error"),
        ([TOKEN, b"data: Internal Server Error\n\n", STOP, DONE], 1, "an event is not a JSON object"),
        ([TOKEN, STOP, TOKEN], 1, "it was cut"),
        ([DONE], 1, "it has no choices"),
        ([], 1, "it has no choices"),
    ],
)
def test_what_is_no_whole_stream(events: list[Any], choices: int, reason: str) -> None:
    judged = streamed(CHAT, stream_of(*events), Criteria(choices=choices))
    assert isinstance(judged, Broken)
    assert judged.reason.startswith(reason)


HEARTBEATS = [
    b'data: ""\n\n',
    b"data:\n\n",
    b"data: null\n\n",
    b"data: ping\n\n",
    b"event: ping\ndata: now\n\n",
    b"\n\n",
]
HEARTBEATS += [b": c\n\n", b'event: keepalive\ndata: {"type":"ping"}\n\n', b"data: {}\n\n"]
HALVES = [b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n']
HALVES += [b'data:{"choices":[{"index":0,"delta":{"content":"\\ude00"}}]}\n\n']
NAN = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}\n\n'
LATIN = b'data: {"choices":[{"index":0,"delta":{"content":"\xe9"}}]}\n\n'
AZURE = {"choices": [{"index": 0, "delta": {}, "finish_reason": None, "content_filter_results": {"hate": {}}}]}


@pytest.mark.parametrize(
    "events",
    [
        [TOKEN, STOP],
        [TOKEN, STOP, DONE, DONE],
        *([TOKEN, beat, STOP, beat, DONE, beat] for beat in HEARTBEATS),
        [*HALVES, STOP, DONE],
        [NAN, STOP, DONE],
        [LATIN, STOP, DONE],
        [b"\xef\xbb\xbf" + stream_of(TOKEN), STOP, DONE],
        [TOKEN, STOP, AZURE, DONE],
        [TOKEN, STOP, {"choices": [], "usage": {"completion_tokens": 1}}],
        [{"choices": [{**TOKEN["choices"][0], "finish_reason": "stop"}]}] * 3,
        [TOKEN, {"choices": [{**STOP["choices"][0], "error": None}], "error": None}, DONE],
        [{"choices": [{**TOKEN["choices"][0], "finish_reason": ""}]}, STOP, DONE],
    ],
)
def test_what_is_a_whole_stream_whatever_its_wrapping(events: list[Any]) -> None:
    assert isinstance(streamed(CHAT, stream_of(*events)), Complete)


def test_a_last_chunk_that_repeats_the_message_leaves_it_whole_with_the_proper_end_alone() -> None:
    again = {"choices": [{"index": 0, "message": {"content": "a"}}]}
    assert isinstance(streamed(CHAT, stream_of(TOKEN, STOP, again, DONE)), Complete)
    assert isinstance(streamed(CHAT, stream_of(TOKEN, STOP, again)), Broken)


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (message_stream("end_turn"), True),
        (message_stream("end_turn", stop=False), True),
        (message_stream(None), False),
        (message_stream(""), False),
        (message_stream("error"), False),
        (message_stream("end_turn", stop=False) + b'event: error\ndata: {"type":"error","error":{}}\n\n', False),
    ],
)
def test_a_message_needs_its_stop_reason(data: bytes, is_whole: bool) -> None:
    assert isinstance(streamed(MESSAGES, data), Complete) == is_whole


def response(status: Any, **more: Any) -> dict[str, Any]:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]
    return {"id": "resp_1", "object": "response", "error": None, "status": status, "output": output, **more}


@pytest.mark.parametrize(
    ("final", "is_whole"),
    [
        (response("completed"), True),
        (response("incomplete", incomplete_details={"reason": "max_output_tokens"}), True),
        (response("incomplete", incomplete_details={"reason": "content_filter"}), True),
        (response("incomplete", incomplete_details={"reason": "server_error"}), False),
        (response("incomplete"), False),
        (response("failed", error={"code": "server_error"}), False),
        (response("completed", error={"code": "server_error"}), False),
        (response("cancelled"), False),
        (response("in_progress"), False),
        (response(None), False),
        ({"id": "resp_1"}, False),
        (response("completed", output=[]), False),
        (response("completed", output=[], usage={"output_tokens": 7}), True),
    ],
)
def test_a_response_needs_a_good_status_in_json_and_stream(final: dict[str, Any], is_whole: bool) -> None:
    assert isinstance(RESPONSES.judge(orjson.dumps(final), ONE_ANSWER), Complete) == is_whole
    event = {"type": "response.completed", "response": final}
    assert isinstance(streamed(RESPONSES, stream_of(event)), Complete) == is_whole


def test_an_empty_final_output_after_text_is_whole() -> None:
    delta = {"type": "response.output_text.delta", "delta": "a"}
    final = {"type": "response.completed", "response": response("completed", output=[])}
    assert isinstance(streamed(RESPONSES, stream_of(delta, final)), Complete)
    assert isinstance(streamed(RESPONSES, stream_of(delta, end=DONE)), Broken)


# -- Gemini -----------------------------------------------------------------------------------------------------


def candidate(text: str | None, reason: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"index": 0}
    if text is not None:
        found["content"] = {"role": "model", "parts": [{"text": text}]}
    if reason is not None:
        found["finishReason"] = reason
    return {"candidates": [found]}


@pytest.mark.parametrize(
    ("chunks", "is_whole"),
    [
        ([candidate("a"), candidate("b", "STOP")], True),
        ([candidate("a", "STOP"), candidate("b", "STOP")], True),
        ([candidate("a", "STOP"), candidate("b")], False),
        ([candidate(None, "STOP"), candidate("b"), candidate("c", "STOP")], True),
        ([candidate("a"), candidate(None, "STOP"), {"usageMetadata": {"candidatesTokenCount": 1}}], True),
        ([candidate("a")], False),
        ([candidate(None, "SAFETY")], True),
        ([candidate(None, "MALFORMED_FUNCTION_CALL")], False),
        ([candidate("a"), candidate(None, "OTHER")], False),
        ([candidate("", "STOP")], False),
        ([{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}], True),
        ([{"promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"}}], False),
        ([{"promptFeedback": {"safetyRatings": []}}], False),
        ([candidate("a", "STOP"), {"error": {"code": 503}}], False),
    ],
)
def test_of_gemini_the_last_reason_counts_and_a_blocked_prompt_is_an_answer(chunks: list[Any], is_whole: bool) -> None:
    assert isinstance(streamed(GENERATE, stream_of(*chunks)), Complete) == is_whole
    assert isinstance(GENERATE.judge(orjson.dumps(chunks), ONE_ANSWER), Complete) == is_whole
    if len(chunks) == 1:
        assert isinstance(GENERATE.judge(orjson.dumps(chunks[0]), ONE_ANSWER), Complete) == is_whole
