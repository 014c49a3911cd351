"""Which stored teacher answers a sample was made of: told by a response hook of the official clients.

    client = OpenAI(http_client=DefaultHttpxClient(event_hooks={"response": [lineage.note]}))

What was noted in a process waits here until the loader, or the session at the end of a step, takes it.
"""

import re
import threading
from typing import Any, NamedTuple

_KEY = re.compile(r'(?:^|,)\s*kdproxy\s*;[^,]*?\bkey="([0-9a-f]{64})"')


class TeacherKey(NamedTuple):
    """One stored answer of a teacher, as kdproxy names it."""

    key: str
    """SHA-256 of the question, 64 hex digits."""
    ordinal: int | None
    """Which answer to that question; None where it is not known."""


_noted: list[TeacherKey] = []
_lock = threading.Lock()


def note(response: Any) -> None:
    """Note the key that the proxy's `Cache-Status` names. A response hook of `httpx2.Client` or `httpx.Client`."""
    found = _KEY.search(response.headers.get("cache-status", ""))
    if found is not None:
        with _lock:
            _noted.append(TeacherKey(found[1], None))


async def anote(response: Any) -> None:
    """As `note`, for asynchronous clients."""
    note(response)


def take() -> tuple[TeacherKey, ...]:
    """Return what was noted in this process since the last call."""
    if not _noted:  # every sample comes by here
        return ()
    with _lock:
        taken = tuple(_noted)
        _noted.clear()
    return taken
