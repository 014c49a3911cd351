"""Which stored teacher answers a sample was made of, noted by a response hook of the official clients.

    client = OpenAI(http_client=DefaultHttpxClient(event_hooks={"response": [lineage.note]}))

An answer requested while a data set makes a sample belongs to that sample; one requested in the body of a loop over
`steps()` belongs to the step. Only requests of the same thread, or of a task that it started, are noted: the owner of
any other request is unknown.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

_STRING = r'"(?:[^"\\]|\\.)*"'
_MEMBER = re.compile(rf'(?:^|,)\s*kdproxy((?:\s*;\s*[a-z-]+(?:=(?:{_STRING}|[^;,"\s]+))?)*)')
_KEY = re.compile(r'; *key="([0-9a-f]{64})"')
_DETAIL = re.compile(r"; *detail=([a-z-]+)")
_NOT_STORED = frozenset({"prompt-match", "incomplete", "cut"})
"""Details of answers that are not in the journal under the question's key: a recorded prompt's, an incomplete one."""
_FIRST_ERROR = 400


class TeacherKey(NamedTuple):
    """One stored answer of a teacher, as kdproxy names it."""

    key: str
    """SHA-256 of the question, 64 hex digits."""
    ordinal: int | None
    """Which answer to that question; None if unknown."""


_heard: ContextVar[list[TeacherKey] | None] = ContextVar("trainhooks_lineage", default=None)


def note(response: Any) -> None:
    """Note the key that the proxy's `Cache-Status` names. A response hook of `httpx2.Client` or `httpx.Client`."""
    heard = _heard.get()
    if heard is None or response.status_code >= _FIRST_ERROR:
        return
    key = key_of(response.headers.get("cache-status", ""))
    if key is not None:
        heard.append(TeacherKey(key, None))  # the header does not name the ordinal


async def anote(response: Any) -> None:
    """Same as `note`, for asynchronous clients."""
    note(response)


def key_of(cache_status: str) -> str | None:
    """Return the key of the stored answer that a `Cache-Status` names, or None."""
    members = _MEMBER.findall(cache_status)
    if not members or "; fwd=bypass" in members[-1]:
        return None
    detail = _DETAIL.search(members[-1])
    key = _KEY.search(members[-1])
    return None if key is None or (detail is not None and detail[1] in _NOT_STORED) else key[1]


@contextmanager
def noting() -> Iterator[list[TeacherKey]]:
    """Collect what is noted in this block: for a loop or a data set that requests answers ahead of time."""
    heard: list[TeacherKey] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def listen() -> None:
    """Start collecting, and forget what was noted before."""
    _heard.set([])


def take() -> tuple[TeacherKey, ...]:
    """Return what was noted since `listen`, and stop collecting."""
    heard = _heard.get()
    _heard.set(None)
    return tuple(heard or ())
