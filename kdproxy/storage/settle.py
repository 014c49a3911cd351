"""Decides which generation an answer belongs to and which ones it ends.

This happens on the writer thread when the line is written: nothing else is written between look-up and line.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from kdproxy.core.line import seal
from kdproxy.core.models import Address, Entry, LineName, NamedRecord, Record, Tombstone
from kdproxy.core.ports import Intent, RecordLine
from kdproxy.core.record_encode import RECORD_VERSION, draft, encode, settled
from kdproxy.storage import names
from kdproxy.storage.fold import Fold
from kdproxy.storage.life import Life
from kdproxy.storage.sample_row import Generation


class Draft(NamedTuple):
    """A record of this life, encoded except for what `settle` adds. If its write fails, it keeps its name."""

    record: Record
    name: LineName
    text: bytes
    intent: Intent
    v1_key: str | None

    def needed(self) -> list[str]:
        """Names of the index rows that `settle` reads."""
        row = names.row_of(self.record)
        if row is None:
            return []
        if self.v1_key is None or not isinstance(self.record, Entry):
            return [row]
        return [row, names.sample_name(_old(self.record.address, self.v1_key))]


def drafted(record: Record, life: Life, *, intent: Intent = Intent.FILL, v1_key: str | None = None) -> Draft:
    """Name and encode a record."""
    name = life.next_name()
    return Draft(record, name, draft(record, name), intent, v1_key)


def settle(found: Draft, fold: Fold, life: Life) -> Iterator[RecordLine]:
    """Yield the lines of a draft; none if it is not to be stored."""
    match found.record:
        case Entry() as entry:
            return _settled_answer(found, entry, fold, life)
        case Tombstone(withdraws=()) as tombstone:
            live = fold.generations(names.row_of(tombstone) or "")
            return (_sealed(each, life) for each in by_name(tombstone, live))
        case record:
            return iter([(NamedRecord(record, found.name, RECORD_VERSION), seal(found.text))])


def by_name(tombstone: Tombstone, live: list[Generation]) -> list[Tombstone]:
    """Return tombstones for all that is live at an address; each is addressed to the home of what it ends."""
    ended: dict[tuple[str, int], list[LineName]] = {}
    for generation in live:
        home = generation.home
        place = (tombstone.key, tombstone.ordinal) if home is None else (home.key, home.ordinal)
        ended.setdefault(place, []).append(generation.name)
    return [
        replace(tombstone, key=key, ordinal=ordinal, withdraws=tuple(each)) for (key, ordinal), each in ended.items()
    ]


def _settled_answer(found: Draft, entry: Entry, fold: Fold, life: Life) -> Iterator[RecordLine]:
    address = entry.address
    live = fold.generations(names.sample_name(address))
    old_address = address if found.v1_key is None else _old(address, found.v1_key)
    old = [] if old_address == address else fold.generations(names.sample_name(old_address))
    generation, replaces = None, tuple[LineName, ...]()
    match found.intent:
        case Intent.RECORD if any(each.recording(entry.answer.form) for each in (*live, *old)):
            return
        case Intent.REFRESH:
            replaces = tuple(dict.fromkeys(each.name for each in (*live, *old)))
        case _:
            generation = _missing_in(live, entry, fold)
    if generation is not None or replaces:
        entry = entry._replace(generation=generation, replaces=replaces)
    line = settled(found.text, generation=generation, replaces=replaces)
    yield NamedRecord(entry, found.name, RECORD_VERSION), line
    if not replaces:
        return
    # Seated generations are ended at their homes too. After the answer: a crash in between then loses no answer.
    refreshed = _refreshed(address, entry.created_at)
    for tombstone in by_name(refreshed, [each for each in live if each.home is not None]):
        yield _sealed(tombstone, life)
    for tombstone in by_name(_refreshed(old_address, entry.created_at), old):
        yield _sealed(tombstone, life)


def _refreshed(address: Address, now: float) -> Tombstone:
    return Tombstone(
        namespace=address.namespace,
        key=address.key,
        ordinal=address.ordinal,
        kind="answer",
        reason="refreshed",
        created_at=now,
    )


def _sealed(record: Record, life: Life) -> RecordLine:
    name = life.next_name()
    return NamedRecord(record, name, RECORD_VERSION), encode(record, name)


def _missing_in(live: list[Generation], entry: Entry, fold: Fold) -> LineName | None:
    """Return the first live generation if it lacks the answer's form; otherwise the answer is a spare."""
    if not live or live[0].home is not None:
        return None
    there = live[0].recording(entry.answer.form)
    return live[0].name if there is None or not fold.is_readable(there.location) else None


def _old(address: Address, v1_key: str) -> Address:
    return Address(address.namespace, v1_key, address.ordinal)
