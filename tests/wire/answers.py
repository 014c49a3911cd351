"""Bytes of usual answers, to be sent as they are or bent by a test."""

import json
from typing import Any


def answer(
    body: bytes = b"", *, status: str = "200 OK", kind: str = "application/json", headers: tuple[str, ...] = ()
) -> bytes:
    """Return a whole HTTP/1.1 answer with a Content-Length; `headers` are lines such as "x-request-id: 1"."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def json_answer(members: Any, *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> bytes:
    """Return a whole JSON answer."""
    return answer(json.dumps(members).encode(), status=status, headers=headers)


def chat_body(text: str = "Hello.", *, finish_reason: Any = "stop", answer_id: str = "chatcmpl-1") -> dict[str, Any]:
    """Return the members of an OpenAI chat completion with one choice."""
    message = {"role": "assistant", "content": text}
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def chat(text: str = "Hello.", *, headers: tuple[str, ...] = ()) -> bytes:
    """Return a whole answer with a chat completion."""
    return json_answer(chat_body(text, answer_id=f"chatcmpl-{text}"), headers=headers)


def sse_head(*, kind: str = "text/event-stream", headers: tuple[str, ...] = ()) -> bytes:
    """Return the head of a stream whose body goes in chunks."""
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", "Transfer-Encoding: chunked", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def sse(*events: Any) -> bytes:
    """Return events, one chunk each: strings and bytes as the whole event, anything else as `data:` JSON."""
    return b"".join(chunked(_event(event)) for event in events)


def chunked(*parts: bytes, end: bool = False) -> bytes:
    """Return parts as chunks of the chunked coding; `end` adds the last one."""
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return coded + (b"0\r\n\r\n" if end else b"")


LAST = chunked(end=True)
DONE = b"data: [DONE]\n\n"
USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}


def token(text: str = "a", reason: Any = None, index: int = 0) -> dict[str, Any]:
    """Return a chat stream's event with text."""
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]}


def stop(reason: Any = "stop", index: int = 0) -> dict[str, Any]:
    """Return a chat stream's event that ends a choice."""
    return {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}


def _event(event: Any) -> bytes:
    if isinstance(event, bytes):
        return event
    return (event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n").encode()
