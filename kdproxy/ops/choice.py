"""One answer of a call, whatever its dialect: its text, tool calls and finish reason, in OpenAI's words."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

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


@dataclass(slots=True, kw_only=True)
class Choice:
    """One answer of a call."""

    text: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """In the form of OpenAI's chat messages."""
    function_call: dict[str, str] | None = None
    """OpenAI's older form of one tool call."""
    native_reason: Any = None
    """The provider's own finish reason, usually text."""

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, in OpenAI's words."""
        if not isinstance(self.native_reason, str):
            return None
        reason = _REASONS.get(self.native_reason, self.native_reason.lower())
        return "tool_calls" if reason == "stop" and self.tool_calls else reason

    @property
    def says_something(self) -> bool:
        """Whether it has any content to train on."""
        return bool(self.text or self.reasoning or self.refusal or self.tool_calls or self.function_call)

    def add_text(self, text: Any) -> None:
        """Append a piece of text."""
        if isinstance(text, str):
            self.text = (self.text or "") + text

    def add_reasoning(self, text: Any) -> None:
        """Append a piece of the reasoning."""
        if isinstance(text, str):
            self.reasoning = (self.reasoning or "") + text

    def add_refusal(self, text: Any) -> None:
        """Append a piece of a refusal."""
        if isinstance(text, str):
            self.refusal = (self.refusal or "") + text


def call(identity: Any, name: Any, arguments: Any, *, kind: str = "function") -> dict[str, Any]:
    """Return a tool call as a chat message has it; `kind` is `function` or `custom`."""
    given = "input" if kind == "custom" else "arguments"
    return {"id": identity, "type": kind, kind: {"name": name, given: arguments}}


def as_text(value: Any) -> str:
    """Return text unchanged; some servers write a tool call's arguments as an object, which becomes JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else dumped(value)


def dumped(value: Any) -> str:
    """Return a value as JSON on one line."""
    return orjson.dumps(value).decode()


def objects(value: Any) -> Iterable[dict[str, Any]]:
    """Return the objects of a list; an empty list for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def object_of(value: Any) -> dict[str, Any]:
    """Return a value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
