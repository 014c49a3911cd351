"""Decides which records of a file are taken: stored answers are not replaced, withdrawn ones stay withdrawn.

- Journal lines are copied unchanged, by name: a line that is already stored is not copied again, and a line whose
  generation was ended is not restored, whatever the clocks say. If the question already has another answer, that one
  is still served, and the copy is a spare.
- A line of record version 1 that would supersede an answer is taken only after a line of its own journal, as in that
  journal. Its tombstones become tombstones by name: they end the earlier lines of their own journal.
- Rows of trackers and Batch files answer only questions that have no answer.
- A damaged line is not an answer: the line of a copy replaces it.

So warming twice changes nothing, even if the first run was interrupted.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

from kdproxy.core import record as record_format
from kdproxy.core.models import Entry, LineName, NamedRecord, Prompt, Record, Seat, Tombstone
from kdproxy.core.ports import Library, Location, RecordLine
from kdproxy.core.record_encode import RECORD_VERSION, content_name, encode
from kdproxy.errors import KdproxyError
from kdproxy.storage import names
from kdproxy.storage.fold import Fold, needed
from kdproxy.storage.sample_row import PROMPT, Generation

_ORIGIN_BYTES = 12
_NOWHERE = 2**32 - 1
"""The segment number of lines that are not written yet."""


class Verdict(StrEnum):
    """What happens to a candidate."""

    TAKEN = "taken"
    ALREADY = "already"
    WITHDRAWN = "withdrawn"


class Candidate(NamedTuple):
    """A record that a file offers, with its line."""

    named: NamedRecord
    line: bytes
    is_journal: bool
    """Whether the line came unchanged from a journal."""

    @property
    def record(self) -> Record:
        """The record of the candidate."""
        return self.named.record


def made(record: Record) -> Candidate:
    """Make a candidate of a record that is not a journal line; its name is derived from its content."""
    if isinstance(record, Prompt) and math.isfinite(record.created_at):
        # Everything else in it is text, so its line can be read back; checking that would cost a sixth of a row.
        name = content_name(record)
        named = NamedRecord(record, name, RECORD_VERSION)
        return Candidate(named=named, line=encode(record, name), is_journal=False)
    line = encode(record)
    return Candidate(named=record_format.read(line), line=line, is_journal=False)


@dataclass(slots=True)
class Selection:
    """Decides for one run of `warm`."""

    library: Library
    _seen: dict[bytes, bytes] = field(default_factory=dict)
    """The lines of version 1 so far, by sample: the origins of their names, joined."""

    def take(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """Store the accepted candidates and return the verdict on each. Raises StorageFailed."""
        verdicts: list[Verdict] = []

        def decide() -> list[RecordLine]:
            fold = _fold(self.library, (name for each in candidates for name in needed(each.named)))
            chosen: list[RecordLine] = []
            places = [names.row_of(each.named.record) for each in candidates]
            times = Counter(places)
            for candidate, place in zip(candidates, places, strict=True):
                named, line = self._by_name(candidate, fold)
                verdict = self._judge(named, fold, is_journal=candidate.is_journal)
                verdicts.append(verdict)
                if verdict is Verdict.TAKEN:
                    # Only candidates for the same sample look at what a prompt changes: nearly always there are none.
                    if times[place] > 1 or not isinstance(named.record, Prompt):
                        fold.take(named, Location(_NOWHERE, len(chosen), len(line)))
                    chosen.append((named, line))
                self._note(candidate.named)
            return chosen

        self.library.revise(decide)
        return verdicts

    def _by_name(self, candidate: Candidate, fold: Fold) -> RecordLine:
        """Return a candidate as it is written: a version 1 tombstone then names what it ends."""
        named = candidate.named
        if not isinstance(named.record, Tombstone) or named.version > 1:
            return named, candidate.line
        ended = [name for name in self._seen_of(named.record) if fold.row(names.ended_name(name)) is None]
        record = replace(named.record, withdraws=tuple(ended))
        return NamedRecord(record, named.name, RECORD_VERSION), encode(record, named.name)

    def _judge(self, named: NamedRecord, fold: Fold, *, is_journal: bool) -> Verdict:
        record, name, _ = named
        match record:
            case Entry():
                if _are_ended(fold, (record.generation or name,)):
                    # What it replaced stays replaced: this archive does not know that yet.
                    return Verdict.WITHDRAWN if _are_ended(fold, record.replaces) else Verdict.TAKEN
                is_held = self._is_held(named, record.generation or name, record.answer.form, fold, is_journal)
            case Prompt():
                if _are_ended(fold, (name,)):
                    return Verdict.WITHDRAWN
                is_held = self._is_held(named, name, PROMPT, fold, is_journal)
            case Tombstone():
                is_held = _are_ended(fold, record.withdraws)
            case Seat():
                if _are_ended(fold, (record.generation,)):
                    return Verdict.WITHDRAWN
                live = fold.generations(names.sample_name(record.address))
                is_held = any(each.name == record.generation for each in live)
            case _:
                is_held = fold.row(names.other_name(name)) is not None
        return Verdict.ALREADY if is_held else Verdict.TAKEN

    def _is_held(self, named: NamedRecord, generation: LineName, form: str, fold: Fold, is_journal: bool) -> bool:
        live = fold.generations(names.row_of(named.record) or "")
        if not live:
            return False
        if not is_journal:
            return any(_is_whole(each, form, fold) for each in live)
        if any(each.name == generation and _is_whole(each, form, fold) for each in live):
            return True
        if named.version > 1:
            return False
        seen = self._seen_of(named.record)
        holders = [each.name for each in live if _is_whole(each, form, fold)]
        return any(name not in seen for name in holders)

    def _note(self, named: NamedRecord) -> None:
        if named.version == 1 and isinstance(named.record, Entry | Prompt):
            place = _place(named.record)
            self._seen[place] = self._seen.get(place, b"") + bytes.fromhex(named.name.origin)

    def _seen_of(self, record: Record) -> list[LineName]:
        found = self._seen.get(_place(record), b"")
        starts = range(0, len(found), _ORIGIN_BYTES)
        return list(dict.fromkeys(LineName(found[at : at + _ORIGIN_BYTES].hex(), 0) for at in starts))


def _is_whole(generation: Generation, form: str, fold: Fold) -> bool:
    recording = generation.recording(form)
    return recording is not None and fold.is_readable(recording.location)


def _are_ended(fold: Fold, ended: Iterable[LineName]) -> bool:
    for name in ended:  # noqa: SIM110  # a generator takes longer, and this runs for each line
        if fold.row(names.ended_name(name)) is None:
            return False
    return True


def _place(record: Record) -> bytes:
    """A short name of a sample: 64 bits are enough to distinguish ten million, and fit into memory."""
    return blake2b((names.row_of(record) or "").encode(), digest_size=8).digest()


def _fold(library: Library, wanted: Iterable[str]) -> Fold:
    asked = list(dict.fromkeys(wanted))
    stored = dict(zip(asked, library.look_up(asked), strict=True))

    def look_up(name: str) -> bytes | None:
        return stored[name] if name in stored else library.look_up([name])[0]

    def read(location: Location) -> Record | None:
        try:
            return record_format.decode(library.read(location))
        except KdproxyError:
            return None

    return Fold(look_up, names.Counters(), read)
