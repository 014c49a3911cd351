"""POST responses: one response object, or typed events with sequence numbers (no `[DONE]` here)."""

from collections.abc import Iterator
from typing import Any

from kdproxy.testing.teacher.answer import Json, Reply, Streamed, dump, typed_events, whole
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.openai.tool import calls_of
from kdproxy.testing.teacher.openai.usage import prompt_tokens, token_logprob
from kdproxy.testing.teacher.schema import example_of
from kdproxy.testing.teacher.stamp import Stamp, tokens_of

# Members of the question that come back in the response, with the provider's defaults.
_ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_CLOSING_EVENTS = 3
_UNFINISHED: Json = {"usage": None, "incomplete_details": None, "completed_at": None}


def answer_response(body: Json, stamp: Stamp) -> Reply:
    final = finished_response(body, stamp)
    if body.get("background"):
        return whole(final | {"status": "queued", "output": [], **_UNFINISHED})
    if body.get("stream"):
        return _stream(final, stamp)
    return whole(final)


def finished_response(body: Json, stamp: Stamp) -> Json:
    """Return the response as it is when all is done."""
    if "input" not in body and "prompt" not in body:
        raise bad_request("Missing required parameter: 'input'.", param="input")
    item, produced, is_cut = _item(body, stamp)
    asked = prompt_tokens(body.get("instructions"), body.get("input"))
    echoed = {name: body.get(name, default) for name, default in _ECHOED.items()}
    echoed["text"] = _ECHOED["text"] | (body.get("text") or {})
    return {
        "id": f"resp_{stamp.token}",
        "object": "response",
        "created_at": stamp.created,
        "completed_at": None if is_cut else stamp.created,
        "status": "incomplete" if is_cut else "completed",
        "background": bool(body.get("background")),
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "model": body["model"],
        "output": [item],
        "service_tier": "default",
        **echoed,
        "usage": {
            "input_tokens": asked,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": produced,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + produced,
        },
    }


def _item(body: Json, stamp: Stamp) -> tuple[Json, int, bool]:
    """Return the output item, its tokens and whether the limit cut it."""
    for call in calls_of(body, stamp):
        item = {
            "id": f"fc_{stamp.token}",
            "type": "function_call",
            "status": "completed",
            "call_id": call["id"],
            "name": call["name"],
            "arguments": call["arguments"],
        }
        return item, len(tokens_of(call["arguments"])), False
    tokens = _content(body, stamp)
    allowed = body.get("max_output_tokens") or len(tokens)
    is_cut = len(tokens) > allowed
    tokens = tokens[:allowed]
    wants_logprobs = "message.output_text.logprobs" in (body.get("include") or ())
    logprobs = [token_logprob(token, body.get("top_logprobs") or 0) for token in tokens]
    part = _part("".join(tokens)) | {"logprobs": logprobs if wants_logprobs else []}
    item = {
        "id": f"msg_{stamp.token}",
        "type": "message",
        "completed_at": None if is_cut else stamp.created,
        "status": "incomplete" if is_cut else "completed",
        "role": "assistant",
        "content": [part],
    }
    return item, len(tokens), is_cut


def _content(body: Json, stamp: Stamp) -> list[str]:
    match (body.get("text") or {}).get("format"):
        case {"type": "json_schema", "schema": dict(schema)}:
            value: Any = example_of(schema, "".join(stamp.text()))
        case {"type": "json_object"}:
            value = {"answer": "".join(stamp.text())}
        case _:
            return stamp.text()
    return tokens_of(dump(value).decode())


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _stream(final: Json, stamp: Stamp) -> Streamed:
    started = final | {"status": "in_progress", "output": [], **_UNFINISHED}
    end = "response.incomplete" if final["status"] == "incomplete" else "response.completed"
    values: list[Json] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        *_item_events(final["output"][0], stamp),
        {"type": end, "response": final},
    ]
    numbered = [{"type": value["type"], "sequence_number": number, **value} for number, value in enumerate(values)]
    events = typed_events(numbered)
    # The three events that close the item are its `done`s; only the last event says how it ended.
    return Streamed(
        lead=events[: -1 - _CLOSING_EVENTS],
        finish=events[-1 - _CLOSING_EVENTS : -1],
        terminator=events[-1:],
    )


def _item_events(item: Json, stamp: Stamp) -> Iterator[Json]:
    place = {"output_index": 0}
    spot = {"item_id": item["id"], **place}
    if item["type"] == "function_call":
        opened = item | {"status": "in_progress", "arguments": ""}
        yield {"type": "response.output_item.added", **place, "item": opened}
        for piece in tokens_of(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", **spot, "delta": piece}
        yield {"type": "response.function_call_arguments.done", **spot, "arguments": item["arguments"]}
    else:
        yield from _text_events(item, spot | {"content_index": 0}, place)
    yield {"type": "response.output_item.done", **place, "item": item}


def _text_events(item: Json, spot: Json, place: Json) -> Iterator[Json]:
    part = item["content"][0]
    opened = item | {"status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", **place, "item": opened}
    yield {"type": "response.content_part.added", **spot, "part": _part("")}
    for position, token in enumerate(tokens_of(part["text"])):
        logprobs = part["logprobs"][position : position + 1]
        yield {"type": "response.output_text.delta", **spot, "delta": token, "logprobs": logprobs}
    yield {"type": "response.output_text.done", **spot, "text": part["text"], "logprobs": part["logprobs"]}
    yield {"type": "response.content_part.done", **spot, "part": part}
