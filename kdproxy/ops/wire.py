"""Events as lines of JSON (NDJSON), for the proxy's own API. A journal line is embedded byte for byte."""

from typing import Any

import orjson

from kdproxy.errors import KdproxyError
from kdproxy.ops.event import Event, Finding, Line, Progress, Result

_LINE_START = b'{"line":'
_LINE_END = b"}"


def dump(event: Event) -> bytes:
    """Write an event, line break included."""
    match event:
        case Line(text=text):
            return b"".join((_LINE_START, text, _LINE_END, b"\n"))
        case Progress():
            members: dict[str, Any] = {"progress": [event.done_bytes, event.total_bytes]}
        case Finding(members=found):
            members = {"finding": found}
        case Result(members=sums):
            members = {"result": sums}
    return orjson.dumps(members) + b"\n"


def dump_error(error: KdproxyError) -> bytes:
    """Write an error that ends a job, line break included."""
    members = {"message": error.message, "hint": error.hint, "code": error.code}
    return orjson.dumps({"error": members}) + b"\n"


def load(text: bytes) -> Event:
    """Read an event.

    Raises:
        KdproxyError: the event is the error that ended the job.
        ValueError: it is not an event.
    """
    text = text.removesuffix(b"\n")
    if text.startswith(_LINE_START):
        return Line(text[len(_LINE_START) : -len(_LINE_END)])
    match orjson.loads(text):
        case {"progress": [int(done), int(total)]}:
            return Progress(done_bytes=done, total_bytes=total)
        case {"finding": dict(members)}:
            return Finding(members)
        case {"result": dict(members)}:
            return Result(members)
        case {"error": {"message": str(message), "hint": str(hint), "code": str(code)}}:
            raise KdproxyError(message, hint=hint, code=code)
    raise ValueError("not an event")
