"""What an answer line says of its end: each choice's own word, and a policy's; the same from JSON and from a stream."""

import json
from typing import Any

import pytest

from kdproxy.core.sse import Splitter
from kdproxy.providers.base import Complete, Criteria, Judgement
from kdproxy.providers.question import endpoint_named

CHAT = ("openai", "chat.completions")
MESSAGES = ("anthropic", "messages")
GEMINI = ("gemini", "generateContent")
RESPONSES = ("openai", "responses")
INTERACTIONS = ("gemini", "interactions")


def choice(index: int, reason: str | None, text: str = "x") -> dict[str, Any]:
    return {"index": index, "message": {"content": text}, "finish_reason": reason}


def candidate(index: int, reason: str, text: str = "x") -> dict[str, Any]:
    return {"index": index, "content": {"parts": [{"text": text}]}, "finishReason": reason}


def message(reason: str, text: str = "x") -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": reason}


def response(status: str, reason: str | None = None) -> dict[str, Any]:
    details = {"incomplete_details": {"reason": reason}} if reason else {}
    return {"id": "r", "status": status, "output": [{"content": [{"text": "x"}]}], **details}


Row = tuple[tuple[str, str], dict[str, Any], int, tuple[str | None, ...] | None, str | None]
ROWS: list[Row] = [
    (CHAT, {"choices": [choice(0, "stop")]}, 1, ("stop",), None),
    (CHAT, {"choices": [choice(1, "length"), choice(0, "stop")]}, 2, ("stop", "length"), None),
    (CHAT, {"choices": [choice(0, "content_filter", "")]}, 1, ("content_filter",), "content_filter"),
    (CHAT, {"choices": [{"index": 0, "message": {"content": "x"}}]}, 1, None, None),
    (MESSAGES, message("end_turn"), 1, ("end_turn",), None),
    (MESSAGES, message("max_tokens"), 1, ("max_tokens",), None),
    (MESSAGES, message("refusal", ""), 1, ("refusal",), "refusal"),
    (GEMINI, {"candidates": [candidate(0, "STOP"), candidate(1, "MAX_TOKENS")]}, 2, ("STOP", "MAX_TOKENS"), None),
    (GEMINI, {"candidates": [candidate(0, "SAFETY", "")]}, 1, ("SAFETY",), "SAFETY"),
    (GEMINI, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, 1, None, "PROHIBITED_CONTENT"),
    (RESPONSES, response("completed"), 1, ("completed",), None),
    (RESPONSES, response("incomplete", "max_output_tokens"), 1, ("max_output_tokens",), None),
    (RESPONSES, response("incomplete", "content_filter"), 1, ("content_filter",), "content_filter"),
    (INTERACTIONS, {"status": "completed", "outputs": [{"text": "x"}]}, 1, ("completed",), None),
]


def ends(judgement: Judgement) -> tuple[tuple[str | None, ...] | None, str | None]:
    assert isinstance(judgement, Complete), judgement
    return judgement.finish, judgement.refusal


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0][1]} {row[3]}")
def test_json_says_how_each_choice_ended(row: Row) -> None:
    place, body, choices, finish, refusal = row
    judged = endpoint_named(*place).judge(json.dumps(body).encode(), Criteria(choices=choices))
    assert ends(judged) == (finish, refusal)


def streamed(place: tuple[str, str], *events: dict[str, Any], choices: int = 1) -> Judgement:
    judge = endpoint_named(*place).judge_stream(Criteria(choices=choices))
    splitter = Splitter()
    for event in events:
        for piece in splitter.feed(f"data: {json.dumps(event)}\n\n".encode()):
            judge.take(piece)
    return judge.finish()


def delta(index: int, reason: str | None, text: str = "x") -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]}


def test_a_stream_says_how_each_choice_ended() -> None:
    found = streamed(CHAT, delta(1, None), delta(0, None), delta(1, "length", ""), delta(0, "stop", ""), choices=2)
    assert ends(found) == (("stop", "length"), None)
    start: dict[str, Any] = {"type": "message_start", "message": {}}
    stop = {"type": "message_delta", "delta": {"stop_reason": "refusal"}}
    assert ends(streamed(MESSAGES, start, stop)) == (("refusal",), "refusal")
    done = {"type": "response.completed", "response": response("completed")}
    assert ends(streamed(RESPONSES, done)) == (("completed",), None)


def test_of_several_reasons_the_last_one_counts() -> None:
    """Gemini may say STOP in each chunk."""
    chunks = [{"candidates": [candidate(0, reason)]} for reason in ("STOP", "STOP", "MAX_TOKENS")]
    assert ends(streamed(GEMINI, *chunks)) == (("MAX_TOKENS",), None)
