"""OpenAI's chat and completions, read from a whole answer or a stream's chunks. docs/export.md has the rules."""

from dataclasses import dataclass, field
from typing import Any

from kdproxy.ops.choice import Choice, as_text, object_of, objects
from kdproxy.ops.toolcalls import ToolCalls
from kdproxy.providers.base import integer

_SURE_CHARACTERS = 16
"""Shortest last piece that, if equal to the one piece before it, counts as a repetition and not as chance."""


def read_whole(body: dict[str, Any]) -> list[Choice]:
    """Read an answer that is not a stream. Each member of `choices` is one, in order of index if all differ."""
    given = list(objects(body.get("choices")))
    indexes = [integer(each.get("index")) for each in given]
    if None not in indexes and len(set(indexes)) == len(indexes):
        given.sort(key=lambda each: integer(each.get("index")) or 0)
    growing = [_Growing() for _ in given]
    for each, choice in zip(growing, given, strict=True):
        each.take(choice)
    return [each.finish() for each in growing]


def read_stream(chunks: list[dict[str, Any]]) -> list[Choice]:
    """Read the chunks of a stream."""
    growing: dict[int, _Growing] = {}
    for chunk in chunks:
        for given in objects(chunk.get("choices")):
            growing.setdefault(integer(given.get("index")) or 0, _Growing()).take(given)
    return [growing[index].finish() for index in sorted(growing)]


@dataclass(slots=True)
class _Text:
    """Text in pieces. The last piece may repeat the whole text."""

    pieces: list[str] = field(default_factory=list)
    is_repeat_likely: bool = False
    """Whether the last piece came with or after the finish reason."""

    def add(self, piece: Any, *, is_last: bool) -> None:
        if isinstance(piece, str):
            self.pieces.append(piece)
            self.is_repeat_likely = is_last if piece else self.is_repeat_likely

    def finish(self) -> str | None:
        if not self.pieces:
            return None
        *before, last = [piece for piece in self.pieces if piece] or [""]
        said = "".join(before)
        is_certain = len(before) > 1 or len(last) >= _SURE_CHARACTERS
        if self.is_repeat_likely and is_certain and last == said:
            return said
        return said + last


@dataclass(slots=True)
class _Growing:
    """A choice that may still grow."""

    text: _Text = field(default_factory=_Text)
    reasoning: _Text = field(default_factory=_Text)
    refusal: _Text = field(default_factory=_Text)
    calls: ToolCalls = field(default_factory=ToolCalls)
    function_call: dict[str, str] = field(default_factory=dict)
    reason: Any = None

    def take(self, given: dict[str, Any]) -> None:
        """Add a chunk's choice, or the whole choice of an answer that is not a stream."""
        self.reason = given.get("finish_reason") or self.reason
        is_last = bool(self.reason)
        self.text.add(given.get("text"), is_last=is_last)
        whole = given.get("message")
        if isinstance(whole, dict) and any(whole.get(name) for name in _SAYING):
            # It contains everything that earlier deltas brought.
            self.text, self.reasoning, self.refusal = _Text(), _Text(), _Text()
            self.calls, self.function_call = ToolCalls(), {}
            self._message(whole, is_last=False)
            for each in objects(whole.get("tool_calls")):
                self.calls.add_whole(each)
            return
        delta = object_of(given.get("delta") or whole)
        self._message(delta, is_last=is_last)
        for each in objects(delta.get("tool_calls")):
            self.calls.add_piece(each, is_last=is_last)

    def _message(self, message: dict[str, Any], *, is_last: bool) -> None:
        self.reasoning.add(_reasoning(message), is_last=is_last)
        content = message.get("content")
        self.text.add(content, is_last=is_last)
        for part in objects(content):
            if part.get("type") in ("thinking", "reasoning"):
                self.reasoning.add(_thinking(part), is_last=is_last)
            else:
                self.text.add(part.get("text"), is_last=is_last)
        self.refusal.add(message.get("refusal"), is_last=is_last)
        function = message.get("function_call")
        if isinstance(function, dict):
            for name in ("name", "arguments"):
                self.function_call[name] = self.function_call.get(name, "") + as_text(function.get(name))

    def finish(self) -> Choice:
        """Return the choice so far."""
        return Choice(
            text=self.text.finish(),
            reasoning=self.reasoning.finish(),
            refusal=self.refusal.finish(),
            tool_calls=self.calls.finish(),
            function_call=self.function_call or None,
            native_reason=self.reason,
        )


_SAYING = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "reasoning_details")


def _reasoning(message: dict[str, Any]) -> str | None:
    """Return the reasoning: DeepSeek's and vLLM's member, OpenRouter's and Groq's, or OpenRouter's details."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            return str(message[name])
    details = [part.get("text") or part.get("summary") for part in objects(message.get("reasoning_details"))]
    return "".join(part for part in details if isinstance(part, str)) or None


def _thinking(part: dict[str, Any]) -> str | None:
    """Return the reasoning of a content part: text (Anthropic's gateways), or parts of text (Mistral)."""
    given = part.get("thinking") or part.get("text")
    if isinstance(given, list):
        given = "".join(as_text(each.get("text")) for each in objects(given))
    return given if isinstance(given, str) else None
