"""Gemini's dialect: methods hang on the model's name by a colon."""

import re

from kdproxy.testing.teacher.answer import Json, Reply, Whole, dump, whole
from kdproxy.testing.teacher.call import TeacherCall
from kdproxy.testing.teacher.fault import Fault, Problem, bad_request, not_found
from kdproxy.testing.teacher.gemini.content import answer_content, count_tokens, stream_content
from kdproxy.testing.teacher.gemini.error import error_body, refuse
from kdproxy.testing.teacher.limit import LimitState
from kdproxy.testing.teacher.openai.embedding import vector_of
from kdproxy.testing.teacher.stamp import Stamp, texts_of

METHOD = re.compile(r"/models/([^/:]+):(\w+)$")
_MODEL = re.compile(r"/models(?:/([^/:]+))?$")
_MODELS = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001")
_DIMENSIONS = 32
_BROKEN = Fault(problem=Problem.OVERLOADED, message="The model is overloaded. Please try again later.")


class GeminiDialect:
    """Answers generateContent in its three forms, countTokens, embeddings and models."""

    def answer(self, call: TeacherCall, stamp: Stamp) -> Reply:
        if call.method == "POST" and (found := METHOD.search(call.path)):
            model, method = found.groups()
            return _asked(call, stamp, model, method)
        if call.method == "GET" and (found := _MODEL.search(call.path)):
            name = found[1]
            return whole({"models": [_model(each) for each in _MODELS]} if name is None else _model(name))
        raise not_found("Requested entity was not found.")

    def refuse(self, fault: Fault, call: TeacherCall) -> Whole:
        return refuse(fault)

    def error_event(self, call: TeacherCall, *, position: int) -> bytes:
        body = error_body(_BROKEN)
        if call.query.get("alt") == "sse":
            return b"data: " + dump(body) + b"\r\n\r\n"
        return (b",\r\n" if position else b"[") + dump(body, pretty=True) + b"]\n"

    def headers(self, call: TeacherCall, stamp: Stamp, limit: LimitState) -> dict[str, str]:
        return {"server-timing": "gfet4t7; dur=20", "vary": "Origin, X-Origin, Referer"}


def _asked(call: TeacherCall, stamp: Stamp, model: str, method: str) -> Reply:
    body = call.json
    if not isinstance(body, dict):
        raise bad_request("Invalid JSON payload received.")
    match method:
        case "generateContent":
            return answer_content(body, stamp, model)
        case "streamGenerateContent":
            return stream_content(body, stamp, model, is_sse=call.query.get("alt") == "sse")
        case "countTokens":
            return count_tokens(body)
        case "embedContent":
            return whole({"embedding": _embedding(body)})
        case "batchEmbedContents":
            return whole({"embeddings": [_embedding(each) for each in body["requests"]]})
        case _:
            raise not_found(f"{method} is not found.")


def _embedding(request: Json) -> Json:
    text = "\n".join(texts_of(request["content"]))
    return {"values": vector_of(text, request.get("outputDimensionality") or _DIMENSIONS)}


def _model(name: str) -> Json:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
