"""Which stored teacher answers a sample was made of: told by a response hook of the official clients.

    client = OpenAI(http_client=DefaultHttpxClient(event_hooks={"response": [lineage.note]}))

What is asked while a data set makes a sample is that sample's; what is asked in the body of a loop over `steps()` is
the step's. Only what the same thread asks, or a task that it started: of anything else nobody could say whose it is, so
it is left out.
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
"""What is not in the journal under the question's key: a recorded prompt's answer, one that was not whole."""
_FIRST_ERROR = 400


class TeacherKey(NamedTuple):
    """One stored answer of a teacher, as kdproxy names it."""

    key: str
    """SHA-256 of the question, 64 hex digits."""
    ordinal: int | None
    """Which answer to that question; None where it is not known."""


_heard: ContextVar[list[TeacherKey] | None] = ContextVar("trainhooks_lineage", default=None)


def note(response: Any) -> None:
    """Note the key that the proxy's `Cache-Status` names. A response hook of `httpx2.Client` or `httpx.Client`."""
    heard = _heard.get()
    if heard is None or response.status_code >= _FIRST_ERROR:
        return
    key = key_of(response.headers.get("cache-status", ""))
    if key is not None:
        heard.append(TeacherKey(key, None))  # the header does not say the ordinal


async def anote(response: Any) -> None:
    """As `note`, for asynchronous clients."""
    note(response)


def key_of(cache_status: str) -> str | None:
    """Return the key of the stored answer that a `Cache-Status` names; None where it names none."""
    members = _MEMBER.findall(cache_status)
    if not members or "; fwd=bypass" in members[-1]:
        return None
    detail = _DETAIL.search(members[-1])
    key = _KEY.search(members[-1])
    return None if key is None or (detail is not None and detail[1] in _NOT_STORED) else key[1]


@contextmanager
def noting() -> Iterator[list[TeacherKey]]:
    """Collect what is noted in this block: for a loop or a data set that asks ahead of time."""
    heard: list[TeacherKey] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def listen() -> None:
    """Begin to collect what is noted from now on, and forget what was noted before."""
    _heard.set([])


def take() -> tuple[TeacherKey, ...]:
    """Return what was noted since `listen`, and collect no more."""
    heard = _heard.get()
    _heard.set(None)
    return tuple(heard or ())
