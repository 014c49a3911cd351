"""POST messages: one message, or its blocks as events."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kdproxy.testing.teacher.answer import Json, Reply, Streamed, Whole, dump, typed_events
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.schema import example_of
from kdproxy.testing.teacher.stamp import Stamp, asks_for_tool, texts_of, tokens_of

_OVERHEAD_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An answer before it takes a form."""

    blocks: list[Json]
    stop_reason: str
    produced: int


def answer_message(body: Json, stamp: Stamp) -> Reply:
    for name in ("model", "max_tokens", "messages"):
        if not body.get(name):
            raise bad_request(f"{name}: Field required")
    message = _compose(body, stamp)
    if body.get("stream"):
        return _stream(body, stamp, message)
    return Whole(body=dump(_head(body, stamp, message.blocks, message.stop_reason, _usage(body, message.produced))))


def count_tokens(body: Json) -> Reply:
    return Whole(body=dump({"input_tokens": _asked_tokens(body)}))


def _compose(body: Json, stamp: Stamp) -> Message:
    blocks: list[Json] = []
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        signature = base64.b64encode(stamp.noise(48)).decode()
        thought = f"Let me think about {stamp.digest}."
        blocks.append({"type": "thinking", "thinking": thought, "signature": signature})
    call = _tool_use(body, stamp)
    if call is not None:
        produced = len(tokens_of(dump(call["input"]).decode()))
        return Message(blocks=[*blocks, call], stop_reason="tool_use", produced=produced)
    tokens = _content(body, stamp)
    is_cut = len(tokens) > body["max_tokens"]
    tokens = tokens[: body["max_tokens"]]
    blocks.append({"type": "text", "text": "".join(tokens)})
    return Message(blocks=blocks, stop_reason="max_tokens" if is_cut else "end_turn", produced=len(tokens))


def _content(body: Json, stamp: Stamp) -> list[str]:
    match (body.get("output_config") or {}).get("format"):
        case {"type": "json_schema", "schema": dict(schema)}:
            value = example_of(schema, "".join(stamp.text()))
            return tokens_of(dump(value).decode())
        case _:
            return stamp.text()


def _tool_use(body: Json, stamp: Stamp) -> Json | None:
    tools = [tool for tool in body.get("tools") or () if "input_schema" in tool]
    choice = body.get("tool_choice") or {"type": "auto"}
    is_forced = choice["type"] in ("any", "tool")
    if not tools or choice["type"] == "none" or not (is_forced or asks_for_tool(body["messages"])):
        return None
    tool = next((tool for tool in tools if tool["name"] == choice.get("name")), tools[0])
    value = example_of(tool["input_schema"], "".join(stamp.text()))
    return {"type": "tool_use", "id": f"toolu_{stamp.token}", "name": tool["name"], "input": value or {}}


def _asked_tokens(body: Json) -> int:
    parts = (body.get("system"), body.get("messages"))
    return _OVERHEAD_TOKENS + sum(len(tokens_of(text)) for part in parts for text in texts_of(part))


def _usage(body: Json, produced: int) -> Json:
    return {
        "input_tokens": _asked_tokens(body),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": produced,
        "service_tier": "standard",
    }


def _head(body: Json, stamp: Stamp, content: list[Json], reason: str | None, usage: Json) -> Json:
    return {
        "model": body["model"],
        "id": f"msg_{stamp.token}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "stop_details": None,
        "usage": usage,
    }


def _stream(body: Json, stamp: Stamp, message: Message) -> Streamed:
    lead: list[Json] = [{"type": "message_start", "message": _head(body, stamp, [], None, _usage(body, 1))}]
    for index, block in enumerate(message.blocks):
        lead.extend(_block_events(index, block))
        if index == 0:
            lead.insert(2, {"type": "ping"})
    delta = {"stop_reason": message.stop_reason, "stop_sequence": None}
    finish = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": message.produced}}
    return Streamed(
        lead=typed_events(lead),
        finish=typed_events([finish]),
        terminator=typed_events([{"type": "message_stop"}]),
    )


def _block_events(index: int, block: Json) -> Iterator[Json]:
    opened, deltas = _parts_of(block)
    yield {"type": "content_block_start", "index": index, "content_block": opened}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _parts_of(block: Json) -> tuple[Json, list[Json]]:
    """Return a block as it starts, empty, and the deltas that fill it."""
    deltas: list[Any]
    match block["type"]:
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in tokens_of(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return block | {"thinking": "", "signature": ""}, deltas
        case "tool_use":
            pieces = ["", *tokens_of(dump(block["input"]).decode())]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            return block | {"input": {}}, deltas
        case _:
            deltas = [{"type": "text_delta", "text": piece} for piece in tokens_of(block["text"])]
            return block | {"text": ""}, deltas
