"""Which of the records that a file offers are taken: what is there stays, what was withdrawn stays withdrawn.

- A question that has an answer keeps it, so that a run goes on getting what it got. Only a later line of the same
  journal supersedes an earlier one, as it did there. A damaged line is no answer: what a copy has takes its place.
- A record older than the tombstone of its sample is not brought back; a record without a time of its own is as old
  as can be. A tombstone does nothing to an answer that is newer than it.

So warming twice changes nothing, and neither does being interrupted in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kdproxy.core import record as record_format
from kdproxy.core.models import Record, Tombstone
from kdproxy.core.ports import Library, RecordLine
from kdproxy.errors import KdproxyError
from kdproxy.ops.live import seal_of
from kdproxy.storage import names


class Verdict(StrEnum):
    """What becomes of a candidate."""

    TAKEN = "taken"
    ALREADY = "already"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A record that a file offers, with its line."""

    record: Record
    line: bytes
    is_journal: bool
    """Whether the line came as it is, from a journal."""
    said_at: float | None
    """When the answer was given, as far as the file says."""


@dataclass(slots=True)
class Selection:
    """Decides for one run of `warm`."""

    library: Library
    _seen: set[int] = field(default_factory=set)
    """Checksums of the journal lines that went by: what they wrote may be superseded by their own journal."""

    def take(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """Keep those that are to be kept and return what became of each. Raises StorageFailed."""
        verdicts: list[Verdict] = []

        def decide() -> list[RecordLine]:
            look = _Look(self.library, candidates)
            verdicts[:] = [self._judge(candidate, look) for candidate in candidates]
            chosen = zip(candidates, verdicts, strict=True)
            return [(found.record, found.line) for found, verdict in chosen if verdict is Verdict.TAKEN]

        self.library.revise(decide)
        return verdicts

    def _judge(self, candidate: Candidate, look: "_Look") -> Verdict:
        record = candidate.record
        if isinstance(record, Tombstone):
            verdict = _judge_tombstone(record, look)
        else:
            verdict = self._judge_answer(candidate, names.name_of(record), names.withdrawal_of(record), look)
        if verdict is Verdict.TAKEN:
            look.put(candidate)
        if candidate.is_journal:
            self._seen.add(_seal(candidate.line))
        return verdict

    def _judge_answer(self, candidate: Candidate, name: str, withdrawal: str, look: "_Look") -> Verdict:
        there = look.line(name) if candidate.is_journal else None
        if there is not None:
            seal = _seal(there)
            is_superseded = seal != _seal(candidate.line) and seal in self._seen
            return Verdict.TAKEN if is_superseded else Verdict.ALREADY
        if look.has(name):
            return Verdict.ALREADY
        withdrawn_at = look.written_at(withdrawal)
        if withdrawn_at is not None and (candidate.said_at is None or candidate.said_at <= withdrawn_at):
            return Verdict.WITHDRAWN
        return Verdict.TAKEN


def _judge_tombstone(tombstone: Tombstone, look: "_Look") -> Verdict:
    known_at = look.written_at(names.name_of(tombstone))
    if known_at is not None and known_at >= tombstone.created_at:
        return Verdict.ALREADY
    ages = [look.written_at(name) for name in names.withdrawn_names(tombstone)]
    is_outlived = any(age is not None and age > tombstone.created_at for age in ages)
    return Verdict.ALREADY if is_outlived else Verdict.TAKEN


class _Look:
    """The index as the candidates taken so far make it."""

    def __init__(self, library: Library, candidates: Sequence[Candidate]) -> None:
        self._library = library
        wanted = list(dict.fromkeys(name for candidate in candidates for name in _names(candidate.record)))
        self._values = dict(zip(wanted, library.look_up(wanted), strict=True))
        self._written: dict[str, bytes | None] = {}
        """Lines of this batch; None where it withdrew one."""

    def has(self, name: str) -> bool:
        return self.line(name) is not None

    def line(self, name: str) -> bytes | None:
        """Return the line that a name leads to; None if there is none, or it is damaged: then it answers nothing."""
        if name in self._written:
            return self._written[name]
        value = self._values[name]
        if value is None:
            return None
        try:
            line = self._library.read(names.unpack(value))
        except KdproxyError:
            return None
        return line if record_format.is_whole(line) else None

    def written_at(self, name: str) -> float | None:
        line = self.line(name)
        if line is None:
            return None
        try:
            return record_format.decode(line).created_at
        except KdproxyError:
            return None

    def put(self, candidate: Candidate) -> None:
        record = candidate.record
        if isinstance(record, Tombstone):
            self._written.update(dict.fromkeys(names.withdrawn_names(record)))
        self._written[names.name_of(record)] = candidate.line


def _names(record: Record) -> list[str]:
    if isinstance(record, Tombstone):
        return [names.name_of(record), *names.withdrawn_names(record)]
    return [names.name_of(record), names.withdrawal_of(record)]


def _seal(line: bytes) -> int:
    try:
        return int(seal_of(line), 16)
    except ValueError:
        return -1  # damaged since: it equals no line that was read
