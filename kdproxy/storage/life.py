"""The names of the lines that one process writes into the logs of one directory."""

import itertools
import os
import threading

from kdproxy.core.models import LineName, NamedRecord, Start
from kdproxy.core.record_encode import RECORD_VERSION, encode

_ORIGIN_BYTES = 12


class Life:
    """A writer's life, from opening a journal to closing it.

    Its origin is random: a restored backup, a copied directory or a superseded owner can never reuse a name.
    Gaps and disorder in the numbers mean nothing.
    """

    def __init__(self) -> None:
        self.origin = os.urandom(_ORIGIN_BYTES).hex()
        self._lock = threading.Lock()
        self._start: tuple[NamedRecord, bytes] | None = None
        self._numbers = itertools.count(1)  # its next() is atomic, so any thread may call it

    def start(self, *, now: float, release: str) -> tuple[NamedRecord, bytes]:
        """Return the line that precedes all others with this life's origin; each log gets the same one."""
        with self._lock:
            if self._start is None:
                name = LineName(self.origin, 0)
                record = Start(created_at=now, release=release)
                self._start = NamedRecord(record, name, RECORD_VERSION), encode(record, name)
            return self._start

    def next_name(self) -> LineName:
        """Return a name that no line has yet."""
        return LineName(self.origin, next(self._numbers))
