"""The archive of everything that was paid for: journal, index and recent answers behind the Library port."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from kdproxy.core import record as record_format
from kdproxy.core.call_state import CallState
from kdproxy.core.models import Address, Answer, Form, LineName, NamedRecord, Prompt, Record
from kdproxy.core.ports import Batch, Intent, JournalLine, Location, RecordLine, Repair, Snapshot, Store
from kdproxy.core.run_history import History
from kdproxy.core.run_list import RunList
from kdproxy.core.sightings import Sightings
from kdproxy.errors import KdproxyError, StorageFailed
from kdproxy.storage import names
from kdproxy.storage.damage_log import DamageLog
from kdproxy.storage.event_log import EventLog, OpenFiles
from kdproxy.storage.journal import Journal
from kdproxy.storage.life import Life
from kdproxy.storage.recent import RecentAnswers
from kdproxy.storage.sample_row import Generation, only_location, unpack
from kdproxy.storage.settle import Draft, drafted
from kdproxy.storage.writer import Write, Writer, call_soon

_FORMS = tuple(map(str, Form))
INDEX_PAGE = 1_000
"""Rows that a job reads at a time."""


class _Turn:
    """The records stored in one turn of the loop, and the futures that wait for them."""

    __slots__ = ("drafts", "futures")

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.futures: list[asyncio.Future[bool]] = []

    def resolve(self, is_kept: bool) -> None:
        """Resolve the futures that wait."""
        for future in self.futures:
            if not future.done():
                future.set_result(is_kept)


class FileArchive:
    """The Library port over a Journal and a Store. `find`, `find_prompt` and `keep` belong to the loop's thread."""

    def __init__(
        self,
        journal: Journal,
        make_store: Callable[[], Store],
        *,
        memory_bytes: int,
        before_first: Callable[[], None] = lambda: None,
        open_events: OpenFiles | None = None,
    ) -> None:
        """Open the journal's index and read what both logs have gained since.

        Args:
            before_first: runs on the writer thread before anything is written.
            open_events: opens the events log; None: the one beside the journal.
        """
        self._journal = journal
        self._recent = RecentAnswers(memory_bytes)
        self._sightings = Sightings()
        self._damage = DamageLog(journal.name)
        self._life = Life()
        self.calls = EventLog(open_events or journal.open_events, self._life, on_lag=self._note_calls)
        self._writer = Writer(
            journal, make_store, self._life, self.calls, before_first=before_first, on_change=self._drop_recent
        )
        self.report = self._writer.start()
        self._store = self._writer.store
        self._turn = _Turn()

    # -- what the engine asks ---------------------------------------------------------------------------------

    def find(
        self,
        address: Address,
        form: Form,
        fits: Callable[[Answer], bool] | None = None,
        *,
        or_json: Callable[[Answer], bool] | None = None,
    ) -> Answer | None:
        """Return the first stored answer that fits, or None. A damaged line is a miss and is logged.

        Args:
            or_json: whether an answer in JSON will do, if there is none in the form: it is in the same row.
        """
        row = names.sample_name(address)
        name = f"{row}/{form}"
        answer = self._recent.get(name)
        if answer is not None and (fits is None or fits(answer)):
            return answer
        epoch = self._recent.epoch
        value = self._writer.look_up(row)
        if not value:
            return None
        answer = self._find_in(value, name, address, form, fits, epoch)
        if answer is None and or_json is not None:
            name = f"{row}/{Form.JSON}"
            answer = self._recent.get(name)
            if answer is None or not or_json(answer):
                answer = self._find_in(value, name, address, Form.JSON, or_json, epoch)
        return answer

    def _find_in(
        self,
        value: bytes,
        name: str,
        address: Address,
        form: Form,
        fits: Callable[[Answer], bool] | None,
        epoch: int,
    ) -> Answer | None:
        location = only_location(value, form)
        if location is None:
            return self._find_among(unpack(value), address, form, fits)
        try:
            answer = record_format.decode_answer(self._journal.read(location), address, form)
        except KdproxyError as error:
            self._damage.report(location, error)
            return None
        if self._sightings.is_second(name):
            self._recent.put(name, answer, epoch=epoch)
        return answer if fits is None or fits(answer) else None

    def _find_among(
        self, generations: list[Generation], address: Address, form: Form, fits: Callable[[Answer], bool] | None
    ) -> Answer | None:
        """Return the first live answer that fits; one that is seated here is read at its home address."""
        for generation in generations:
            home = address
            if generation.home is not None:
                home = Address(address.namespace, generation.home.key, generation.home.ordinal)
            found = self._at_home(generation, home)
            recording = None if found is None else found.recording(form)
            answer = None if recording is None else self._read_answer(recording.location, home, form)
            if answer is not None and (fits is None or fits(answer)):
                return answer
        return None

    def _at_home(self, generation: Generation, home: Address) -> Generation | None:
        if generation.home is None:
            return generation
        for found in unpack(self._writer.look_up(names.sample_name(home))):
            if found.name == generation.name and found.home is None:
                return found
        return None

    def _read_answer(self, location: Location, address: Address, form: Form) -> Answer | None:
        try:
            return record_format.decode_answer(self._journal.read(location), address, form)
        except KdproxyError as error:
            self._damage.report(location, error)
            return None

    def stored_ordinals(self, namespace: str, key_start: str) -> frozenset[int]:
        """Return which samples of a question are stored; 0.4 ms for a thousand."""
        prefix = names.samples_prefix(namespace, key_start)
        rows = {**dict(self._store.scan(prefix)), **self._writer.indexer.fresh_rows(prefix)}
        return frozenset(names.ordinal_of(name) for name, row in rows.items() if row)

    @property
    def has_v1_keys(self) -> bool:
        """Whether any stored answer has a key of version 1."""
        return self._writer.indexer.counters.old_keys > 0

    @property
    def has_prompts(self) -> bool:
        """Whether any recorded prompt is stored."""
        return self._writer.indexer.counters.prompts > 0

    def find_prompt(self, namespace: str, match_key: str, ordinal: int = 0) -> Prompt | None:
        """Return a recorded prompt, or None."""
        for generation in unpack(self._writer.look_up(names.prompt_name(namespace, match_key, ordinal))):
            for recording in generation.recordings:
                try:
                    found = record_format.decode(self._journal.read(recording.location))
                except KdproxyError as error:
                    self._damage.report(recording.location, error)
                    continue
                if isinstance(found, Prompt) and found.match_key == match_key and found.namespace == namespace:
                    return found
        return None

    def knows_response(self, namespace: str, response_id: str) -> bool:
        """Whether a stored answer has this provider response id."""
        return self._writer.look_up(names.response_name(namespace, response_id)) is not None

    async def keep(self, record: Record, *, intent: Intent = Intent.FILL, v1_key: str | None = None) -> bool:
        """Make a record durable and findable; False if the write failed and it waits in memory."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._writer.refuse_closed()
        turn = self._turn
        turn.drafts.append(drafted(record, self._life, intent=intent, v1_key=v1_key))
        turn.futures.append(future)
        if len(turn.futures) == 1:
            loop.call_soon(self._hand_over)
        return await future

    def _hand_over(self) -> None:
        """Give the writer the records of one turn of the loop: one wake-up, one sync, one reply."""
        turn, self._turn = self._turn, _Turn()
        if not turn.futures:
            return
        loop = turn.futures[0].get_loop()
        try:
            self._writer.submit([Write(turn.drafts, lambda is_kept: call_soon(loop, turn.resolve, is_kept))])
        except StorageFailed:
            turn.resolve(False)

    @property
    def is_writable(self) -> bool:
        """Whether the last write reached the disk, of answers and of calls."""
        return self._writer.is_writable and self.calls.trouble is None

    @property
    def trouble(self) -> str | None:
        """Why the last write did not reach the disk, in one sentence; None if it did."""
        return self._writer.trouble or self.calls.trouble

    @property
    def trouble_hint(self) -> str:
        """What to do about it."""
        return self._writer.trouble_hint

    @property
    def unwritten(self) -> int:
        """Lines that could not be written to disk and exist in memory only."""
        return self._writer.unwritten

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""
        while not self.is_writable:  # read without the lock that a busy writer holds
            await self._writer.wait_writable()
            await self.calls.wait_writable()

    # -- what the jobs ask ------------------------------------------------------------------------------------

    def seal(self, record: Record) -> RecordLine:
        """Give a record a name of this process and return it with its line, for `revise`."""
        name = self._life.next_name()
        return NamedRecord(record, name, record_format.RECORD_VERSION), record_format.encode(record, name)

    def revise(self, decide: Callable[[], Sequence[RecordLine]]) -> None:
        """Store the records that `decide` returns; nothing else is written between its look-ups and that write.

        Raises:
            StorageFailed: the write failed; the records wait in memory while this process runs.
        """
        if not self._writer.revise(decide):
            raise StorageFailed(
                "The disk refused the write.",
                hint="Free disk space. The lines are held in memory and retried while this process runs.",
                retryable=True,
            )

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the archive; every line before its end is indexed."""
        return self._writer.call(self._snapshot)

    def lines(self, start: Location | None = None) -> Iterator[JournalLine]:
        """Yield the lines of the journal in order, damaged ones included."""
        if start is None:
            return self._journal.lines()
        return self._journal.lines(segment=start.segment, offset=start.offset)

    def read(self, location: Location) -> bytes:
        """Return the line at a location. Raises StorageFailed."""
        return self._journal.read(location)

    def look_up(self, wanted: Sequence[str]) -> list[bytes | None]:
        """Return the index's values of these names."""
        return self._writer.call(lambda: self._writer.indexer.look_up_all(wanted))

    def index(self) -> Iterator[tuple[str, bytes]]:
        """Yield the index's rows that point to lines, page by page, so that writes are not held up."""
        for prefix in names.LEADING:
            rows = self._store.scan(prefix)
            while page := self._writer.call(partial(_page, rows)):
                yield from page

    def _note_calls(self) -> None:
        with contextlib.suppress(StorageFailed):  # closed in the meantime
            self._writer.call(self._writer.note_calls)

    def repair(self, repair: Repair) -> None:
        """Repair the index, except for rows that changed in the meantime."""
        self._writer.call(lambda: self._writer.indexer.repair(repair))
        self._recent.drop_all()

    def note(self, name: str, value: bytes) -> None:
        """Put a row into the index unless it has that value already. A failed write is ignored: a later one does it."""

        def job() -> None:
            if self._store.get(name) != value:
                self._store.apply(Batch(puts={name: value}))

        with contextlib.suppress(StorageFailed):
            self._writer.call(job)

    def segment_name(self, segment: int) -> str:
        """File name of a segment."""
        return self._journal.name(segment)

    def call_state(self) -> CallState:
        """Return the state of all calls in the events log."""
        return self.calls.state()

    def run_list(self) -> RunList:
        """Return all runs and their attempts."""
        return self.calls.runs()

    def run_history(self, attempts: Collection[LineName]) -> History:
        """Return the events of these attempts of runs."""
        return self.calls.history(attempts)

    def samples_of(self, namespace: str, key_start: str) -> frozenset[int]:
        """Return which samples of a question are stored."""
        return self._writer.call(lambda: self.stored_ordinals(namespace, key_start))

    def event_lines(self) -> Iterator[JournalLine]:
        """Yield the lines of the events log, unreadable ones included."""
        return self.calls.lines()

    def event_segment_name(self, segment: int) -> str:
        """File name of a segment of the events log."""
        return self.calls.segment_name(segment)

    @property
    def counters(self) -> names.Counters:
        """Sums over what the index holds."""
        return self._writer.indexer.counters

    def close(self) -> None:
        """Write what is queued and close all files."""
        self._hand_over()
        if self.calls.has_unrowed:
            self._note_calls()
        self._writer.close()
        self.calls.close()

    def _drop_recent(self, rows: Iterable[str]) -> None:
        self._recent.drop(f"{row}/{form}" for row in rows if row.startswith("s/") for form in _FORMS)

    def _snapshot(self) -> Snapshot:
        active = self._journal.active_segment
        return Snapshot(
            end=Location(active, self._journal.segment_size(active), 0),
            answers=dict(self.counters.answers),
            prompts=self.counters.prompts,
            old_keys=self.counters.old_keys,
            segments=len(self._journal.segments()),
            journal_bytes=self._journal.size_bytes,
        )


def _page(rows: Iterator[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return list(islice(rows, INDEX_PAGE))
