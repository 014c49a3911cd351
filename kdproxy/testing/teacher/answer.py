"""An answer before it is sent: whole, or as the events of a stream, with its start and end separate."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

Json = dict[str, Any]

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """One body."""

    body: bytes
    status: int = 200
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A chunked body in pieces: `lead` has the content, `finish` the finish reason, `terminator` the end."""

    lead: tuple[bytes, ...]
    finish: tuple[bytes, ...] = ()
    terminator: tuple[bytes, ...] = ()
    content_type: str = SSE_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def events(self) -> tuple[bytes, ...]:
        return self.lead + self.finish + self.terminator


Reply = Whole | Streamed


def dump(value: object, *, pretty: bool = False) -> bytes:
    """Write JSON as UTF-8, escaped only where UTF-8 cannot hold it (a client's lone surrogate)."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 if pretty else 0)
    except TypeError:
        return json.dumps(value, indent=2 if pretty else None).encode()


def whole(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Whole:
    """Make a JSON answer, indented as OpenAI and Google send theirs."""
    return Whole(body=dump(value, pretty=True), status=status, headers=headers or {})


def sse(value: object, *, event: str | None = None) -> bytes:
    """Write one server-sent event (WHATWG HTML, section 9.2)."""
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return name + b"data: " + dump(value) + b"\n\n"


def typed_events(values: Iterable[Json]) -> tuple[bytes, ...]:
    """Write events whose name is their own `type` member (Anthropic, OpenAI Responses)."""
    return tuple(sse(value, event=value["type"]) for value in values)
