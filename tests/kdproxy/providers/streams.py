"""Streams of events, and what their judge says of them."""

from typing import Any

import orjson

from kdproxy.core import sse
from kdproxy.providers.base import ONE_ANSWER, Criteria, Judgement


def stream_of(*events: Any, end: bytes = b"") -> bytes:
    parts = [event if isinstance(event, bytes) else b"data: " + orjson.dumps(event) + b"\n\n" for event in events]
    return b"".join(parts) + end


def streamed(endpoint: Any, data: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    judge = endpoint.judge_stream(criteria)
    for piece in sse.pieces(data):
        judge.take(piece)
    found: Judgement = judge.finish()
    return found


def message_stream(reason: Any, *, text: str = "a", stop: bool = True, tokens: int = 0) -> bytes:
    events: list[Any] = [
        {"type": "message_start", "message": {"type": "message", "usage": {"input_tokens": 3, "output_tokens": 0}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": tokens}},
    ]
    return stream_of(*events, end=b'data: {"type":"message_stop"}\n\n' if stop else b"")
