"""The events of one run in columns, and the ordinals of an attempt at any moment of it. Pure.

A million events take some 30 MB beside their keys. A cursor names the event after which it was taken. An attempt that
was restored from a cursor has the samples of that moment, and those that it has used since.
"""

from array import array
from enum import IntEnum
from typing import NamedTuple

from kdproxy.core.models import LineName
from kdproxy.core.run_event import Restored, Returned, RunEvent, Used
from kdproxy.core.sampling import Ordinals, Owners


class _Kind(IntEnum):
    USED = 0
    RETURNED = 1
    RESTORED = 2


class _Part(NamedTuple):
    """Events of one attempt, by their places: the first, and the one after the last."""

    attempt: int
    begin: int
    end: int


class UnknownCursor(Exception):
    """The run's log has no such event."""


class History:
    """The events of a run, in the order of the log."""

    def __init__(self) -> None:
        self._attempts: dict[LineName, int] = {}
        self._keys: dict[str, int] = {}
        self._scopes: dict[str, int] = {"": 0}
        self._origins: dict[str, int] = {}
        self._kinds, self._of = array("B"), array("L")
        self._key, self._ordinal, self._scope = array("L"), array("L"), array("L")
        self._origin, self._seq = array("L"), array("Q")
        self._restores: dict[int, tuple[LineName, LineName | None]] = {}
        """By place: the attempt and the event that an attempt was restored from."""
        self._last: dict[str, int] = {}
        """The highest number of each origin: a line that was written twice comes again with a lower one."""

    def take(self, name: LineName, event: RunEvent) -> None:
        """Take the next line of the log."""
        match event:
            case Used(attempt, key, ordinal, scope):
                self._add(name, _Kind.USED, attempt, key, ordinal, scope)
            case Returned(attempt, key, ordinal):
                self._add(name, _Kind.RETURNED, attempt, key, ordinal, "")
            case Restored():
                if self._add(name, _Kind.RESTORED, event.attempt, "", 0, ""):
                    self._restores[len(self._kinds) - 1] = event.source, event.after

    def _add(self, name: LineName, kind: _Kind, attempt: LineName, key: str, ordinal: int, scope: str) -> bool:
        origin, seq = name
        if seq <= self._last.get(origin, -1):
            return False
        self._last[origin] = seq
        self._kinds.append(kind)
        self._of.append(self._attempts.setdefault(attempt, len(self._attempts)))
        self._key.append(self._keys.setdefault(key, len(self._keys)))
        self._ordinal.append(ordinal)
        self._scope.append(self._scopes.setdefault(scope, len(self._scopes)))
        self._origin.append(self._origins.setdefault(origin, len(self._origins)))
        self._seq.append(seq)
        return True

    def __len__(self) -> int:
        return len(self._kinds)

    def last(self, attempt: LineName) -> LineName | None:
        """Return the latest event of an attempt, or None."""
        of = self._attempts.get(attempt)
        place = next((at for at in range(len(self._of) - 1, -1, -1) if self._of[at] == of), None)
        if place is None:
            return None
        return LineName(list(self._origins)[self._origin[place]], self._seq[place])

    def ordinals(self, attempt: LineName, after: LineName | None = None, *, is_whole: bool = True) -> Ordinals:
        """Return the ordinals of an attempt: now, or (not `is_whole`) as they were after an event; None: at its start.

        Raises:
            UnknownCursor: there is no such event.
        """
        end = len(self) if is_whole else self._place_after(attempt, after)
        found = Ordinals()
        keys, scopes = list(self._keys), list(self._scopes)
        for part in self._parts(self._attempts.get(attempt, -1), end):
            for at in range(part.begin, part.end):
                if self._of[at] != part.attempt:
                    continue
                key, ordinal = keys[self._key[at]], self._ordinal[at]
                if self._kinds[at] == _Kind.USED:
                    found.note_used(key, ordinal, scopes[self._scope[at]])
                elif self._kinds[at] == _Kind.RETURNED:
                    found.note_returned(key, ordinal)
        return found

    @property
    def has_scopes(self) -> bool:
        """Whether any request of the run named a scope."""
        return len(self._scopes) > 1

    def owners(self) -> Owners:
        """Return which scope of the run each ordinal belongs to: the one that took it first."""
        keys, scopes = list(self._keys), list(self._scopes)
        found: Owners = {}
        for at, kind in enumerate(self._kinds):
            if kind == _Kind.USED:
                owned = found.setdefault(keys[self._key[at]], {})
                owned.setdefault(self._ordinal[at], scopes[self._scope[at]])
        return found

    def _parts(self, attempt: int, end: int) -> list[_Part]:
        """Return what an attempt's samples at a place consist of, oldest first: parts of those that it came from."""
        parts: list[_Part] = []
        while True:
            at = next((at for at in sorted(self._restores, reverse=True) if at < end and self._of[at] == attempt), None)
            parts.append(_Part(attempt, 0 if at is None else at + 1, end))
            if at is None:
                return parts[::-1]
            source, after = self._restores[at]
            attempt, end = self._attempts.get(source, -1), self._place_after(source, after)

    def _place_after(self, attempt: LineName, after: LineName | None) -> int:
        if after is None:
            return 0
        of, origin = self._attempts.get(attempt), self._origins.get(after.origin)
        if of is not None and origin is not None:
            for at, seq in enumerate(self._seq):
                if seq == after.seq and self._origin[at] == origin and self._of[at] == of:
                    return at + 1
        raise UnknownCursor
