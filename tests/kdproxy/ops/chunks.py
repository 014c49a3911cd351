"""Chunks of OpenAI's dialect, put together by hand."""

from typing import Any

import orjson

CITY, TIME = '{"city":"Rome"}', '{"zone":"UTC"}'


def call(identity: Any, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def piece(index: Any = 0, identity: Any = None, name: str | None = None, arguments: Any = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    given = {"index": index, "id": identity, "function": function}
    return {key: value for key, value in given.items() if value is not None}


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def stream(*deltas: dict[str, Any], reason: str = "stop") -> bytes:
    """Chunks with these deltas; the last carries the finish reason."""
    reasons = [*[None] * (len(deltas) - 1), reason]
    choices = [{"index": 0, "delta": delta, "finish_reason": each} for delta, each in zip(deltas, reasons, strict=True)]
    return sse(*({"object": "chat.completion.chunk", "choices": [choice]} for choice in choices))
