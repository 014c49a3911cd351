"""generateContent and streamGenerateContent: one response, or partial ones as SSE or as a JSON array."""

from typing import Any

from kdproxy.testing.teacher.answer import Json, Reply, Streamed, dump, whole
from kdproxy.testing.teacher.fault import bad_request
from kdproxy.testing.teacher.schema import example_of
from kdproxy.testing.teacher.stamp import Stamp, asks_for_tool, texts_of, tokens_of

_OVERHEAD_TOKENS = 3
Candidate = tuple[list[Json], str]
"""The parts of one candidate, a part per streamed piece, and why it ended."""


def answer_content(body: Json, stamp: Stamp, model: str) -> Reply:
    candidates = _candidates(body, stamp)
    full = [_candidate(index, _joined(parts), reason) for index, (parts, reason) in enumerate(candidates)]
    return whole(_response(body, stamp, model, full, _produced(candidates)))


def stream_content(body: Json, stamp: Stamp, model: str, *, is_sse: bool) -> Reply:
    candidates = _candidates(body, stamp)
    pieces = [
        (index, part, reason if position == len(parts) - 1 else None)
        for index, (parts, reason) in enumerate(candidates)
        for position, part in enumerate(parts)
    ]
    values = [
        _response(body, stamp, model, [_candidate(index, [part], reason)], position + 1)
        for position, (index, part, reason) in enumerate(pieces)
    ]
    # What says why a candidate ended comes with its last piece; nothing follows it.
    if is_sse:
        events = tuple(b"data: " + dump(value) + b"\r\n\r\n" for value in values)
        return Streamed(lead=events[:-1], finish=events[-1:], content_type="text/event-stream")
    texts = [dump(value, pretty=True) for value in values]
    items = tuple((b"[" if number == 0 else b",\r\n") + text for number, text in enumerate(texts))
    return Streamed(
        lead=items[:-1],
        finish=items[-1:],
        terminator=(b"]\n",),
        content_type="application/json; charset=UTF-8",
    )


def count_tokens(body: Json) -> Reply:
    inner = body.get("generateContentRequest") or body
    tokens = _asked_tokens(inner)
    return whole({"totalTokens": tokens, "promptTokensDetails": _details(tokens)})


def _candidates(body: Json, stamp: Stamp) -> list[Candidate]:
    if not body.get("contents"):
        raise bad_request("* GenerateContentRequest.contents: contents is not specified")
    config = body.get("generationConfig") or {}
    return [_one(body, config, stamp, index) for index in range(config.get("candidateCount") or 1)]


def _one(body: Json, config: Json, stamp: Stamp, index: int) -> Candidate:
    call = _function_call(body, stamp)
    if call is not None:
        return [{"functionCall": call}], "STOP"
    tokens = _content(config, stamp, index)
    allowed = config.get("maxOutputTokens") or len(tokens)
    reason = "MAX_TOKENS" if len(tokens) > allowed else "STOP"
    return [{"text": token} for token in tokens[:allowed]], reason


def _content(config: Json, stamp: Stamp, index: int) -> list[str]:
    text = stamp.text(index)
    if config.get("responseMimeType") != "application/json":
        return text
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    value: Any = example_of(schema, "".join(text)) if schema else {"answer": "".join(text)}
    return tokens_of(dump(value).decode())


def _function_call(body: Json, stamp: Stamp) -> Json | None:
    functions = [f for tool in body.get("tools") or () for f in tool.get("functionDeclarations") or ()]
    choice = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    mode = choice.get("mode", "AUTO")
    if not functions or mode == "NONE" or not (mode == "ANY" or asks_for_tool(body["contents"])):
        return None
    allowed = choice.get("allowedFunctionNames") or [f["name"] for f in functions]
    function = next((f for f in functions if f["name"] in allowed), functions[0])
    schema = function.get("parametersJsonSchema") or function.get("parameters") or {}
    arguments = example_of(schema, "".join(stamp.text()))
    return {"name": function["name"], "args": arguments or {}, "id": f"call_{stamp.token}"}


def _joined(parts: list[Json]) -> list[Json]:
    if "text" not in parts[0]:
        return parts
    return [{"text": "".join(part["text"] for part in parts)}]


def _candidate(index: int, parts: list[Json], reason: str | None) -> Json:
    value: Json = {"content": {"parts": parts, "role": "model"}, "index": index}
    return value if reason is None else value | {"finishReason": reason}


def _produced(candidates: list[Candidate]) -> int:
    return sum(len(parts) for parts, _ in candidates)


def _response(body: Json, stamp: Stamp, model: str, candidates: list[Json], produced: int) -> Json:
    asked = _asked_tokens(body)
    usage = {
        "promptTokenCount": asked,
        "candidatesTokenCount": produced,
        "totalTokenCount": asked + produced,
        "promptTokensDetails": _details(asked),
    }
    return {
        "candidates": candidates,
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": f"r{stamp.token}",
    }


def _asked_tokens(body: Json) -> int:
    parts = (body.get("systemInstruction"), body.get("contents"))
    return _OVERHEAD_TOKENS + sum(len(tokens_of(text)) for part in parts for text in texts_of(part))


def _details(tokens: int) -> list[Json]:
    return [{"modality": "TEXT", "tokenCount": tokens}]
