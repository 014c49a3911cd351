"""`verify`: checks every line of the journal, and compares each sealed segment with the manifest and the index with the
journal both ways; a repair fixes the index.

Works beside a running proxy: what it writes meanwhile is left out. Takes about 300 bytes of memory for each live line.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kdproxy.core import line as lines
from kdproxy.core import record as record_format
from kdproxy.core.call_event import read_event
from kdproxy.core.models import Record
from kdproxy.core.ports import Library, Location, Repair, Snapshot
from kdproxy.errors import KdproxyError, RecordInvalid
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Events, Finding, Progress, Result
from kdproxy.ops.live import Damaged, Whole, pages, read
from kdproxy.ops.segments import SegmentCheck
from kdproxy.storage import names
from kdproxy.storage.fold import Fold, needed
from kdproxy.storage.sample_row import unpack

MOST_SHOWN = 100
"""Problems that are reported one by one; all are counted."""


_REPAIR = "`kdproxy verify --repair` repairs the index."
_HINTS = {
    "damaged": "A damaged line answers no request, and a lost answer is bought again when it is requested. To restore "
    "lost answers: `kdproxy warm COPY`, with a copy of the journal. `kdproxy export` leaves such lines out.",
    "event": "A damaged line of the events log: nothing to do. Its call counts as if the line were not there.",
    "index": "The index: nothing to do. `kdproxy serve` rebuilds it from the journal, and so does `kdproxy verify "
    "--repair`.",
}
"""What to do for a problem, by kind; for a row or a sum of the index: repair it. Segments say it themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyArguments:
    """The arguments of `verify`."""

    repair: bool = False
    """Repair the index."""


def verify(context: JobContext, arguments: VerifyArguments) -> Events:
    """Check everything; the result counts the problems and says whether the index was repaired."""
    library = context.library
    segments = SegmentCheck(context.manifest)
    snapshot = library.snapshot()
    check = _Check(library)
    if context.index_trouble is not None:
        check.report({"kind": "index", "reason": context.index_trouble})
    done = 0
    for page in pages(library, end=snapshot.end):
        for numbered in page:
            segments.take(library.segment_name(numbered.location.segment), numbered.line.raw)
        check.take(page_rows := read(page))
        done += sum(row.line.location.length for row in page_rows)
        yield from check.unreported()
        yield Progress(done_bytes=done, total_bytes=snapshot.journal_bytes)
    for name, reason, hint in segments.problems():
        check.report({"kind": "segment", "segment": name, "reason": reason, "hint": hint})
    events = check.take_events()
    suspects = check.compare_index()
    check.judge(suspects, unless=_written_since(library, snapshot.end))
    repair = check.repair(snapshot)
    yield from check.unreported()
    is_repaired = arguments.repair and check.has_index_problems
    if is_repaired:
        library.repair(repair)
    yield Result(
        {
            **check.sums(),
            "is_repaired": is_repaired,
            "hints": [hint for hint in check.hints if not (is_repaired and hint == _REPAIR)],
            "events": events,
            "calls": library.call_state().as_dict(),
        }
    )


def _written_since(library: Library, end: Location) -> frozenset[str]:
    """Return the names whose rows may have changed since the journal was read."""
    touched: set[str] = set()
    for page in pages(library, end=library.snapshot().end, start=end):
        for row in read(page):
            if isinstance(row, Whole):
                touched.update(needed(row.named))
    return frozenset(touched)


class _Check:
    """Compares what the journal says must be in the index with the index, and counts the problems."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._expected: dict[str, bytes] = {}
        self._counters = names.Counters()
        self._lines = 0
        self._kinds: Counter[str] = Counter()
        self._unreported: list[Finding] = []
        self.hints: dict[str, None] = {}
        """What to do, each once, in the order of the problems."""
        self._rows: dict[str, tuple[bytes | None, bytes | None]] = {}

    # -- the journal ------------------------------------------------------------------------------------------

    def take(self, rows: list[Whole | Damaged]) -> None:
        """Take lines in journal order."""
        self._lines += len(rows)
        fold = Fold(self._expected.get, self._counters, self._read)
        for row in rows:
            if isinstance(row, Damaged):
                self.report(row.members(self._library))
            else:
                fold.take(row.named, row.line.location)
        responses = [name for name, value in fold.changes.items() if value == names.KNOWN]
        for name, value in zip(responses, self._library.look_up(responses), strict=True):
            del fold.changes[name]
            if value is None and name not in self._rows:
                self._misplaced(name, None, names.KNOWN)
        self._expected.update(fold.changes)

    def _read(self, location: Location) -> Record | None:
        try:
            return record_format.decode(self._library.read(location))
        except KdproxyError:
            return None

    def take_events(self) -> int:
        """Check the lines of the events log; return their number.

        A line that a power cut tore or left as NULs is not a problem: the log counts it.
        """
        count = 0
        for line in self._library.event_lines():
            count += 1
            try:
                read_event(line.raw)
            except RecordInvalid as error:
                if not lines.is_torn(line.raw):
                    name = self._library.event_segment_name(line.location.segment)
                    members = {"segment": name, "offset": line.location.offset, "reason": error.message}
                    self.report({"kind": "event", **members})
        return count

    # -- the index --------------------------------------------------------------------------------------------

    def compare_index(self) -> dict[str, bytes | None]:
        """Return the rows that do not match, by name, with their found values; forget those that match."""
        suspects: dict[str, bytes | None] = {}
        for name, value in self._library.index():
            if self._expected.get(name) == value:
                del self._expected[name]
            else:
                suspects[name] = value
        return {**dict.fromkeys(self._expected), **suspects}

    def judge(self, suspects: Mapping[str, bytes | None], *, unless: frozenset[str]) -> None:
        """Report the rows that do not match, except those written since the journal was read."""
        for name, found in suspects.items():
            if name not in unless:
                self._misplaced(name, found, self._expected.get(name))

    def _misplaced(self, name: str, found: bytes | None, wanted: bytes | None) -> None:
        self._rows[name] = (found, wanted)
        kind = "missing" if found is None else "dangling" if wanted is None else "misplaced"
        self.report({"kind": kind, "row": name, **self._place(name, found, ""), **self._place(name, wanted, "right_")})

    def _place(self, name: str, value: bytes | None, prefix: str) -> dict[str, object]:
        location = None if value is None else _location_of(name, value)
        if location is None:
            return {}
        return {
            f"{prefix}segment": self._library.segment_name(location.segment),
            f"{prefix}offset": location.offset,
        }

    def repair(self, snapshot: Snapshot) -> Repair:
        """Return the repair of the index as of a snapshot, and report wrong sums."""
        right, answers = self._counters, snapshot.answers
        missing = {
            upstream: right.answers.get(upstream, 0) - answers.get(upstream, 0)
            for upstream in right.answers.keys() | answers.keys()
        }
        missing = {upstream: count for upstream, count in missing.items() if count}
        if missing or (snapshot.prompts, snapshot.old_keys) != (right.prompts, right.old_keys):
            self.report(
                {
                    "kind": "sums",
                    "answers": dict(answers),
                    "right_answers": {upstream: count for upstream, count in right.answers.items() if count},
                    "prompts": snapshot.prompts,
                    "right_prompts": right.prompts,
                }
            )
        return Repair(
            rows=self._rows,
            answers=missing,
            prompts=right.prompts - snapshot.prompts,
            old_keys=right.old_keys - snapshot.old_keys,
        )

    # -- the findings ----------------------------------------------------------------------------------------

    @property
    def has_index_problems(self) -> bool:
        """Whether the index needs a repair."""
        return bool(self._kinds.keys() - {"damaged", "segment", "index", "event"})

    def unreported(self) -> Iterator[Finding]:
        """Yield the findings that have not been reported yet."""
        findings, self._unreported = self._unreported, []
        yield from findings

    def sums(self) -> dict[str, int]:
        """Return the counts of lines and problems."""
        kinds = ("damaged", "missing", "dangling", "misplaced", "sums", "segment", "index", "event")
        counts = {kind: self._kinds[kind] for kind in kinds}
        return {"lines": self._lines, "problems": self._kinds.total(), **counts}

    def report(self, members: dict[str, object]) -> None:
        """Count a problem, and queue it as a finding."""
        kind = str(members["kind"])
        self._kinds[kind] += 1
        members.setdefault("hint", _HINTS.get(kind, _REPAIR))
        self.hints[str(members["hint"])] = None
        if self._kinds.total() <= MOST_SHOWN:
            self._unreported.append(Finding(members))


def _location_of(name: str, row: bytes) -> Location | None:
    """Return the location of the first line that a row points to; None: to none, or it is damaged."""
    if row == names.KNOWN or not row:
        return None
    if not name.startswith(("s/", "m/")):
        return names.unpack(row) if len(row) == names.LOCATION_BYTES else None
    for first in unpack(row)[:1]:
        if first.home is not None:
            return first.home.seat
        for recording in first.recordings[:1]:
            return recording.location
    return None
