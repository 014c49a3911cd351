"""Builds an answer in the requested provider's format, JSON or stream, from a recorded prompt's text.

Identifiers are derived from the question, so the same request always gets the same bytes. Usage is null where the
dialect allows it: nothing was billed, and no count is invented. Anthropic's clients add up the counts, so they are 0
there.
"""

from typing import Any

import orjson

from kdproxy.core.models import Answer, Form, Prompt, Question

_JSON = (("content-type", "application/json"),)
_SSE = (("content-type", "text/event-stream; charset=utf-8"),)
_NO_TOKENS = {"input_tokens": 0, "output_tokens": 0}


def answer(question: Question, prompt: Prompt) -> Answer:
    """Return the answer that a provider would have sent with this text."""
    is_stream = question.form is Form.SSE
    body = _WRITERS[question.provider, question.endpoint](question, prompt, is_stream)
    return Answer(status=200, headers=_SSE if is_stream else _JSON, body=body, form=question.form)


def _chat(question: Question, prompt: Prompt, is_stream: bool) -> bytes:
    base = {
        "id": f"chatcmpl-{question.key[:24]}",
        "object": "chat.completion.chunk" if is_stream else "chat.completion",
        "created": int(prompt.created_at),
        "model": prompt.model,
    }
    if not is_stream:
        message = {"role": "assistant", "content": prompt.response, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return orjson.dumps({**base, "choices": [choice], "usage": None})

    def chunk(delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**base, "choices": [choice]})

    return b"".join(
        (
            chunk({"role": "assistant", "content": "", "refusal": None}, None),
            chunk({"content": prompt.response}, None),
            chunk({}, "stop"),
            b"data: [DONE]\n\n",
        )
    )


def _responses(question: Question, prompt: Prompt, is_stream: bool) -> bytes:
    item_id = f"msg_{question.key[:24]}"
    part = {"type": "output_text", "text": prompt.response, "annotations": [], "logprobs": []}
    item = {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]}

    def response(status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"resp_{question.key[:24]}",
            "object": "response",
            "created_at": int(prompt.created_at),
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": prompt.model,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": None,
        }

    if not is_stream:
        return orjson.dumps(response("completed", [item]))
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    empty_item = {**item, "status": "in_progress", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response("in_progress", [])},
        {"type": "response.in_progress", "response": response("in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": empty_item},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": prompt.response, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": prompt.response, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response("completed", [item])},
    ]
    return b"".join(
        _event({**event, "sequence_number": number}, name=event["type"]) for number, event in enumerate(events)
    )


def _messages(question: Question, prompt: Prompt, is_stream: bool) -> bytes:
    message = {
        "id": f"msg_{question.key[:24]}",
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": [{"type": "text", "text": prompt.response}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _NO_TOKENS,
    }
    if not is_stream:
        return orjson.dumps(message)
    start = {**message, "content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": prompt.response}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 0},
        },
        {"type": "message_stop"},
    ]
    return b"".join(_event(event, name=event["type"]) for event in events)


def _gemini(question: Question, prompt: Prompt, is_stream: bool) -> bytes:
    content = {"parts": [{"text": prompt.response}], "role": "model"}
    whole = {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "modelVersion": prompt.model,
        "responseId": question.key[:24],
    }
    return _event(whole, line_end=b"\r\n") if is_stream else orjson.dumps(whole)


def _event(members: dict[str, Any], *, name: str | None = None, line_end: bytes = b"\n") -> bytes:
    head = b"" if name is None else b"event: " + name.encode() + line_end
    return head + b"data: " + orjson.dumps(members) + line_end * 2


_WRITERS = {
    ("openai", "chat.completions"): _chat,
    ("openai", "responses"): _responses,
    ("anthropic", "messages"): _messages,
    ("gemini", "generateContent"): _gemini,
}
