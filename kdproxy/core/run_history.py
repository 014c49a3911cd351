"""The events of one run in columns, and the ordinals of an attempt at any moment of it. Pure.

A million events take some 30 MB beside their keys. A cursor names the event after which it was taken. An attempt that
was restored from a cursor has the samples of that moment, and those that it has used since.
"""

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from itertools import compress, count, islice, repeat
from operator import lt, not_
from types import MappingProxyType
from typing import NamedTuple

from kdproxy.core.models import LineName
from kdproxy.core.run_event import Restored, Returned, RunEvent, Unread, Used
from kdproxy.core.sampling import Ordinals, Owners


class _Kind(IntEnum):
    USED = 0
    RETURNED = 1
    RESTORED = 2
    UNREAD = 3


_USED, _RETURNED, _RESTORED, _UNREAD = map(int, _Kind)
_RESET = "\0reset"
"""In the column of scopes: an `unread` event of a connection that was reset. No scope has this name."""


_ORDINAL_BITS = 20  # core/run_ref.py: a million
_MAX_ORDINAL = (1 << _ORDINAL_BITS) - 1


class Sample(NamedTuple):
    """A sample of a question: the first digits of its key, and the ordinal."""

    key: str
    ordinal: int


class _Part(NamedTuple):
    """Events of one attempt, by their places: the first, and the one after the last."""

    attempt: int
    begin: int
    end: int


class UsedColumns(NamedTuple):
    """Many `used` events in the order of the log, a column for each member."""

    origin: str = ""
    """Of all of them."""
    seqs: Sequence[int] = ()
    attempts: Mapping[str, LineName] = MappingProxyType({})
    """The attempts, by their names in the log."""
    names: Sequence[str] = ()
    """The attempt of each event."""
    keys: Sequence[str] = ()
    ordinals: Sequence[int] = ()
    scopes: Sequence[str] = ()
    are_explicit: Sequence[bool] = ()


class _Replay(NamedTuple):
    """The samples of an attempt, packed into numbers, in the order of their latest use."""

    used: dict[int, int]
    """With the scope."""
    reset: dict[int, None]
    """Used ones that were not read: their connections were reset."""
    closed: dict[int, None]
    """Used ones that may not have been read: their connections ended, and no other sample was used since."""


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
        self._names: set[LineName] | None = None
        """All events, once a lower number has come: a line that a failed sync lost comes later than its followers."""

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
            case Unread(attempt, key, ordinal, _, is_reset):
                self._add(name, _Kind.UNREAD, attempt, key, ordinal, _RESET if is_reset else "")
            case Restored():
                if self._add(name, _Kind.RESTORED, event.attempt, "", 0, ""):
                    self._restores[len(self) - 1] = event.source, event.after

    def _add(self, name: LineName, kind: int, attempt: LineName, key: str, ordinal: int, scope: str) -> bool:
        origin, seq = name
        if seq <= self._last.get(origin, -1):
            if name in self._all_names():
                return False
        else:
            self._last[origin] = seq
        if self._names is not None:
            self._names.add(name)
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

    def _all_names(self) -> set[LineName]:
        if self._names is None:
            origins = list(self._origins)
            self._names = {LineName(origins[of], seq) for of, seq in zip(self._origin, self._seq, strict=True)}
        return self._names

    def take_used(self, columns: UsedColumns) -> bool:
        """Take many events at a third of the cost; False: take them one by one, since some may have been taken."""
        if not columns.seqs:
            return True
        origin = columns.origin
        first = columns.seqs[0]
        is_rising = all(map(lt, columns.seqs, islice(columns.seqs, 1, None)))
        if not is_rising or first <= self._last.get(origin, -1) or self._names is not None:
            return False
        self._last[origin] = columns.seqs[-1]
        size = len(columns.seqs)
        attempts, keys = self._attempts, self._keys
        numbers = {text: attempts.setdefault(name, len(attempts)) for text, name in columns.attempts.items()}
        scopes = {scope: self._scopes.setdefault(scope, len(self._scopes)) for scope in set(columns.scopes)}
        keys.update(zip(set(columns.keys).difference(keys), count(len(keys)), strict=False))
        self._kinds.extend(repeat(_Kind.USED, size))
        if len(numbers) == 1:
            [of] = numbers.values()
            self._of.extend(repeat(of, size))
            counted = {of: size - sum(columns.are_explicit)}
            self._latest[of] = len(self) + size - 1
        else:
            added = list(map(numbers.__getitem__, columns.names))
            self._of.extend(added)
            counted = Counter(compress(added, map(not_, columns.are_explicit)))
            self._latest.update(zip(added, count(len(self)), strict=False))
        for of, used in counted.items():
            if used:
                self._counted[of] = self._counted.get(of, 0) + used
        self._key.extend(map(keys.__getitem__, columns.keys))
        self._ordinal.extend(columns.ordinals)
        if len(scopes) == 1:
            [scope] = scopes.values()
            self._scope.extend(repeat(scope, size))
        else:
            self._scope.extend(map(scopes.__getitem__, columns.scopes))
        self._origin.extend(repeat(self._origins.setdefault(origin, len(self._origins)), size))
        self._seq.extend(columns.seqs)
        return True

    def __len__(self) -> int:
        return len(self._seq)

    def keys_of(self, attempts: Collection[LineName]) -> set[int]:
        """Return the keys whose samples some attempts took; the numbers mean something within this history only."""
        wanted = {self._attempts[name] for name in attempts if name in self._attempts}
        events = islice(zip(self._kinds, self._of, self._key, strict=False), len(self))
        return {key for kind, of, key in events if of in wanted and kind == _Kind.USED}

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

    def used_by_scope(self, attempt: LineName) -> dict[str, int]:
        """Return how many samples of an attempt are used, by scope."""
        scopes = list(self._scopes)
        return {scopes[scope]: used for scope, used in Counter(self._replay(attempt).used.values()).items()}

    def latest_used(self, attempt: LineName, count: int) -> list[Sample]:
        """Return the samples of an attempt that were used last, the latest last."""
        return self._samples(list(self._replay(attempt).used)[-count:])

    def used_after(self, attempt: LineName, source: LineName, after: LineName | None) -> list[Sample]:
        """Return the used samples of an attempt that it would not have at a cursor. Raises UnknownCursor."""
        before = self._replay(source, self._place_after(source, after)).used
        return self._samples([sample for sample in self._replay(attempt).used if sample not in before])

    def unread(self, attempt: LineName) -> dict[Sample, bool]:
        """Return the used samples that may never have been read, and whether their connections were reset.

        A connection that was closed, not reset, says so only while its attempt uses no other sample: a living client
        reads what it is sent.
        """
        found = self._replay(attempt)
        unread = [*found.reset, *(sample for sample in found.closed if sample not in found.reset)]
        return dict(zip(self._samples(unread), map(found.reset.__contains__, unread), strict=True))

    def attempt_of(self, event: LineName) -> LineName:
        """Return the attempt that an event belongs to. Raises UnknownCursor."""
        return list(self._attempts)[self._of[self._place(event)]]

    def deliveries(self) -> dict[LineName, int]:
        """Return how many samples each attempt was given, less those that were given back."""
        counts = Counter(zip(self._of, self._kinds, strict=False))
        attempts = list(self._attempts)
        return {name: counts[of, _USED] - counts[of, _RETURNED] for of, name in enumerate(attempts)}

    def _samples(self, packed: Iterable[int]) -> list[Sample]:
        keys = list(self._keys)
        return [Sample(keys[each >> _ORDINAL_BITS], each & _MAX_ORDINAL) for each in packed]

    def _replay(self, attempt: LineName, end: int | None = None) -> "_Replay":
        found = _Replay({}, {}, {})
        used, reset, closed = found
        reset_scope = self._scopes.get(_RESET, -1)
        for part in self._parts(self._attempts.get(attempt, -1), len(self) if end is None else end):
            places = slice(part.begin, part.end)
            columns = (self._of, self._kinds, self._key, self._ordinal, self._scope)
            for of, kind, key, ordinal, scope in zip(*(column[places] for column in columns), strict=True):
                if of != part.attempt or kind == _RESTORED:
                    continue
                sample = key << _ORDINAL_BITS | ordinal
                if kind == _UNREAD:
                    if sample in used:
                        (reset if scope == reset_scope else closed)[sample] = None
                    continue
                used.pop(sample, None)
                reset.pop(sample, None)
                closed.pop(sample, None)
                if kind == _USED:
                    used[sample] = scope
                    closed.clear()
        return found

    @property
    def has_scopes(self) -> bool:
        """Whether any request of the run named a scope."""
        return any(scope not in ("", _RESET) for scope in self._scopes)

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
        place = self._place(after)
        if self._of[place] != self._attempts.get(attempt):
            raise UnknownCursor
        return place + 1

    def _place(self, event: LineName) -> int:
        origin, at = self._origins.get(event.origin), -1
        with suppress(ValueError):  # there is none
            while origin is not None:
                at = self._seq.index(event.seq, at + 1)
                if self._origin[at] == origin:
                    return at
        raise UnknownCursor
