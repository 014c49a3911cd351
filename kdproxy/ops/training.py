"""`export --format chat`: stored answers as training rows in OpenAI's chat shape, whatever their dialect.

One row for each choice: {"messages": [..., {"role": "assistant", ...}], "model", "finish_reason", "key", ...}.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from kdproxy.core.models import Entry, Prompt
from kdproxy.ops.reading import Choice, choices_of
from kdproxy.providers.base import json_object

Message = dict[str, Any]


def rows(stored: Entry | Prompt) -> list[dict[str, Any]]:
    """Return the training rows of a stored answer; none where it is not a conversation's."""
    if isinstance(stored, Prompt):
        asked = [{"role": turn.role, "content": turn.text} for turn in stored.turns]
        answer = {"role": "assistant", "content": stored.response}
        facts = {"model": stored.model, "finish_reason": None, "provider": None, "key": stored.match_key}
        return [{"messages": [*asked, answer], **facts, "ordinal": stored.ordinal, "choice": 0}]
    request = json_object(stored.request or b"")
    if request is None:
        return []
    question = _QUESTIONS.get((stored.provider, stored.endpoint))
    if question is None:
        return []
    asked = list(question(request))
    choices = choices_of(stored)
    questions = [asked] * len(choices)
    if stored.endpoint == "completions":
        # Prompts side by side, each with as many choices, in the order of the prompts.
        questions = [asked[index * len(asked) // len(choices) :][:1] for index in range(len(choices))]
    facts = {"model": stored.model, "provider": stored.provider, "key": stored.address.key}
    place = {"ordinal": stored.address.ordinal}
    tools = request.get("tools")
    extra = {"tools": tools} if tools else {}
    return [
        {
            "messages": [*turns, _answer(choice)],
            **extra,
            **facts,
            "finish_reason": choice.finish_reason,
            **place,
            "choice": index,
        }
        for index, (turns, choice) in enumerate(zip(questions, choices, strict=True))
        if turns
    ]


def _answer(choice: Choice) -> Message:
    message: Message = {"role": "assistant", "content": choice.text}
    if choice.reasoning is not None:
        message["reasoning_content"] = choice.reasoning
    if choice.refusal is not None:
        message["refusal"] = choice.refusal
    if choice.tool_calls:
        message["tool_calls"] = choice.tool_calls
    return message


# -- questions, by dialect ------------------------------------------------------------------------------------------


def _chat(request: dict[str, Any]) -> Iterator[Message]:
    yield from _objects(request.get("messages"))


def _completion(request: dict[str, Any]) -> Iterator[Message]:
    prompt = request.get("prompt")
    for text in prompt if isinstance(prompt, list) else [prompt]:
        if isinstance(text, str):  # else tokens, which are no conversation
            yield {"role": "user", "content": text}


def _responses(request: dict[str, Any]) -> Iterator[Message]:
    if request.get("instructions") is not None:
        yield {"role": "system", "content": request["instructions"]}
    given = request.get("input")
    if isinstance(given, str):
        yield {"role": "user", "content": given}
    for item in _objects(given):
        match item.get("type", "message"):
            case "message":
                yield {"role": item.get("role"), "content": _content(item.get("content"))}
            case "function_call":
                call = _call(item.get("call_id"), item.get("name"), item.get("arguments"))
                yield {"role": "assistant", "content": None, "tool_calls": [call]}
            case "function_call_output":
                yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}


def _messages(request: dict[str, Any]) -> Iterator[Message]:
    if request.get("system") is not None:
        yield {"role": "system", "content": _content(request["system"])}
    for message in _objects(request.get("messages")):
        blocks = message.get("content")
        calls = [
            _call(block.get("id"), block.get("name"), _dumped(block.get("input") or {}))
            for block in _objects(blocks)
            if block.get("type") == "tool_use"
        ]
        for block in _objects(blocks):
            if block.get("type") == "tool_result":
                result = _content(block.get("content"))
                yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": result}
        kept = blocks
        if isinstance(blocks, list):
            moved = ("tool_use", "tool_result", "thinking", "redacted_thinking")
            kept = [block for block in _objects(blocks) if block.get("type") not in moved]
        if kept or calls:
            content = _content(kept) if kept else None
            row: Message = {"role": message.get("role"), "content": content}
            yield {**row, "tool_calls": calls} if calls else row


def _gemini(request: dict[str, Any]) -> Iterator[Message]:
    system = request.get("systemInstruction", request.get("system_instruction"))
    if isinstance(system, dict):
        yield {"role": "system", "content": _content(system.get("parts"))}
    for content in _objects(request.get("contents")):
        parts = list(_objects(content.get("parts")))
        for part in parts:
            result = part.get("functionResponse")
            if isinstance(result, dict):
                given = _dumped(result.get("response"))
                yield {"role": "tool", "tool_call_id": result.get("id") or result.get("name"), "content": given}
        calls = [
            _call(call.get("id"), call.get("name"), _dumped(call.get("args") or {}))
            for part in parts
            if isinstance(call := part.get("functionCall"), dict)
        ]
        kept = [part for part in parts if not {"functionCall", "functionResponse"} & part.keys()]
        if kept or calls:
            role = "assistant" if content.get("role") == "model" else "user"
            row: Message = {"role": role, "content": _content(kept) if kept else None}
            yield {**row, "tool_calls": calls} if calls else row


_QUESTIONS = {
    ("openai", "chat.completions"): _chat,
    ("openai", "completions"): _completion,
    ("openai", "responses"): _responses,
    ("anthropic", "messages"): _messages,
    ("gemini", "generateContent"): _gemini,
}


def _content(value: Any) -> Any:
    """Return blocks that are all text as one text; others as they are."""
    if not isinstance(value, list):
        return value
    texts = [block.get("text") if isinstance(block, dict) else None for block in value]
    return "".join(text for text in texts if text) if all(isinstance(text, str) for text in texts) else value


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in (value if isinstance(value, list) else ()) if isinstance(item, dict))


def _call(identity: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()
