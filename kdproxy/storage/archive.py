"""The archive: what has been paid for. Journal, index and recent answers behind the Library port."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from kdproxy.core import record as record_format
from kdproxy.core.models import Address, Answer, Form, Prompt, Record
from kdproxy.core.ports import Batch, JournalLine, Location, Mending, RecordLine, Snapshot, Store
from kdproxy.core.sightings import Sightings
from kdproxy.errors import KdproxyError, StorageFailed
from kdproxy.storage import names
from kdproxy.storage.indexer import report_unreadable
from kdproxy.storage.journal import Journal
from kdproxy.storage.life import Life
from kdproxy.storage.recent import RecentAnswers
from kdproxy.storage.writer import Write, Writer, call_soon

INDEX_PAGE = 1_000
"""Rows that a job reads in one go."""


class _Turn:
    """What is kept in one turn of the loop, and who waits for it."""

    __slots__ = ("futures", "lines", "records")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.lines: list[bytes] = []
        self.futures: list[asyncio.Future[bool]] = []

    def resolve(self, is_kept: bool) -> None:
        """Tell who waits."""
        for future in self.futures:
            if not future.done():
                future.set_result(is_kept)


class FileArchive:
    """The Library port over a Journal and a Store. `find`, `find_prompt`, `keep` are for the loop's thread."""

    def __init__(self, journal: Journal, make_store: Callable[[], Store], *, memory_bytes: int) -> None:
        self._journal = journal
        self._recent = RecentAnswers(memory_bytes)
        self._sightings = Sightings()
        self._writer = Writer(journal, make_store, on_change=self._recent.drop)
        self.report = self._writer.start()
        self._store = self._writer.store
        self._turn = _Turn()
        self._life = Life()

    # -- what the engine asks ---------------------------------------------------------------------------------

    def find(self, address: Address, form: Form) -> Answer | None:
        """Return a stored answer, or None. A damaged line is a miss, and is reported."""
        name = names.answer_name(address, form)
        answer = self._recent.get(name)
        if answer is not None:
            return answer
        epoch = self._recent.epoch
        value = self._writer.look_up(name)
        if value is None:
            return None
        location = names.unpack(value)
        try:
            answer = record_format.decode_answer(self._journal.read(location), address, form)
        except KdproxyError as error:
            report_unreadable(self._journal.name, location, error)
            return None
        if self._sightings.is_second(name):
            self._recent.put(name, answer, epoch=epoch)
        return answer

    @property
    def has_prompts(self) -> bool:
        """Whether there is any recorded prompt."""
        return self._writer.indexer.counters.prompts > 0

    def find_prompt(self, namespace: str, match_key: str, ordinal: int = 0) -> Prompt | None:
        """Return a recorded prompt, or None."""
        value = self._writer.look_up(names.prompt_name(namespace, match_key, ordinal))
        if value is None:
            return None
        location = names.unpack(value)
        try:
            found = record_format.decode(self._journal.read(location))
        except KdproxyError as error:
            report_unreadable(self._journal.name, location, error)
            return None
        is_right = isinstance(found, Prompt) and found.match_key == match_key and found.namespace == namespace
        return found if is_right and isinstance(found, Prompt) else None

    def knows_response(self, namespace: str, response_id: str) -> bool:
        """Whether a stored answer has this provider response id."""
        return self._writer.look_up(names.response_name(namespace, response_id)) is not None

    async def keep(self, record: Record) -> bool:
        """Make a record durable and findable; False if the disk refused and it waits in memory."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._writer.refuse_closed()
        line, turn = record_format.encode(record, self._life.next_name()), self._turn
        turn.records.append(record)
        turn.lines.append(line)
        turn.futures.append(future)
        if len(turn.futures) == 1:
            loop.call_soon(self._hand_over)
        return await future

    def _hand_over(self) -> None:
        """Give the writer what one turn of the loop keeps: one wake-up, one sync, one word when it is done."""
        turn, self._turn = self._turn, _Turn()
        if not turn.futures:
            return
        loop = turn.futures[0].get_loop()
        try:
            self._writer.submit(
                [Write(turn.records, turn.lines, lambda is_kept: call_soon(loop, turn.resolve, is_kept))]
            )
        except StorageFailed:
            turn.resolve(False)

    @property
    def is_writable(self) -> bool:
        """Whether the last write reached the disk."""
        return self._writer.is_writable

    @property
    def trouble(self) -> str | None:
        """Why the last write did not reach the disk, in one sentence; None if it did."""
        return self._writer.trouble

    @property
    def unwritten(self) -> int:
        """Lines that the disk has refused and that memory alone holds."""
        return self._writer.unwritten

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""
        if not self._writer.is_writable:  # read without the lock that a busy writer holds
            await self._writer.wait_writable()

    # -- what the jobs ask ------------------------------------------------------------------------------------

    def keep_all(self, records: Iterable[Record]) -> None:
        """Make many records durable, blocking. Raises StorageFailed."""
        placed = [(record, record_format.encode(record)) for record in records]
        self.revise(lambda: placed)

    def revise(self, decide: Callable[[], Sequence[RecordLine]]) -> None:
        """Keep what `decide` returns, records with their lines; nothing is written between its look-ups and that.

        Raises:
            StorageFailed: the disk refused; the records wait in memory while this process lives.
        """
        if not self._writer.revise(decide):
            raise StorageFailed(
                "The disk refused the write.",
                hint="Free disk space. The lines are held in memory and tried again while this process runs.",
                retryable=True,
            )

    def snapshot(self) -> Snapshot:
        """Look at the archive; every line before the snapshot's end is indexed."""
        return self._writer.call(self._look)

    def lines(self, start: Location | None = None) -> Iterator[JournalLine]:
        """Yield the lines of the journal in order, damaged ones included."""
        if start is None:
            return self._journal.lines()
        return self._journal.lines(segment=start.segment, offset=start.offset)

    def read(self, location: Location) -> bytes:
        """Return the line at a location. Raises StorageFailed."""
        return self._journal.read(location)

    def look_up(self, wanted: Sequence[str]) -> list[bytes | None]:
        """Return the index's values of some names."""
        found = self._writer.call(lambda: self._store.get_all(wanted))
        return [found.get(name) for name in wanted]

    def index(self) -> Iterator[tuple[str, bytes]]:
        """Yield the index's rows that lead to lines; a page at a time, so that writes get their turn."""
        for prefix in names.LEADING:
            rows = self._store.scan(prefix)
            while page := self._writer.call(partial(_page, rows)):
                yield from page

    def mend(self, mending: Mending) -> None:
        """Put the index right, leaving out rows that have changed meanwhile."""
        self._writer.call(lambda: self._writer.indexer.mend(mending))
        self._recent.drop_all()

    def note(self, name: str, value: bytes) -> None:
        """Put a row of its own into the index, where it is not there yet. A disk that refuses is no reason to fail."""

        def job() -> None:
            if self._store.get(name) != value:
                self._store.apply(Batch(puts={name: value}))

        with contextlib.suppress(StorageFailed):
            self._writer.call(job)

    def segment_name(self, segment: int) -> str:
        """File name of a segment."""
        return self._journal.name(segment)

    @property
    def counters(self) -> names.Counters:
        """Sums over what the index holds."""
        return self._writer.indexer.counters

    def close(self) -> None:
        """Write what waits, close all files."""
        self._hand_over()
        self._writer.close()

    def _look(self) -> Snapshot:
        active = self._journal.active_segment
        return Snapshot(
            end=Location(active, self._journal.segment_size(active), 0),
            answers=dict(self.counters.answers),
            prompts=self.counters.prompts,
            segments=len(self._journal.segments()),
            journal_bytes=self._journal.size_bytes,
        )


def _page(rows: Iterator[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return list(islice(rows, INDEX_PAGE))
