"""Two answers in one stream, as a gateway sends them that retries upstream or joins two: in every dialect."""

from typing import Any

import orjson
import pytest

from kdproxy.providers.base import SECOND_ANSWER, Complete
from kdproxy.providers.question import endpoint_named
from tests.kdproxy.providers.streams import stream_of, streamed

DONE = b"data: [DONE]\n\n"
PING = {"type": "ping"}
OPENAI, ANTHROPIC, GEMINI = "openai", "anthropic", "gemini"


def chat(text: str, reason: str | None = None, *, name: str = "a") -> dict[str, Any]:
    return {"id": name, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}


def message(text: str, *, name: str = "a") -> list[dict[str, Any]]:
    return [
        {"type": "message_start", "message": {"id": name, "type": "message", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]


def response(text: str, *, name: str = "a") -> list[dict[str, Any]]:
    output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    return [
        {"type": "response.created", "response": {"id": name, "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": text},
        {"type": "response.completed", "response": {"id": name, "status": "completed", "output": output}},
    ]


def interaction(text: str, *, name: str = "a") -> list[dict[str, Any]]:
    return [
        {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": text}},
        {"event_type": "interaction.completed", "interaction": {"id": name, "status": "completed"}},
    ]


def candidate(text: str, reason: str | None = None, *, name: str = "a") -> dict[str, Any]:
    found = {"content": {"parts": [{"text": text}]}, **({} if reason is None else {"finishReason": reason})}
    return {"responseId": name, "candidates": [found]}


def picture(kind: str = "completed") -> dict[str, Any]:
    return {"type": f"image_generation.{kind}", "b64_json": "iVBO"}


CHAT = (OPENAI, "chat.completions")
MESSAGES = (ANTHROPIC, "messages")
RESPONSES = (OPENAI, "responses")
INTERACTIONS = (GEMINI, "interactions")
GENERATE = (GEMINI, "generateContent")
IMAGES = (OPENAI, "images.generations")


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        (CHAT, [chat("a"), chat("", "stop"), chat("b", name="b"), chat("", "stop", name="b"), DONE]),
        (CHAT, [chat("a"), chat("", "stop"), chat("b", name="b"), DONE]),
        (MESSAGES, message("a") + message("b", name="b")),
        (MESSAGES, message("a") + message("b", name="b")[:1]),
        (MESSAGES, message("a") + message("b")[2:3]),
        (MESSAGES, message("a")[:3] + message("b", name="b")),
        (RESPONSES, response("a") + response("b", name="b")),
        (RESPONSES, response("a") + response("b", name="b")[:1]),
        (RESPONSES, response("a") + response("b")[1:2]),
        (INTERACTIONS, interaction("a") + interaction("b", name="b")),
        (INTERACTIONS, interaction("a") + interaction("b")[:1]),
        (GENERATE, [candidate("a"), candidate("b", "STOP"), candidate("c", name="b"), candidate("d", "STOP")]),
        (IMAGES, [picture(), picture("partial_image")]),
        (IMAGES, [picture(), picture()]),
    ],
)
def test_a_stream_with_two_answers_is_not_stored(dialect: tuple[str, str], events: list[Any]) -> None:
    assert streamed(endpoint_named(*dialect), stream_of(*events)) == SECOND_ANSWER


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        (CHAT, [chat("a"), chat("", "stop"), DONE, chat("b", name="b"), chat("", "stop", name="b"), DONE]),
        (CHAT, [chat("a"), chat("", "stop"), chat("a"), DONE]),
        (CHAT, [chat("a"), chat("", "stop"), chat("", name="b"), {"id": "b", "choices": [], "usage": {}}, DONE]),
        (CHAT, [chat("a", name="1"), chat("b", name="2"), chat("", "stop", name="3"), DONE]),
        (CHAT, [chat("a", "stop", name="1"), chat("b", "stop", name="2"), chat("c", "stop", name="3"), DONE]),
        (MESSAGES, [*message("a"), PING, DONE]),
        (MESSAGES, [*message("a"), message("")[2], message("a")[3], message("a")[5]]),
        (MESSAGES, [message("a")[0], *message("a")]),
        (RESPONSES, [*response("a"), response("a")[2], PING, {"type": "response.keep_alive"}, DONE]),
        (RESPONSES, [*response("a"), DONE, *response("b", name="b")]),
        (INTERACTIONS, [*interaction("a"), interaction("a")[1], DONE]),
        (GENERATE, [candidate("a"), candidate("", "STOP"), candidate("b"), candidate("c", "STOP")]),
        (GENERATE, [candidate("a", "STOP", name="1"), candidate("b", "STOP", name="2")]),
        (GENERATE, [candidate("a"), candidate("", "STOP"), {"responseId": "b", "usageMetadata": {}}]),
        (IMAGES, [picture("partial_image"), picture()]),
    ],
)
def test_what_is_no_second_answer_leaves_the_first_one_whole(dialect: tuple[str, str], events: list[Any]) -> None:
    assert isinstance(streamed(endpoint_named(*dialect), stream_of(*events)), Complete)


def test_an_array_of_chunks_is_judged_like_a_stream() -> None:
    chunks = [candidate("a"), candidate("b", "STOP"), candidate("c", name="b"), candidate("d", "STOP", name="b")]
    assert endpoint_named(*GENERATE).judge(orjson.dumps(chunks)) == SECOND_ANSWER
    assert isinstance(endpoint_named(*GENERATE).judge(orjson.dumps(chunks[:2])), Complete)
