"""What a stored answer says: the text, tool calls and finish reason of each choice, whatever its dialect and form.

Finish reasons are told in OpenAI's words (stop, length, tool_calls, content_filter); the provider's own is kept beside.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from kdproxy.core import sse
from kdproxy.core.models import Answer, Entry, Form
from kdproxy.providers.base import integer, json_object

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "STOP": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "max_output_tokens": "length",
    "MAX_TOKENS": "length",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "refusal": "content_filter",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
}

_MOST_CALLS = 1_000
"""A tool call that says it is one of more than these is nonsense."""


@dataclass(slots=True, kw_only=True)
class Choice:
    """One answer of a call."""

    text: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """In the form of OpenAI's chat messages."""
    native_reason: Any = None
    """As the provider said it: text, where it keeps to its own words."""

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, in OpenAI's words."""
        if not isinstance(self.native_reason, str):
            return None
        reason = _REASONS.get(self.native_reason, self.native_reason.lower())
        return "tool_calls" if reason == "stop" and self.tool_calls else reason

    def add_text(self, text: Any) -> None:
        """Append a piece of text."""
        if isinstance(text, str):
            self.text = (self.text or "") + text

    def add_reasoning(self, text: Any) -> None:
        """Append a piece of what the model thought."""
        if isinstance(text, str):
            self.reasoning = (self.reasoning or "") + text

    def add_refusal(self, text: Any) -> None:
        """Append a piece of a refusal."""
        if isinstance(text, str):
            self.refusal = (self.refusal or "") + text


def choices_of(entry: Entry) -> list[Choice]:
    """Return the choices of a stored answer; none where it is not a conversation's (embeddings, images, ...)."""
    reader = _READERS.get((entry.provider, entry.endpoint))
    return [] if reader is None else reader(_parts(entry.answer))


def choices_of_body(body: Mapping[str, Any]) -> list[Choice]:
    """Return the choices of a provider's JSON reply, its dialect told by its shape; none if it has no known one."""
    for name, reader in (("choices", _chat), ("candidates", _gemini), ("output", _responses), ("content", _messages)):
        if isinstance(body.get(name), list):
            return reader([dict(body)])
    return []


def _parts(answer: Answer) -> list[dict[str, Any]]:
    """Return the JSON objects of a recording: one, or one for each event."""
    if answer.form is not Form.SSE:
        members = json_object(answer.body)
        return [] if members is None else [members]
    found = (json_object(piece.data) for piece in sse.pieces(answer.body) if piece.data)
    return [members for members in found if members is not None]


def _objects(value: Any) -> Iterable[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _in_order(choices: dict[int, Choice]) -> list[Choice]:
    return [choices[index] for index in sorted(choices)]


def _chat(parts: list[dict[str, Any]]) -> list[Choice]:
    """Chat and completions: a message whole, or its deltas."""
    choices: dict[int, Choice] = {}
    for part in parts:
        for given in _objects(part.get("choices")):
            choice = choices.setdefault(integer(given.get("index")) or 0, Choice())
            choice.native_reason = given.get("finish_reason") or choice.native_reason
            choice.add_text(given.get("text"))
            message = _object(given.get("message") or given.get("delta"))
            choice.add_text(message.get("content"))
            choice.add_refusal(message.get("refusal"))
            choice.add_reasoning(message.get("reasoning_content") or message.get("reasoning"))
            for call in _objects(message.get("tool_calls")):
                _merge_call(choice.tool_calls, call)
    return _in_order(choices)


def _merge_call(calls: list[dict[str, Any]], given: dict[str, Any]) -> None:
    """Lay a tool call, or a piece of one, onto those already there."""
    index = given.get("index", len(calls))
    if not isinstance(index, int) or not 0 <= index <= _MOST_CALLS:
        return
    while len(calls) <= index:
        calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    call["id"] = given.get("id") or call["id"]
    if given.get("type") == "custom" and "custom" not in call:
        del call["function"]
        call.update({"type": "custom", "custom": {"name": "", "input": ""}})
    # Only its first piece says what kind it is.
    kind = "custom" if "custom" in call else "function"
    piece = _object(given.get(kind))
    for name in call[kind]:
        call[kind][name] += _as_text(piece.get(name))


def _call(identity: Any, name: Any, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _messages(parts: list[dict[str, Any]]) -> list[Choice]:
    """Anthropic: content blocks whole, or their starts and deltas."""
    choice = Choice()
    blocks: dict[int, dict[str, Any]] = {}
    for part in parts:
        match part.get("type"):
            case "content_block_start":
                blocks[_place(part, len(blocks))] = dict(_object(part.get("content_block")))
            case "content_block_delta":
                _grow(blocks.setdefault(_place(part, len(blocks) - 1), {}), _object(part.get("delta")))
            case "message_delta":
                choice.native_reason = _object(part.get("delta")).get("stop_reason") or choice.native_reason
            case "message_start" | "message_stop" | "content_block_stop" | "ping":
                pass
            case _:
                blocks = dict(enumerate(_objects(part.get("content"))))
                choice.native_reason = part.get("stop_reason")
    for index in sorted(blocks):
        _add_block(choice, blocks[index])
    return [choice]


def _place(part: dict[str, Any], otherwise: int) -> int:
    """Return which content block an event speaks of."""
    index = integer(part.get("index"))
    return otherwise if index is None else index


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in ("text", "thinking", "partial_json"):
        if isinstance(delta.get(name), str):
            block[name] = _as_text(block.get(name)) + delta[name]


def _add_block(choice: Choice, block: dict[str, Any]) -> None:
    match block.get("type"):
        case "text":
            choice.add_text(block.get("text"))
        case "thinking":
            choice.add_reasoning(block.get("thinking"))
        case "tool_use":
            arguments = block.get("partial_json") or _dumped(block.get("input") or {})
            choice.tool_calls.append(_call(block.get("id"), block.get("name"), arguments))


def _gemini(parts: list[dict[str, Any]]) -> list[Choice]:
    """Gemini: candidates whole, or in chunks of the same shape."""
    choices: dict[int, Choice] = {}
    for part in parts:
        for candidate in _objects(part.get("candidates")):
            choice = choices.setdefault(integer(candidate.get("index")) or 0, Choice())
            choice.native_reason = candidate.get("finishReason") or choice.native_reason
            for piece in _objects(_object(candidate.get("content")).get("parts")):
                if piece.get("thought"):
                    choice.add_reasoning(piece.get("text"))
                else:
                    choice.add_text(piece.get("text"))
                call = piece.get("functionCall")
                if isinstance(call, dict):
                    arguments = _dumped(call.get("args") or {})
                    choice.tool_calls.append(_call(call.get("id"), call.get("name"), arguments))
    return _in_order(choices)


def _responses(parts: list[dict[str, Any]]) -> list[Choice]:
    """Responses: the object whole, as itself or in the stream's last event."""
    whole = [_object(part.get("response")) or part for part in parts]
    final = next((part for part in reversed(whole) if part.get("status") in ("completed", "incomplete")), None)
    if final is None:
        return []
    details = _object(final.get("incomplete_details"))
    choice = Choice(native_reason=details.get("reason") or final["status"])
    for item in _objects(final.get("output")):
        match item.get("type"):
            case "message":
                for block in _objects(item.get("content")):
                    choice.add_text(block.get("text"))
                    choice.add_refusal(block.get("refusal"))
            case "reasoning":
                for block in _objects(item.get("summary")):
                    choice.add_reasoning(block.get("text"))
            case "function_call":
                choice.tool_calls.append(_call(item.get("call_id"), item.get("name"), item.get("arguments") or ""))
    return [choice]


def _as_text(value: Any) -> str:
    """Return text as it is; some servers write a tool call's arguments as an object."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _dumped(value)


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()


_READERS: dict[tuple[str, str], Callable[[list[dict[str, Any]]], list[Choice]]] = {
    ("openai", "chat.completions"): _chat,
    ("openai", "completions"): _chat,
    ("openai", "responses"): _responses,
    ("anthropic", "messages"): _messages,
    ("gemini", "generateContent"): _gemini,
}
