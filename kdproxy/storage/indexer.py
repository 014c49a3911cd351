"""Keeps the index in step with the journal: what a line changes, and reading on at a start. Writer thread only."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdproxy.core import record as record_format
from kdproxy.core.models import Record, Tombstone
from kdproxy.core.ports import Batch, Damage, Location, Mending, Store, Watermark
from kdproxy.errors import KdproxyError, RecordInvalid
from kdproxy.storage import names
from kdproxy.storage.journal import Journal

log = logging.getLogger("kdproxy.storage")

BATCH = 500
"""Records in one transaction."""
_SEAL_TAIL_BYTES = 66  # the checksum's hex digits with the closing `"}`
_REPORTED_DAMAGE = 20

Placed = tuple[Record, Location]
"""A record and where its line lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReport:
    """What opening or rebuilding found."""

    indexed_lines: int
    """Lines read because the index did not have them."""
    torn_bytes: int
    damage: tuple[Damage, ...]
    is_rebuilt: bool
    """Whether the whole index was made anew."""


class Indexer:
    """The index of one journal."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self._journal = journal
        self._store = store
        self.counters = names.Counters()

    def recover(self) -> OpenReport:
        """Cut a torn tail, and read what the index does not have yet."""
        torn = self._journal.cut_torn_tail()
        if torn:
            log.warning("an unfinished last line was cut off the journal", extra={"bytes": torn})
        mark = self._store.watermark()
        if mark is not None and not self._continues(mark):
            log.warning("the index does not fit the journal and is rebuilt", extra={})
            return self.rebuild(torn_bytes=torn)
        self.counters = names.Counters.load(self._store.get(names.COUNTERS))
        return self._read_on(mark, torn_bytes=torn, is_rebuilt=False)

    def rebuild(self, *, torn_bytes: int = 0) -> OpenReport:
        """Make the index anew."""
        self._store.clear()
        self.counters = names.Counters()
        return self._read_on(None, torn_bytes=torn_bytes, is_rebuilt=True)

    def apply(self, placed: Sequence[Placed], watermark: Watermark | None) -> None:
        """Index records in one transaction, with the watermark that covers them.

        Raises:
            StorageFailed: nothing of it is in the index.
        """
        puts: dict[str, bytes] = {}
        deletes: set[str] = set()
        counters = self.counters.copy()
        changes = [(record, names.rows_of(record, location)) for record, location in placed]
        stored = self._store.get_all([name for _, rows in changes for name in rows])
        for record, rows in changes:
            for name, value in rows.items():
                is_held = name in puts or (name not in deletes and name in stored)
                if value is not None:
                    if name.startswith(names.COUNTED) and not is_held:
                        counters.add(record)
                    deletes.discard(name)
                    puts[name] = value
                elif is_held:
                    self._uncount(counters, puts.pop(name, None) or stored.get(name))
                    deletes.add(name)
        puts[names.COUNTERS] = counters.dump()
        self._store.apply(Batch(puts=puts, deletes=frozenset(deletes), watermark=watermark))
        self.counters = counters

    def mend(self, mending: Mending) -> None:
        """Put rows right that are still as they were found. Raises StorageFailed."""
        counters = self.counters.copy()
        for upstream, count in mending.answers.items():
            counters.answers[upstream] = counters.answers.get(upstream, 0) + count
        counters.prompts += mending.prompts
        puts = {names.COUNTERS: counters.dump()}
        deletes = set()
        for name, (found, wanted) in mending.rows.items():
            if self._store.get(name) != found:
                continue
            if wanted is None:
                deletes.add(name)
            else:
                puts[name] = wanted
        self._store.apply(Batch(puts=puts, deletes=frozenset(deletes)))
        self.counters = counters

    def _uncount(self, counters: names.Counters, row: bytes | None) -> None:
        assert row is not None  # the caller has seen it
        location = names.unpack(row)
        try:
            found = record_format.decode(self._journal.read(location))
        except KdproxyError as error:
            # The line is damaged: who sold it is not known any more. `verify` finds the sum that is now too high.
            report_unreadable(self._journal.name, location, error)
            return
        assert not isinstance(found, Tombstone)  # what a tombstone withdraws are answers and prompts
        counters.add(found, -1)

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
        placed: list[Placed] = []
        count = 0
        for line in self._journal.lines(**start):
            count += 1
            location = line.location
            try:
                placed.append((record_format.decode(line.raw), location))
            except RecordInvalid as error:
                name = self._journal.name(location.segment)
                damage.append(Damage(segment_name=name, location=location, reason=error.message))
                if len(damage) <= _REPORTED_DAMAGE:
                    report_unreadable(self._journal.name, location, error)
                continue
            if len(placed) >= BATCH:
                self.apply(placed, watermark_after(location, line.raw))
                placed.clear()
            last = (location, line.raw)
        if placed:
            self.apply(placed, watermark_after(*last))
        return OpenReport(indexed_lines=count, torn_bytes=torn_bytes, damage=tuple(damage), is_rebuilt=is_rebuilt)


def watermark_after(location: Location, line: bytes) -> Watermark:
    """Return the mark that says: read up to the end of this line."""
    seal = line.rstrip(b"\n")[-_SEAL_TAIL_BYTES:].decode("latin-1")
    return Watermark(location.segment, location.offset + location.length, seal)


def report_unreadable(segment_name: Callable[[int], str], location: Location, error: KdproxyError) -> None:
    """Log a line that cannot be used."""
    log.error(
        "a journal line cannot be used",
        extra={
            "segment": segment_name(location.segment),
            "offset": location.offset,
            "bytes": location.length,
            "reason": error.message,
        },
    )
