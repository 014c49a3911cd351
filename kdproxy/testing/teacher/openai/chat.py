"""POST chat/completions: one JSON object, or chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kdproxy.testing.teacher.answer import Json, Reply, Streamed, dump, sse, whole
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.openai.tool import calls_of, chat_call
from kdproxy.testing.teacher.openai.usage import chat_usage, token_logprob
from kdproxy.testing.teacher.schema import example_of
from kdproxy.testing.teacher.stamp import Stamp, tokens_of

DONE = b"data: [DONE]\n\n"
FINGERPRINT = "fp_5c0ffee123"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer of n, before it takes a form."""

    index: int
    tokens: list[str]
    reasoning: list[str]
    calls: list[Json]
    finish_reason: str


def answer_chat(body: Json, stamp: Stamp) -> Reply:
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        raise bad_request("Missing required parameter: 'messages'.", param="messages")
    choices = [_choose(body, stamp, index) for index in range(body.get("n") or 1)]
    produced = sum(len(choice.tokens) + len(choice.reasoning) + 9 * len(choice.calls) for choice in choices)
    reasoned = sum(len(choice.reasoning) for choice in choices)
    usage = chat_usage(body, produced, reasoned)
    if body.get("stream"):
        return _stream(body, stamp, choices, usage)
    return whole(_head(body, stamp, "chat.completion", [_whole_choice(c, body) for c in choices], usage))


def _choose(body: Json, stamp: Stamp, index: int) -> Choice:
    calls = calls_of(body, stamp, index)
    tokens = [] if calls else _content(body, stamp, index)
    # DeepSeek's name for a reasoning model's thoughts, beside the content.
    reasoning = tokens_of(f"Let me think about {stamp.digest}.") if "reason" in str(body["model"]) else []
    allowed = body.get("max_completion_tokens") or body.get("max_tokens")
    if allowed is not None and len(tokens) > allowed:
        return Choice(index=index, tokens=tokens[:allowed], reasoning=reasoning, calls=calls, finish_reason="length")
    reason = "tool_calls" if calls else "stop"
    return Choice(index=index, tokens=tokens, reasoning=reasoning, calls=calls, finish_reason=reason)


def _content(body: Json, stamp: Stamp, index: int) -> list[str]:
    match body.get("response_format"):
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            value: Any = example_of(schema, "".join(stamp.text(index)))
        case {"type": "json_object"}:
            value = {"answer": "".join(stamp.text(index))}
        case _:
            return stamp.text(index)
    return tokens_of(dump(value).decode())


def _head(body: Json, stamp: Stamp, kind: str, choices: list[Json], usage: Json | None) -> Json:
    return {
        "id": f"chatcmpl-{stamp.token}",
        "object": kind,
        "created": stamp.created,
        "model": body["model"],
        "choices": choices,
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _whole_choice(choice: Choice, body: Json) -> Json:
    message: Json = {
        "role": "assistant",
        "content": "".join(choice.tokens) if choice.tokens else None,
        "refusal": None,
        "annotations": [],
    }
    if choice.reasoning:
        message["reasoning_content"] = "".join(choice.reasoning)
    if choice.calls:
        message["tool_calls"] = [chat_call(call) for call in choice.calls]
    return {
        "index": choice.index,
        "message": message,
        "logprobs": _logprobs(choice.tokens, body),
        "finish_reason": choice.finish_reason,
    }


def _logprobs(tokens: list[str], body: Json) -> Json | None:
    if not body.get("logprobs"):
        return None
    top = body.get("top_logprobs") or 0
    return {"content": [token_logprob(token, top) for token in tokens], "refusal": None}


def _stream(body: Json, stamp: Stamp, choices: list[Choice], usage: Json) -> Streamed:
    options = body.get("stream_options") or {}
    wants_usage = bool(options.get("include_usage"))
    is_padded = options.get("include_obfuscation", True)

    def chunk(choice: Json) -> bytes:
        value = _head(body, stamp, "chat.completion.chunk", [choice], None)
        if not wants_usage:
            del value["usage"]
        if is_padded:
            # Padding against guessing a token from a packet's size; as long as it likes.
            value["obfuscation"] = stamp.noise(6).hex()[: 12 - len(str(choice["delta"])) % 8]
        return sse(value)

    lead = [chunk(part) for choice in choices for part in _deltas(choice, body)]
    finish = [
        chunk({"index": c.index, "delta": {}, "logprobs": None, "finish_reason": c.finish_reason}) for c in choices
    ]
    if wants_usage:
        value = _head(body, stamp, "chat.completion.chunk", [], usage)
        finish.append(sse(value | {"obfuscation": ""} if is_padded else value))
    return Streamed(lead=tuple(lead), finish=tuple(finish), terminator=(DONE,))


def _deltas(choice: Choice, body: Json) -> Iterator[Json]:
    """Yield the parts of one choice: the role first, then thoughts, text, calls."""

    def part(delta: Json, logprobs: Json | None = None) -> Json:
        return {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    yield part({"role": "assistant", "content": None if choice.calls else "", "refusal": None})
    for token in choice.reasoning:
        yield part({"reasoning_content": token})
    for token in choice.tokens:
        yield part({"content": token}, _logprobs([token], body))
    for position, call in enumerate(choice.calls):
        opening = chat_call(call | {"arguments": ""}) | {"index": position}
        yield part({"tool_calls": [opening]})
        for piece in tokens_of(call["arguments"]):
            yield part({"tool_calls": [{"index": position, "function": {"arguments": piece}}]})
