"""The work of every figure: numbered chat requests of 1 KB, and replies of 1.5 KB that repeat the number.

The number comes back in the reply, so that the load can check that each request got its own answer.
"""

from dataclasses import dataclass

import orjson

PATH = "/v1/chat/completions"
MODEL = "teacher-1"
UPSTREAM = "teacher"
REQUEST_BYTES = 1_024
REPLY_BYTES = 1_536
EVENTS = 12
"""Of a streamed reply, `[DONE]` included."""

FIRST_TOKEN = b'"content":"Answer '
"""What the first event of a streamed reply with text in it holds, and the role before it does not."""

_NUMBER = "#########"
_FILLER = (
    "You are a careful teacher. Explain the steps in order, name what each of them needs, and give the result at the "
    "end in one sentence; where something is not known, say that it is not known rather than to guess. "
)


def number_text(number: int) -> bytes:
    """Return the digits that stand in a request and in its reply."""
    return b"%09d" % number


@dataclass(frozen=True, slots=True)
class Template:
    """Bytes with room for a request's number."""

    parts: tuple[bytes, ...]

    @classmethod
    def of(cls, text: bytes) -> "Template":
        """Split at the place-holders."""
        return cls(tuple(text.split(_NUMBER.encode())))

    def fill(self, number: int) -> bytes:
        """Return the bytes for a number."""
        return number_text(number).join(self.parts)


def request_body(*, is_stream: bool = False, temperature: int = 0) -> Template:
    """Return a chat request of exactly 1 KB as openai-python writes it."""

    def body(filler: str) -> bytes:
        members = {
            "messages": [
                {"role": "system", "content": filler},
                {"role": "user", "content": f"Question {_NUMBER}: what follows from it?"},
            ],
            "model": MODEL,
            "temperature": temperature,
        }
        return orjson.dumps({**members, "stream": True} if is_stream else members)

    return Template.of(body(_padding(REQUEST_BYTES - len(body("")))))


def request(host: str, *, is_stream: bool = False, temperature: int = 0, place: str = "") -> Template:
    """Return a whole HTTP request, keep-alive; `place` comes before its path."""
    body = request_body(is_stream=is_stream, temperature=temperature)
    length = sum(map(len, body.parts)) + len(_NUMBER) * (len(body.parts) - 1)
    head = (
        f"POST {place}{PATH} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
        f"Authorization: Bearer none\r\nContent-Type: application/json\r\nUser-Agent: benchmark/1\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    return Template((head.encode() + body.parts[0], *body.parts[1:]))


def reply_body() -> Template:
    """Return a chat completion of exactly 1.5 KB."""

    def body(filler: str) -> bytes:
        message = {"role": "assistant", "content": f"Answer {_NUMBER}. {filler}", "refusal": None}
        return orjson.dumps(
            {
                "id": f"chatcmpl-{_NUMBER}",
                "object": "chat.completion",
                "created": 1_760_000_000,
                "model": MODEL,
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 210, "completion_tokens": 240, "total_tokens": 450},
            }
        )

    return Template.of(body(_padding(REPLY_BYTES - len(body("")))))


def reply_events() -> list[Template]:
    """Return the events of a streamed reply."""
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f"Answer {_NUMBER} part {part:02d}. "} for part in range(EVENTS - 3)]
    rows: list[tuple[dict[str, str], str | None]] = [*((delta, None) for delta in deltas), ({}, "stop")]
    events = []
    for delta, reason in rows:
        chunk = {
            "id": f"chatcmpl-{_NUMBER}",
            "object": "chat.completion.chunk",
            "created": 1_760_000_000,
            "model": MODEL,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
        }
        events.append(Template.of(b"data: " + orjson.dumps(chunk) + b"\n\n"))
    return [*events, Template.of(b"data: [DONE]\n\n")]


def _padding(size: int) -> str:
    return (_FILLER * (size // len(_FILLER) + 1))[:size]
