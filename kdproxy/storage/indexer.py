"""Keeps the index up to date with the journal: rows that wait for the disk, and catching up at a start.

For the writer thread only, except `look_up`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kdproxy.core import line as lines
from kdproxy.core import record as record_format
from kdproxy.core.call_set import CallSet
from kdproxy.core.models import NamedRecord, Record
from kdproxy.core.ports import Batch, Damage, JournalLine, Location, Repair, Store, Watermark
from kdproxy.errors import KdproxyError, RecordInvalid
from kdproxy.storage import event_reading, names
from kdproxy.storage.damage_log import DamageLog
from kdproxy.storage.fold import Fold
from kdproxy.storage.fold import needed as rows_needed
from kdproxy.storage.journal import Journal

log = logging.getLogger("kdproxy.storage")

BATCH = 500
"""Records in one transaction."""
_REPORTED_DAMAGE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReport:
    """The result of opening or rebuilding the index."""

    indexed_lines: int
    """Lines read because the index did not have them."""
    torn_bytes: int
    damage: tuple[Damage, ...]
    is_rebuilt: bool
    """Whether the whole index was rebuilt."""


class Indexer:
    """The index of one journal."""

    def __init__(self, journal: Journal, store: Store, *, calls_row: Callable[[], bytes | None] = lambda: None) -> None:
        """Take over an index. `calls_row` makes the row with the state of the events log."""
        self._journal = journal
        self._calls_row = calls_row
        self.answered = CallSet()
        """Calls named by the answer lines that `recover` has read."""
        self._store = store
        self._damage = DamageLog(journal.name)
        self.counters = names.Counters()
        self.waiting = 0
        """Lines whose rows are not on disk yet."""
        self._fresh: dict[str, bytes] = {}
        self._watermark: Watermark | None = None
        self._decided_on: dict[str, bytes | None] | None = None
        """The rows that the running decision has read; None: none is running."""

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """While entered nothing but the decision's own lines is written, so `fold` reads no row again that it read."""
        self._decided_on = {}
        try:
            yield
        finally:
            self._decided_on = None

    def look_up_all(self, wanted: Sequence[str]) -> list[bytes | None]:
        """Return rows that are on disk. Raises StorageFailed."""
        found = self._store.get_all(wanted)
        values = [found.get(name) for name in wanted]
        if self._decided_on is not None:
            self._decided_on.update(zip(wanted, values, strict=True))
        return values

    def look_up(self, name: str) -> bytes | None:
        """Return a row, even if it is not on disk yet. Any thread."""
        fresh = self._fresh  # replaced, not emptied, once its rows are on disk
        value = fresh.get(name)
        return self._store.get(name) if value is None else value

    def fresh_rows(self, prefix: str) -> dict[str, bytes]:
        """Return the rows that are not on disk yet and whose names have a prefix. Any thread."""
        return {name: value for name, value in list(self._fresh.items()) if name.startswith(prefix)}

    def fold(self, wanted: Iterable[str]) -> Fold:
        """Start to apply lines; `wanted` are the rows that they need, as far as known. Raises StorageFailed."""
        fresh, read = self._fresh, self._decided_on or {}
        names_wanted = dict.fromkeys(wanted)
        stored = read
        if fresh or not names_wanted.keys() <= read.keys():
            asked = [name for name in names_wanted if name not in fresh]
            missing = [name for name in asked if name not in read] if read else asked
            found = self._store.get_all(missing) if missing else {}
            stored = {name: read[name] if name in read else found.get(name) for name in asked}
        return Fold(
            lambda name: stored[name] if name in stored else self.look_up(name), self.counters.copy(), self._read
        )

    def accept(self, fold: Fold, watermark: Watermark, *, count: int) -> None:
        """Take over the changes of a fold, once its lines are in the journal up to the watermark."""
        self._fresh.update(fold.changes)
        self.counters = fold.counters
        self._watermark = watermark
        self.waiting += count

    def flush(self) -> None:
        """Write the waiting rows in one transaction, with the watermark that covers them.

        Raises:
            StorageFailed: none of them is in the index.
        """
        if self._watermark is None:
            return
        puts = {**self._fresh, names.COUNTERS: self.counters.dump()}
        calls = self._calls_row()
        if calls is not None:
            puts[event_reading.ROW] = calls
        self._store.apply(Batch(puts=puts, watermark=self._watermark))
        self._fresh = {}
        self._watermark = None
        self.waiting = 0

    def recover(self) -> OpenReport:
        """Cut off a torn tail, and read the lines that the index does not have yet."""
        torn = self._journal.cut_torn_tail()
        if torn:
            log.warning("an unfinished last line was cut off the journal", extra={"bytes": torn})
        mark = self._store.watermark()
        if mark is None and self._store.get(names.OLD_WATERMARK) is not None:
            log.warning("the index was written by an earlier release and is rebuilt from the journal", extra={})
            return self.rebuild(torn_bytes=torn)
        if mark is not None and not self._continues(mark):
            log.warning("the index does not match the journal and is rebuilt", extra={})
            return self.rebuild(torn_bytes=torn)
        self.counters = names.Counters.load(self._store.get(names.COUNTERS))
        return self._read_on(mark, torn_bytes=torn, is_rebuilt=False)

    def rebuild(self, *, torn_bytes: int = 0) -> OpenReport:
        """Rebuild the index."""
        self._store.clear()
        self.counters = names.Counters()
        return self._read_on(None, torn_bytes=torn_bytes, is_rebuilt=True)

    def repair(self, repair: Repair) -> None:
        """Repair the rows that have not changed since they were found. Raises StorageFailed."""
        counters = self.counters.copy()
        for upstream, count in repair.answers.items():
            counters.answers[upstream] = counters.answers.get(upstream, 0) + count
        counters.prompts += repair.prompts
        counters.old_keys += repair.old_keys
        puts = {names.COUNTERS: counters.dump()}
        deletes = set()
        for name, (found, wanted) in repair.rows.items():
            if self._store.get(name) != found:
                continue
            if wanted is None:
                deletes.add(name)
            else:
                puts[name] = wanted
        self._store.apply(Batch(puts=puts, deletes=frozenset(deletes)))
        self.counters = counters

    def _read(self, location: Location) -> Record | None:
        try:
            return record_format.decode(self._journal.read(location))
        except KdproxyError as error:
            self._damage.report(location, error)
            return None

    def _continues(self, mark: Watermark) -> bool:
        """Whether the journal still holds the line at which the index stopped reading."""
        if mark.segment not in self._journal.segments() or mark.offset > self._journal.segment_size(mark.segment):
            return False
        length = len(mark.seal) + 1
        tail = self._journal.read(Location(mark.segment, max(0, mark.offset - length), length))
        return tail == mark.seal.encode() + b"\n"

    def _read_on(self, mark: Watermark | None, *, torn_bytes: int, is_rebuilt: bool) -> OpenReport:
        start = {} if mark is None else {"segment": mark.segment, "offset": mark.offset}
        damage: list[Damage] = []
        page: list[tuple[NamedRecord, Location]] = []
        count = 0
        for line in self._journal.lines(**start):
            count += 1
            for location, found in readable(line):
                if not isinstance(found, RecordInvalid):
                    page.append((found, location))
                    last = Watermark.after(location, line.raw)
                    continue
                name = self._journal.name(location.segment)
                damage.append(Damage(segment_name=name, location=location, reason=found.message))
                if len(damage) <= _REPORTED_DAMAGE:
                    self._damage.report(location, found)
            if len(page) >= BATCH:
                self._take(page, last)
                page.clear()
        if page:
            self._take(page, last)
        return OpenReport(indexed_lines=count, torn_bytes=torn_bytes, damage=tuple(damage), is_rebuilt=is_rebuilt)

    def _take(self, page: list[tuple[NamedRecord, Location]], watermark: Watermark) -> None:
        fold = self.fold(name for named, _ in page for name in rows_needed(named))
        for named, location in page:
            fold.take(named, location)
            call = event_reading.call_of(named.record)
            if call is not None:
                self.answered.add(call)
        self.accept(fold, watermark, count=len(page))
        self.flush()


def readable(line: JournalLine) -> Iterator[tuple[Location, NamedRecord | RecordInvalid]]:
    """Read a line of the journal. A damaged one may end in a whole one, if a file was appended to a torn line."""
    try:
        yield line.location, record_format.read(line.raw)
    except RecordInvalid as error:
        segment, offset, length = line.location
        start = lines.remainder(line.raw)
        if start is None:
            yield line.location, error
            return
        yield Location(segment, offset, start), error
        rest = JournalLine(location=Location(segment, offset + start, length - start), raw=line.raw[start:])
        yield from readable(rest)
