"""`verify`: every line of the journal checked, each sealed segment compared with the manifest, and the index with the
journal both ways; a repair mends the index.

Works beside a running proxy: what it writes meanwhile is left out. Takes about 300 bytes of memory for each live line.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kdproxy.core import record as record_format
from kdproxy.core.models import Entry, Prompt, Record, Tombstone
from kdproxy.core.ports import Library, Location, Mending
from kdproxy.ops.context import JobContext
from kdproxy.ops.event import Events, Finding, Progress, Result
from kdproxy.ops.live import Damaged, Whole, pages, read
from kdproxy.ops.segments import SegmentCheck
from kdproxy.storage import names

MOST_SHOWN = 100
"""Problems that are told one by one; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyArguments:
    """What `verify` is told."""

    repair: bool = False
    """Mend the index."""


def verify(context: JobContext, arguments: VerifyArguments) -> Events:
    """Check everything; the result counts the problems and says whether the index was mended."""
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
        yield from check.told()
        yield Progress(done_bytes=done, total_bytes=snapshot.journal_bytes)
    for name, reason in segments.problems():
        check.report({"kind": "segment", "segment": name, "reason": reason})
    suspects = check.compare_index()
    check.judge(suspects, unless=_written_since(library, snapshot.end))
    mending = check.mending(snapshot.answers, snapshot.prompts)
    yield from check.told()
    is_repaired = arguments.repair and check.has_index_problems
    if is_repaired:
        library.mend(mending)
    yield Result({**check.sums(), "is_repaired": is_repaired})


def _written_since(library: Library, end: Location) -> frozenset[str]:
    """Return the names whose rows may have changed since the journal was read."""
    touched: set[str] = set()
    for page in pages(library, end=library.snapshot().end, start=end):
        for row in read(page):
            if isinstance(row, Whole):
                touched.add(names.name_of(row.record))
                if isinstance(row.record, Tombstone):
                    touched.update(names.withdrawn_names(row.record))
    return frozenset(touched)


class _Check:
    """What the journal says must be in the index, and what is found wrong."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._expected: dict[str, bytes] = {}
        self._answers: Counter[str] = Counter()
        self._prompts = 0
        self._lines = 0
        self._kinds: Counter[str] = Counter()
        self._untold: list[Finding] = []
        self._rows: dict[str, tuple[bytes | None, bytes | None]] = {}

    # -- the journal ------------------------------------------------------------------------------------------

    def take(self, rows: list[Whole | Damaged]) -> None:
        """Take some lines, in journal order."""
        self._lines += len(rows)
        responses: list[str] = []
        for row in rows:
            if isinstance(row, Damaged):
                self.report(row.members(self._library))
                continue
            self._expect(row.record, names.pack(row.line.location))
            if isinstance(row.record, Entry) and row.record.response_id is not None:
                responses.append(names.response_name(row.record.address.namespace, row.record.response_id))
        for name, value in zip(responses, self._library.look_up(responses), strict=True):
            if value is None and name not in self._rows:
                self._misplaced(name, None, names.KNOWN)

    def _expect(self, record: Record, place: bytes) -> None:
        name = names.name_of(record)
        if isinstance(record, Tombstone):
            for withdrawn in names.withdrawn_names(record):
                previous = self._expected.pop(withdrawn, None)
                if previous is not None:
                    self._count(record_format.decode(self._library.read(names.unpack(previous))), -1)
        elif name not in self._expected:
            self._count(record, 1)
        self._expected[name] = place

    def _count(self, record: Record, count: int) -> None:
        match record:
            case Entry():
                self._answers[record.upstream] += count
            case Prompt():
                self._prompts += count

    # -- the index --------------------------------------------------------------------------------------------

    def compare_index(self) -> dict[str, bytes | None]:
        """Return the rows that do not fit, by name, as they were found; what fits is forgotten."""
        suspects: dict[str, bytes | None] = {}
        for name, value in self._library.index():
            if self._expected.get(name) == value:
                del self._expected[name]
            else:
                suspects[name] = value
        return {**dict.fromkeys(self._expected), **suspects}

    def judge(self, suspects: Mapping[str, bytes | None], *, unless: frozenset[str]) -> None:
        """Report the rows that do not fit, but for those written since the journal was read."""
        for name, found in suspects.items():
            if name not in unless:
                self._misplaced(name, found, self._expected.get(name))

    def _misplaced(self, name: str, found: bytes | None, wanted: bytes | None) -> None:
        self._rows[name] = (found, wanted)
        kind = "missing" if found is None else "dangling" if wanted is None else "misplaced"
        self.report({"kind": kind, "row": name, **self._place(found, ""), **self._place(wanted, "right_")})

    def _place(self, value: bytes | None, prefix: str) -> dict[str, object]:
        if value is None or value == names.KNOWN:
            return {}
        location = names.unpack(value)
        return {
            f"{prefix}segment": self._library.segment_name(location.segment),
            f"{prefix}offset": location.offset,
        }

    def mending(self, answers: Mapping[str, int], prompts: int) -> Mending:
        """Return what mends the index, whose sums were these, and report sums that are wrong."""
        missing = {
            upstream: self._answers[upstream] - answers.get(upstream, 0)
            for upstream in self._answers.keys() | answers.keys()
        }
        missing = {upstream: count for upstream, count in missing.items() if count}
        if missing or prompts != self._prompts:
            self.report(
                {
                    "kind": "sums",
                    "answers": dict(answers),
                    "right_answers": +self._answers,
                    "prompts": prompts,
                    "right_prompts": self._prompts,
                }
            )
        return Mending(rows=self._rows, answers=missing, prompts=self._prompts - prompts)

    # -- what is told -----------------------------------------------------------------------------------------

    @property
    def has_index_problems(self) -> bool:
        """Whether there is something to mend."""
        return bool(self._kinds.keys() - {"damaged", "segment", "index"})

    def told(self) -> Iterator[Finding]:
        """Hand out what was found."""
        untold, self._untold = self._untold, []
        yield from untold

    def sums(self) -> dict[str, int]:
        """Return the counts of lines and problems."""
        kinds = ("damaged", "missing", "dangling", "misplaced", "sums", "segment", "index")
        counts = {kind: self._kinds[kind] for kind in kinds}
        return {"lines": self._lines, "problems": self._kinds.total(), **counts}

    def report(self, members: dict[str, object]) -> None:
        """Take in a problem."""
        self._kinds[str(members["kind"])] += 1
        if self._kinds.total() <= MOST_SHOWN:
            self._untold.append(Finding(members))
