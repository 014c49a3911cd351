"""One message, rendered as each provider's JSON and as any chunking of its stream, with the quirks that servers have:
`export` gives the same row. Where the official clients put streams together, they give it too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import assume, given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from pydantic import TypeAdapter

from kdproxy.core.models import Answer, Form
from kdproxy.ops.training import rows
from tests.kdproxy.sample import ENTRY

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)
NAME = st.sampled_from(["weather", "look_up", "f"])
ARGUMENTS = st.dictionaries(
    st.sampled_from(["city", "n", "when"]), TEXT | st.integers(0, 99) | st.booleans(), max_size=3
)
CALLS = st.lists(st.tuples(NAME, ARGUMENTS), max_size=3)
Chunks = list[dict[str, Any]]


def dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


@st.composite
def messages(draw: Callable[..., Any]) -> dict[str, Any]:
    """What the assistant said, as a chat message holds it."""
    calls = [
        {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": dumps(arguments)}}
        for place, (name, arguments) in enumerate(draw(CALLS))
    ]
    text = draw(TEXT | st.none()) if calls else draw(TEXT)
    said: dict[str, Any] = {"role": "assistant", "content": text}
    thoughts = draw(st.none() | TEXT)
    if thoughts is not None:
        said["reasoning_content"] = thoughts
    return {**said, "tool_calls": calls} if calls else said


def pieces_of(text: str, draw: Callable[..., Any]) -> list[str]:
    """Cut a text anywhere, at most into four."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def row_of(body: bytes, *, form: Form = Form.SSE, provider: str = "openai", endpoint: str = "chat.completions") -> Any:
    request = {"messages": [], "input": [], "contents": []}
    asked = {"openai": {"messages": [{"role": "user", "content": "?"}]}}.get(provider, request)
    if endpoint == "responses":
        asked = {"input": "?"}
    elif provider == "anthropic":
        asked = {"messages": [{"role": "user", "content": "?"}]}
    elif provider == "gemini":
        asked = {"contents": [{"parts": [{"text": "?"}]}]}
    entry = ENTRY._replace(
        provider=provider,
        endpoint=endpoint,
        request=orjson.dumps(asked),
        answer=Answer(status=200, headers=(), body=body, form=form),
    )
    (row,) = rows(entry)
    return row["messages"][-1], row["finish_reason"]


def framed(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(b"event: x\ndata: %b\n\n" % orjson.dumps(event) for event in events)


def expected(said: dict[str, Any]) -> tuple[dict[str, Any], str]:
    return said, "tool_calls" if said.get("tool_calls") else "stop"


# -- OpenAI's dialect -----------------------------------------------------------------------------------------------


@st.composite
def chat_deltas(draw: Callable[..., Any], said: dict[str, Any], quirks: set[str]) -> Chunks:
    deltas: Chunks = [{"role": "assistant", "content": None if said["content"] is None else ""}]
    for name in ("reasoning_content", "content"):
        for part in pieces_of(said.get(name) or "", draw):
            given: Any = part
            if "parts" in quirks and part:
                thinking = {"type": "thinking", "thinking": [{"type": "text", "text": part}]}
                given = [thinking if name == "reasoning_content" else {"type": "text", "text": part}]
            deltas += [{"content" if "parts" in quirks else name: given}] if part else []
    for place, call in enumerate(said.get("tool_calls", [])):
        parts = pieces_of(call["function"]["arguments"], draw)
        head = {"id": call["id"], "type": "function"}
        for number, part in enumerate(parts):
            piece: dict[str, Any] = {"index": place, "function": {"arguments": part}}
            if number == 0 or "names repeated" in quirks:
                piece = {**piece, **head, "function": {"name": call["function"]["name"], "arguments": part}}
            if "index 0" in quirks:
                piece["index"] = 0
            elif "index from 1" in quirks:
                piece["index"] += 1
            elif "no index" in quirks:
                del piece["index"]
            deltas.append({"tool_calls": [piece]})
    if "repeated" in quirks:
        calls = [{"index": place, **call} for place, call in enumerate(said.get("tool_calls", []))]
        deltas.append({**said, "tool_calls": calls} if calls else said)
    return deltas


def chat_chunks(deltas: Chunks, reason: str, *, apart: bool) -> Chunks:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    ends = [*[None] * (len(deltas) - 1), None if apart else reason]
    choices = [{"index": 0, "delta": delta, "finish_reason": end} for delta, end in zip(deltas, ends, strict=True)]
    if apart:
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    return [{**base, "choices": [choice]} for choice in choices]


def told_in(delta: dict[str, Any]) -> tuple[str, str]:
    """Return the text and the thoughts of a delta, in parts or not."""
    content = delta.get("content") or ""
    if isinstance(content, str):
        return content, delta.get("reasoning_content") or ""
    thoughts = "".join(each["text"] for part in content for each in part.get("thinking", []))
    return "".join(part.get("text", "") for part in content), thoughts


def looks_repeated(deltas: Chunks) -> bool:
    """Whether the last piece happens to say all that came before it: nobody can tell that from a repeated message."""
    for told in zip(*map(told_in, deltas), strict=True):
        *before, last = ["", *filter(None, told)]
        if before[1:] and last == "".join(before):
            return True
    return False


def has_told_enough(said: dict[str, Any], deltas: Chunks) -> bool:
    """Whether a repeated message can be told from text that goes on: `ha` after `ha` may be `haha`."""
    told = {name: [delta for delta in deltas[:-1] if delta.get(name)] for name in ("content", "reasoning_content")}
    return all(len(pieces) > 1 or len(said.get(name) or "") not in range(1, 16) for name, pieces in told.items())


@given(messages(), st.data())
def test_chat_in_any_chunks_is_what_its_json_holds(said: dict[str, Any], data: st.DataObject) -> None:
    quirk = st.sampled_from(["names repeated", "index 0", "index from 1", "no index", "parts"])
    deltas = data.draw(chat_deltas(said, data.draw(st.sets(quirk, max_size=3))))
    assume(not looks_repeated(deltas))
    row, reason = expected(said)
    body = framed(chat_chunks(deltas, reason, apart=data.draw(st.booleans()))) + b"data: [DONE]\n\n"
    whole = {"choices": [{"index": 0, "message": said, "finish_reason": reason}]}
    assert row_of(orjson.dumps(whole), form=Form.JSON) == (row, reason)
    assert row_of(body) == (row, reason)


@given(messages(), st.data())
def test_a_last_chunk_that_repeats_it_all_adds_nothing(said: dict[str, Any], data: st.DataObject) -> None:
    deltas = data.draw(chat_deltas(said, {"repeated"}))
    row, reason = expected(said)
    assume(has_told_enough(said, deltas))
    assert row_of(framed(chat_chunks(deltas, reason, apart=False))) == (row, reason)


@given(messages(), st.data())
def test_the_official_client_of_openai_says_the_same(said: dict[str, Any], data: st.DataObject) -> None:
    deltas = data.draw(chat_deltas(said, set()))
    assume(not looks_repeated(deltas))
    chunks = chat_chunks(deltas, expected(said)[1], apart=data.draw(st.booleans()))
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    found = state.get_final_completion().choices[0]
    row, reason = row_of(framed(chunks))
    assert (row.get("content") or None, reason) == (found.message.content or None, found.finish_reason)
    calls = [
        {"id": call.id, "type": "function", "function": call.function.model_dump(include={"name", "arguments"})}
        for call in found.message.tool_calls or []
    ]
    assert row.get("tool_calls", []) == calls


# -- Responses ------------------------------------------------------------------------------------------------------


def items_of(said: dict[str, Any]) -> Chunks:
    items: Chunks = []
    if "reasoning_content" in said:
        items.append({"type": "reasoning", "summary": [{"type": "summary_text", "text": said["reasoning_content"]}]})
    if said["content"] is not None:
        items.append({"type": "message", "content": [{"type": "output_text", "text": said["content"]}]})
    for call in said.get("tool_calls", []):
        items.append({"type": "function_call", "call_id": call["id"], **call["function"]})
    return items


@given(messages(), st.data())
def test_responses_in_any_chunks_are_what_their_json_holds(said: dict[str, Any], data: st.DataObject) -> None:
    items = items_of(said)
    events: Chunks = []
    for place, item in enumerate(items):
        text = {
            "reasoning": ("reasoning_summary_text", "summary"),
            "message": ("output_text", "content"),
            "function_call": ("function_call_arguments", "arguments"),
        }[item["type"]]
        name, member = text
        told = item[member] if member == "arguments" else item[member][0]["text"]
        start = {**item, member: "" if member == "arguments" else []}
        events.append({"type": "response.output_item.added", "output_index": place, "item": start})
        for part in pieces_of(told, data.draw):
            events.append({"type": f"response.{name}.delta", "output_index": place, "delta": part})
        if data.draw(st.booleans()):
            events.append({"type": "response.output_item.done", "output_index": place, "item": item})
    final = {"object": "response", "status": "completed", "output": items}
    told_at_the_end = data.draw(st.sampled_from([items, []]))
    events.append({"type": "response.completed", "response": {**final, "output": told_at_the_end}})
    assert row_of(orjson.dumps(final), form=Form.JSON, endpoint="responses") == expected(said)
    assert row_of(framed(events), endpoint="responses") == expected(said)


# -- Anthropic, Gemini ----------------------------------------------------------------------------------------------


def blocks_of(said: dict[str, Any]) -> Chunks:
    blocks: Chunks = []
    if "reasoning_content" in said:
        blocks.append({"type": "thinking", "thinking": said["reasoning_content"], "signature": "c2ln"})
        blocks.append({"type": "redacted_thinking", "data": "eHl6"})
    if said["content"] is not None:
        blocks.append({"type": "text", "text": said["content"]})
    for call in said.get("tool_calls", []):
        function = call["function"]
        given = orjson.loads(function["arguments"])
        blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": given})
    return blocks


EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


@given(messages(), st.data())
def test_anthropic_in_any_chunks_is_what_its_json_holds(said: dict[str, Any], data: st.DataObject) -> None:
    reason = "tool_use" if said.get("tool_calls") else "end_turn"
    blocks = blocks_of(said)
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None, "usage": usage}
    whole = {**message, "content": blocks, "stop_reason": reason}
    events: Chunks = [{"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}]
    for place, block in enumerate(blocks):
        kind = {"thinking": "thinking", "text": "text", "tool_use": "input"}.get(block["type"])
        start = block if kind is None else {**block, kind: {} if kind == "input" else ""}
        events.append({"type": "content_block_start", "index": place, "content_block": start})
        if kind is not None:
            told = block[kind] if kind != "input" else dumps(block["input"])
            delta = {"thinking": "thinking_delta", "text": "text_delta", "input": "input_json_delta"}[kind]
            name = "partial_json" if kind == "input" else kind
            for part in pieces_of(told, data.draw):
                given_delta = {"type": delta, name: part}
                events.append({"type": "content_block_delta", "index": place, "delta": given_delta})
        events.append({"type": "content_block_stop", "index": place})
    events.append({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage})
    events.append({"type": "message_stop"})
    where = {"provider": "anthropic", "endpoint": "messages"}
    assert row_of(orjson.dumps(whole), form=Form.JSON, **where) == expected(said)
    assert row_of(framed(events), **where) == expected(said)
    # what Anthropic's own client makes of the same events
    snapshot, buffers = None, dict[int, bytes]()
    for event in events:
        snapshot = accumulate_event(event=EVENT.validate_python(event), current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    official = {**whole, "content": [block.model_dump(exclude_none=True) for block in snapshot.content]}
    assert row_of(orjson.dumps(official), form=Form.JSON, **where) == expected(said)


@given(messages(), st.data())
def test_gemini_in_any_chunks_is_what_its_json_holds(said: dict[str, Any], data: st.DataObject) -> None:
    parts: Chunks = []
    for name, extra in (("reasoning_content", {"thought": True}), ("content", {})):
        parts += [{"text": part, **extra} for part in pieces_of(said.get(name) or "", data.draw) if part]
    for call in said.get("tool_calls", []):
        arguments = orjson.loads(call["function"]["arguments"])
        parts.append({"functionCall": {"id": call["id"], "name": call["function"]["name"], "args": arguments}})
    where = {"provider": "gemini", "endpoint": "generateContent"}
    whole = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    assert row_of(orjson.dumps(whole), form=Form.JSON, **where) == expected(said)
    chunks: Chunks = [{"candidates": [{"content": {"parts": [part]}}]} for part in parts]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    assert row_of(framed(chunks), **where) == expected(said)
    assert row_of(orjson.dumps(chunks), form=Form.JSON, **where) == expected(said)
