"""Anthropic's messages and Gemini's candidates, read from a whole answer or from the events of a stream."""

import re
from typing import Any

import orjson

from kdproxy.ops.choice import Choice, as_text, call, dumped, object_of, objects
from kdproxy.providers.base import integer


def read_messages(parts: list[dict[str, Any]]) -> list[Choice]:
    """Anthropic: content blocks whole, or their starts and deltas.

    A start begins a block even where its index is taken: compatible servers give all of them 0.
    """
    choice = Choice()
    blocks: list[dict[str, Any]] = []
    open_blocks: dict[int | None, dict[str, Any]] = {}
    for part in parts:
        match part.get("type"):
            case "message_start":
                # Empty from Anthropic; compatible servers may start with content.
                blocks = [dict(block) for block in _content(part.get("message"))]
            case "content_block_start":
                blocks.append(dict(object_of(part.get("content_block"))))
                open_blocks[integer(part.get("index"))] = blocks[-1]
            case "content_block_delta":
                block = open_blocks.get(integer(part.get("index"))) or (blocks[-1] if blocks else None)
                if block is None:
                    blocks.append(block := {})
                _grow(block, object_of(part.get("delta")))
            case "message_delta":
                choice.native_reason = object_of(part.get("delta")).get("stop_reason") or choice.native_reason
            case "message_stop" | "content_block_stop" | "ping":
                pass
            case _:
                blocks = _content(part)
                choice.native_reason = part.get("stop_reason")
    for block in blocks:
        _add_block(choice, block)
    return [choice]


def _content(message: Any) -> list[dict[str, Any]]:
    return list(objects(object_of(message).get("content")))


_MOST_ITEMS = 1_000
"""A longer list of arguments is treated as damage."""
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
    """Write arguments as the message's `input` would be written; unchanged if they are cut off."""
    try:
        return dumped(orjson.loads(text))
    except orjson.JSONDecodeError:
        return text


def read_candidates(parts: list[dict[str, Any]]) -> list[Choice]:
    """Gemini: candidates whole, or in chunks of the same shape."""
    choices: dict[int, Choice] = {}
    calls: dict[int, list[dict[str, Any]]] = {}
    for part in parts:
        for candidate in objects(part.get("candidates")):
            index = integer(candidate.get("index")) or 0
            choice = choices.setdefault(index, Choice())
            choice.native_reason = candidate.get("finishReason") or choice.native_reason
            for piece in objects(object_of(candidate.get("content")).get("parts")):
                if piece.get("thought"):
                    choice.add_reasoning(piece.get("text"))
                else:
                    choice.add_text(piece.get("text"))
                if isinstance(piece.get("functionCall"), dict):
                    _add_function_call(calls.setdefault(index, []), piece["functionCall"])
    for index, made in calls.items():
        choices[index].tool_calls = [call(each.get("id"), each.get("name"), dumped(each["args"])) for each in made]
    return [choices[index] for index in sorted(choices)]


def _add_function_call(calls: list[dict[str, Any]], given: dict[str, Any]) -> None:
    """Take a call, or a piece of one (Vertex' streamFunctionCallArguments): only its first piece has a name."""
    if given.get("name"):
        calls.append({**given, "args": dict(object_of(given.get("args")))})
    for piece in objects(given.get("partialArgs")) if calls else ():
        _put(calls[-1]["args"], _PATH_STEP.findall(as_text(piece.get("jsonPath"))), piece)


_PATH_STEP = re.compile(r"\.?([^.\[\]$'\"]+)")
_VALUES = ("stringValue", "numberValue", "boolValue")


def _put(holder: Any, path: list[str], piece: dict[str, Any]) -> None:
    """Write a value at a JSON path such as `$.city` or `$.days[0]`; text is appended to existing text."""
    value = next((piece[name] for name in _VALUES if name in piece), None)
    while len(path) > 1:
        step, following = path[0], path[1]
        holder = _step(holder, step, [] if following.isdigit() else {})
        path = path[1:]
    if not path or holder is None:
        return
    known = _step(holder, path[0], None)
    text = known + value if isinstance(known, str) and isinstance(value, str) else value
    if isinstance(holder, list):
        holder[int(path[0])] = text
    else:
        holder[path[0]] = text


def _step(holder: Any, step: str, otherwise: Any) -> Any:
    """Return the value at a step; create it if it is missing."""
    if isinstance(holder, list):
        if not step.isdigit() or int(step) > _MOST_ITEMS:
            return None
        holder.extend([None] * (int(step) + 1 - len(holder)))
        holder[int(step)] = otherwise if holder[int(step)] is None else holder[int(step)]
        return holder[int(step)]
    return holder.setdefault(step, otherwise) if isinstance(holder, dict) else None
