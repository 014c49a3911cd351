"""Reads a stored answer of any dialect and form: text, tool calls and finish reason of each choice.

Finish reasons use OpenAI's words (stop, length, tool_calls, content_filter); the provider's own is available too.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kdproxy.core import sse
from kdproxy.core.models import Entry, Form
from kdproxy.ops import reading_chat
from kdproxy.ops.choice import Choice
from kdproxy.ops.reading_interaction import read_interaction
from kdproxy.ops.reading_native import read_candidates, read_messages
from kdproxy.ops.reading_responses import read_responses
from kdproxy.providers.base import ONE_ANSWER, answer_json, is_done
from kdproxy.providers.question import endpoint_named

__all__ = ["Choice", "choices_of", "choices_of_body"]


def choices_of(entry: Entry) -> list[Choice]:
    """Return the choices of a stored answer; none if it is not a conversation (embeddings, images, ...)."""
    reader = _READERS.get((entry.provider, entry.endpoint))
    if reader is None:
        return []
    choices = reader(_parts(entry))
    for choice in choices:
        choice.text, choice.reasoning, choice.refusal = map(_joined, (choice.text, choice.reasoning, choice.refusal))
        choice.tool_calls = [_joined_members(call) for call in choice.tool_calls]
    return choices


def choices_of_body(body: Mapping[str, Any]) -> list[Choice]:
    """Return the choices of a provider's JSON reply, detecting its dialect by its shape; none if it is unknown."""
    for name, reader in _SHAPES:
        if isinstance(body.get(name), list):
            return reader([dict(body)])
    return []


def _parts(entry: Entry) -> list[dict[str, Any]]:
    """Return the JSON objects of a recording: a single one, one per event, or those of an array (Gemini)."""
    if entry.answer.form is not Form.SSE:
        found = answer_json(entry.answer.body)
        rows = found if isinstance(found, list) else [found]
    else:
        rows = [answer_json(piece.data) for piece in _first_answer(entry) if piece.data]
    return [row for row in rows if isinstance(row, dict)]


def _first_answer(entry: Entry) -> Iterator[sse.Piece]:
    """Yield the events up to the end of the first whole answer: what a gateway sends behind it is another one."""
    dialect = (entry.provider, entry.endpoint)
    judge = endpoint_named(*dialect).judge_stream(ONE_ANSWER) if dialect in _ENDED_BY_EVENT else None
    for piece in sse.pieces(entry.answer.body):
        if is_done(piece.data):
            return
        yield piece
        if judge is not None:
            judge.take(piece)
            if judge.is_over:
                return


def _joined(text: str | None) -> str | None:
    """Join characters that were split over two chunks; a half without its other half is replaced."""
    return None if text is None else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _joined_members(members: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _joined(value) if isinstance(value, str) else _joined_members(value) if isinstance(value, dict) else value
        for name, value in members.items()
    }


def _chat(parts: list[dict[str, Any]]) -> list[Choice]:
    return reading_chat.read_whole(parts[0]) if len(parts) == 1 else reading_chat.read_stream(parts)


_Reader = Callable[[list[dict[str, Any]]], list[Choice]]
_READERS: dict[tuple[str, str], _Reader] = {
    ("openai", "chat.completions"): _chat,
    ("openai", "completions"): _chat,
    ("openai", "responses"): read_responses,
    ("anthropic", "messages"): read_messages,
    ("gemini", "generateContent"): read_candidates,
    ("gemini", "interactions"): read_interaction,
}
_ENDED_BY_EVENT = frozenset({("openai", "responses"), ("anthropic", "messages"), ("gemini", "interactions")})
"""Dialects with a terminal event other than `[DONE]`."""
_SHAPES: tuple[tuple[str, _Reader], ...] = (
    ("choices", _chat),
    ("candidates", read_candidates),
    ("output", read_responses),
    ("content", read_messages),
)
