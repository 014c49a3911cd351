"""Gemini's dialect: generateContent and streamGenerateContent (Gemini API reference v1beta, read 2026-11)."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from kdproxy.core.models import Form, Turn
from kdproxy.providers import members_gemini
from kdproxy.providers.base import (
    Ask,
    Endpoint,
    Facts,
    NotAQuestion,
    integer,
    is_sampled,
)
from kdproxy.providers.judge_candidates import CandidateStream, judge_candidates

PROVIDER = "gemini"

_PATH = re.compile(r"/(?:models|tunedModels)/([^/:]+):(generateContent|streamGenerateContent)$")
_MODEL = re.compile(r"/(?:models|tunedModels)/([^/:]+):[A-Za-z]+$")
_BEYOND_TEXT = frozenset({"responseschema", "responsejsonschema", "responselogprobs", "logprobs", "speechconfig"})
_TEXT_ALONE = {"responsemimetype": "text/plain", "responsemodalities": ["TEXT"], "candidatecount": 1}
"""Names without underscores and capitals: the API accepts both `responseSchema` and `response_schema`."""
_STREAM_METHOD = ":streamGenerateContent"


def _is_sse(path: str, query: str) -> bool:
    return path.endswith(_STREAM_METHOD) and parse_qs(query).get("alt") == ["sse"]


def key_path(path: str, query: str) -> tuple[str, str]:
    """Map an SSE stream to the plain call, which asks the same question; without alt=sse it is another (JSON array)."""
    if not _is_sse(path, query):
        return path, query
    rest = "&".join(pair for pair in query.split("&") if pair != "alt=sse")
    return path.removesuffix(_STREAM_METHOD) + ":generateContent", rest


def model_in(path: str) -> str | None:
    """Return the model that a path names."""
    match = _MODEL.search(path)
    return None if match is None else match[1]


def _read(ask: Ask) -> Facts | NotAQuestion:
    members = ask.members
    if not isinstance(members.get("tools"), list | None):
        return NotAQuestion("tools has the wrong type")
    config = _config(members)
    match = _PATH.search(ask.path)
    assert match is not None  # the endpoint's own pattern
    return Facts(
        form=Form.SSE if _is_sse(ask.path, ask.query) else Form.JSON,
        model=match[1],
        is_sampled=is_sampled(config),
        choices=_candidates_of(config),
    )


def _candidates_of(config: Mapping[str, Any]) -> int | None:
    asked = config.get("candidateCount", config.get("candidate_count"))
    return 1 if asked is None else integer(asked) or None


def _config(members: Mapping[str, Any]) -> Mapping[str, Any]:
    config = members.get("generationConfig", members.get("generation_config"))
    return config if isinstance(config, dict) else {}


def _turns(ask: Ask) -> tuple[Turn, ...] | None:
    members, config = ask.members, _config(ask.members)
    is_array = ask.path.endswith(_STREAM_METHOD) and not _is_sse(ask.path, ask.query)
    if is_array or members.get("tools") or not _is_plain(config):
        return None
    turns = []
    system = members.get("systemInstruction", members.get("system_instruction"))
    if system is not None:
        text = _text_of(system)
        if text is None:
            return None
        turns.append(Turn(role="system", text=text))
    contents = members.get("contents")
    for content in contents if isinstance(contents, list) else ():
        text = _text_of(content)
        role = content.get("role", "user") if isinstance(content, dict) else None
        if text is None or role not in ("user", "model"):
            return None
        turns.append(Turn(role="assistant" if role == "model" else "user", text=text))
    return tuple(turns) or None


def _is_plain(config: Mapping[str, Any]) -> bool:
    """Whether the request asks only for one text."""
    asked = {name.replace("_", "").lower(): value for name, value in config.items() if value is not None}
    return asked.keys().isdisjoint(_BEYOND_TEXT) and all(
        asked.get(name, value) == value for name, value in _TEXT_ALONE.items()
    )


def _text_of(content: Any) -> str | None:
    parts = content.get("parts") if isinstance(content, dict) else None
    if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict) and set(parts[0]) == {"text"}:
        text = parts[0]["text"]
        return text if isinstance(text, str) else None
    return None


ENDPOINTS = (
    Endpoint(
        provider=PROVIDER,
        name="generateContent",
        path=_PATH,
        read=_read,
        turns=_turns,
        judge=judge_candidates,
        judge_stream=CandidateStream,
        members=members_gemini.GENERATE,
        key_path=key_path,
    ),
)
