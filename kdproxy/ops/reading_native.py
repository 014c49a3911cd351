"""Anthropic's messages and Gemini's candidates, read from a whole answer or from the events of a stream."""

from typing import Any

import orjson

from kdproxy.ops.choice import Choice, as_text, call, dumped, object_of, objects
from kdproxy.providers.base import integer


def read_messages(parts: list[dict[str, Any]]) -> list[Choice]:
    """Anthropic: content blocks whole, or their starts and deltas."""
    choice = Choice()
    blocks: dict[int, dict[str, Any]] = {}
    for part in parts:
        match part.get("type"):
            case "message_start":
                # Empty at Anthropic; compatible servers may begin with content.
                blocks = {place: dict(block) for place, block in enumerate(_content(part.get("message")))}
            case "content_block_start":
                blocks[_place(part, len(blocks))] = dict(object_of(part.get("content_block")))
            case "content_block_delta":
                _grow(blocks.setdefault(_place(part, len(blocks) - 1), {}), object_of(part.get("delta")))
            case "message_delta":
                choice.native_reason = object_of(part.get("delta")).get("stop_reason") or choice.native_reason
            case "message_stop" | "content_block_stop" | "ping":
                pass
            case _:
                blocks = dict(enumerate(_content(part)))
                choice.native_reason = part.get("stop_reason")
    for index in sorted(blocks):
        _add_block(choice, blocks[index])
    return [choice]


def _content(message: Any) -> list[dict[str, Any]]:
    return list(objects(object_of(message).get("content")))


def _place(part: dict[str, Any], otherwise: int) -> int:
    """Return which content block an event speaks of."""
    index = integer(part.get("index"))
    return otherwise if index is None else index


_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_BLOCKS = {"text": "text", "thinking": "thinking", "partial_json": "tool_use"}


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in _DELTAS.values():
        if isinstance(delta.get(name), str):
            block[name] = as_text(block.get(name)) + delta[name]
            block.setdefault("type", _BLOCKS[name])


def _add_block(choice: Choice, block: dict[str, Any]) -> None:
    match block.get("type"):
        case "text":
            choice.add_text(block.get("text"))
        case "thinking":
            choice.add_reasoning(block.get("thinking"))
        case "tool_use":
            given = block.get("partial_json")
            arguments = _one_line(given) if given else dumped(block.get("input") or {})
            choice.tool_calls.append(call(block.get("id"), block.get("name"), arguments))


def _one_line(text: str) -> str:
    """Write arguments as the message's own `input` would be written; as they are, if they are cut."""
    try:
        return dumped(orjson.loads(text))
    except orjson.JSONDecodeError:
        return text


def read_candidates(parts: list[dict[str, Any]]) -> list[Choice]:
    """Gemini: candidates whole, or in chunks of the same shape."""
    choices: dict[int, Choice] = {}
    for part in parts:
        for candidate in objects(part.get("candidates")):
            choice = choices.setdefault(integer(candidate.get("index")) or 0, Choice())
            choice.native_reason = candidate.get("finishReason") or choice.native_reason
            for piece in objects(object_of(candidate.get("content")).get("parts")):
                if piece.get("thought"):
                    choice.add_reasoning(piece.get("text"))
                else:
                    choice.add_text(piece.get("text"))
                given = piece.get("functionCall")
                if isinstance(given, dict):
                    arguments = dumped(given.get("args") or {})
                    choice.tool_calls.append(call(given.get("id"), given.get("name"), arguments))
    return [choices[index] for index in sorted(choices)]
