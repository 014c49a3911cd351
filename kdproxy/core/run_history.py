"""The events of one run in columns, and the ordinals of an attempt at any moment of it. Pure.

A million events take some 30 MB beside their keys. A cursor names the event after which it was taken. An attempt that
was restored from a cursor has the samples of that moment, and those that it has used since.
"""

from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from itertools import count, islice, repeat
from operator import lt
from types import MappingProxyType
from typing import NamedTuple

from kdproxy.core.models import LineName
from kdproxy.core.run_event import Restored, Returned, RunEvent, Used
from kdproxy.core.sampling import Ordinals, Owners


class _Kind(IntEnum):
    USED = 0
    RETURNED = 1
    RESTORED = 2


_USED, _RETURNED = int(_Kind.USED), int(_Kind.RETURNED)


class _Part(NamedTuple):
    """Events of one attempt, by their places: the first, and the one after the last."""

    attempt: int
    begin: int
    end: int


class UsedColumns(NamedTuple):
    """Many `used` events in the order of the log, a column for each member."""

    origins: Sequence[str] = ()
    seqs: Sequence[int] = ()
    attempts: Mapping[str, LineName] = MappingProxyType({})
    """The attempts, by their names in the log."""
    names: Sequence[str] = ()
    """The attempt of each event."""
    keys: Sequence[str] = ()
    ordinals: Sequence[int] = ()
    scopes: Sequence[str] = ()
    are_explicit: Sequence[bool] = ()


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
        self._latest: dict[int, int] = {}
        """By attempt: the place of its latest event."""
        self._counted: dict[int, int] = {}
        """By attempt: how many samples its requests took without naming them."""
        self._last: dict[str, int] = {}
        """The highest number of each origin: a line that was written twice comes again with a lower one."""

    def take(self, name: LineName, event: RunEvent) -> None:
        """Take the next line of the log."""
        if isinstance(event, Used):  # one for each hit of a run: a match over its members takes 2 us
            if self._add(name, _USED, event.attempt, event.key, event.ordinal, event.scope) and not event.is_explicit:
                of = self._attempts[event.attempt]
                self._counted[of] = self._counted.get(of, 0) + 1
            return
        match event:
            case Returned(attempt, key, ordinal):
                self._add(name, _Kind.RETURNED, attempt, key, ordinal, "")
            case Restored():
                if self._add(name, _Kind.RESTORED, event.attempt, "", 0, ""):
                    self._restores[len(self) - 1] = event.source, event.after

    def _add(self, name: LineName, kind: int, attempt: LineName, key: str, ordinal: int, scope: str) -> bool:
        origin, seq = name
        if seq <= self._last.get(origin, -1):
            return False
        self._last[origin] = seq
        self._kinds.append(kind)
        of = self._attempts.setdefault(attempt, len(self._attempts))
        self._of.append(of)
        self._key.append(self._keys.setdefault(key, len(self._keys)))
        self._ordinal.append(ordinal)
        self._scope.append(self._scopes.setdefault(scope, len(self._scopes)))
        self._origin.append(self._origins.setdefault(origin, len(self._origins)))
        self._seq.append(seq)  # last: threads read up to its length
        self._latest[of] = len(self) - 1
        return True

    def take_used(self, columns: UsedColumns) -> bool:
        """Take many events at a third of the cost; False: take them one by one, since some may have been taken."""
        if not columns.seqs:
            return True
        origin = columns.origins[0]
        first = columns.seqs[0]
        is_rising = all(map(lt, columns.seqs, islice(columns.seqs, 1, None)))
        if not is_rising or first <= self._last.get(origin, -1) or columns.origins.count(origin) < len(columns.seqs):
            return False
        self._last[origin] = columns.seqs[-1]
        size = len(columns.seqs)
        attempts, keys = self._attempts, self._keys
        numbers = {text: attempts.setdefault(name, len(attempts)) for text, name in columns.attempts.items()}
        scopes = {scope: self._scopes.setdefault(scope, len(self._scopes)) for scope in set(columns.scopes)}
        keys.update(zip(set(columns.keys).difference(keys), count(len(keys)), strict=False))
        self._kinds.extend(repeat(_Kind.USED, size))
        self._of.extend(map(numbers.__getitem__, columns.names))
        self._key.extend(map(keys.__getitem__, columns.keys))
        self._ordinal.extend(columns.ordinals)
        self._scope.extend(map(scopes.__getitem__, columns.scopes))
        self._origin.extend(repeat(self._origins.setdefault(origin, len(self._origins)), size))
        self._seq.extend(columns.seqs)
        return True

    def __len__(self) -> int:
        return len(self._seq)

    def last(self, attempt: LineName) -> LineName | None:
        """Return the latest event of an attempt, or None."""
        place = self._latest.get(self._attempts.get(attempt, -1))
        if place is None:
            return None
        return LineName(list(self._origins)[self._origin[place]], self._seq[place])

    def counted(self, attempt: LineName) -> int:
        """Return how many samples the requests of an attempt took without naming them."""
        return self._counted.get(self._attempts.get(attempt, -1), 0)

    def ordinals(self, attempt: LineName, after: LineName | None = None, *, is_whole: bool = True) -> Ordinals:
        """Return the ordinals of an attempt: now, or (not `is_whole`) as they were after an event; None: at its start.

        Raises:
            UnknownCursor: there is no such event.
        """
        end = len(self) if is_whole else self._place_after(attempt, after)
        keys = list(self._keys)
        tops = array("L", bytes(array("L").itemsize * len(keys)))
        """By key: all ordinals below are used, unless `apart` has the key."""
        apart: dict[int, set[int]] = {}
        """The used ordinals of keys that were not used in order."""
        for part in self._parts(self._attempts.get(attempt, -1), end):
            columns = (column[part.begin : part.end] for column in (self._of, self._kinds, self._key, self._ordinal))
            for of, kind, key, ordinal in zip(*columns, strict=True):
                if of != part.attempt:
                    continue
                if kind == _USED and key not in apart:
                    if tops[key] == ordinal:
                        tops[key] = ordinal + 1
                    elif tops[key] < ordinal:
                        apart[key] = {*range(tops[key]), ordinal}
                elif kind == _USED:
                    apart[key].add(ordinal)
                elif kind == _RETURNED:
                    apart.setdefault(key, set(range(tops[key]))).discard(ordinal)
        in_order = {keys[key]: top for key, top in enumerate(tops) if top and key not in apart}
        return Ordinals.of_used(in_order, {keys[key]: used for key, used in apart.items()})

    def check(self, attempt: LineName, after: LineName | None) -> None:
        """Raises UnknownCursor unless `ordinals` can return those of an attempt after an event."""
        self._parts(self._attempts.get(attempt, -1), self._place_after(attempt, after))

    @property
    def has_scopes(self) -> bool:
        """Whether any request of the run named a scope."""
        return len(self._scopes) > 1

    def owners(self, begin: int = 0) -> Owners:
        """Return which scope of the run each ordinal belongs to: the one that took it first, from a place on."""
        end = len(self)  # first: a thread may read while the event loop adds
        keys, scopes = list(self._keys), list(self._scopes)
        found: Owners = {}
        for at in range(begin, end):
            if self._kinds[at] == _Kind.USED:
                owned = found.setdefault(keys[self._key[at]], {})
                owned.setdefault(self._ordinal[at], scopes[self._scope[at]])
        return found

    def _parts(self, attempt: int, end: int) -> list[_Part]:
        """Return what an attempt's samples at a place consist of, oldest first: parts of those that it came from."""
        parts: list[_Part] = []
        passed: set[int] = set()
        while True:
            at = next((at for at in sorted(self._restores, reverse=True) if at < end and self._of[at] == attempt), None)
            parts.append(_Part(attempt, 0 if at is None else at + 1, end))
            if at is None:
                return parts[::-1]
            if at in passed:  # parts of the log were put together in another order
                raise UnknownCursor
            passed.add(at)
            source, after = self._restores[at]
            attempt, end = self._attempts.get(source, -1), self._place_after(source, after)

    def _place_after(self, attempt: LineName, after: LineName | None) -> int:
        if after is None:
            return 0
        of, origin = self._attempts.get(attempt), self._origins.get(after.origin)
        if of is not None and origin is not None:
            at = -1
            with suppress(ValueError):  # there is none
                while True:
                    at = self._seq.index(after.seq, at + 1)
                    if self._origin[at] == origin and self._of[at] == of:
                        return at + 1
        raise UnknownCursor
