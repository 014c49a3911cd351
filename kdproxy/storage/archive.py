"""The archive: the journal with its index behind one writer thread.

A record is appended and synced in a group with those that came while the last sync ran, then indexed, and only then
is its keeper told. When the disk refuses, records wait in memory and are tried again each second: what was paid for
is not dropped while the process lives.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from kdproxy.core import record as record_format
from kdproxy.core.models import Address, Answer, Entry, Form, Prompt, Record, Tombstone
from kdproxy.core.ports import Batch, Damage, JournalLine, Location, Store, Watermark
from kdproxy.errors import KdproxyError, RecordInvalid, StorageFailed
from kdproxy.storage import names
from kdproxy.storage.journal import Journal
from kdproxy.storage.recent import RecentAnswers

log = logging.getLogger("kdproxy.storage")

T = TypeVar("T")

RETRY_SECONDS = 1.0
_INDEX_BATCH = 500
_SEAL_TAIL_BYTES = 66  # the checksum's hex digits with the closing `"}`
_REPORTED_DAMAGE = 20


@dataclass(slots=True)
class _Write:
    """Records that wait for the disk, and who is to be told."""

    records: list[Record]
    lines: list[bytes]
    done: Callable[[bool], None]
    is_told: bool = False

    def tell(self, is_kept: bool) -> None:
        if not self.is_told:
            self.is_told = True
            self.done(is_kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReport:
    """What opening the archive found."""

    indexed_lines: int
    """Lines read because the index did not have them."""
    torn_bytes: int
    damage: tuple[Damage, ...]
    is_rebuilt: bool
    """Whether the whole index was made anew."""


@dataclass(slots=True)
class _State:
    """Shared between the loop and the writer, under the condition's lock."""

    queue: list[_Write] = field(default_factory=list)
    jobs: list[Callable[[], None]] = field(default_factory=list)
    is_closing: bool = False
    is_writable: bool = True


class FileArchive:
    """The Library port over a Journal and a Store. Made by `open`, in any thread; `find` is for the loop's thread."""

    def __init__(self, journal: Journal, make_store: Callable[[], Store], *, memory_bytes: int) -> None:
        self._journal = journal
        self._recent = RecentAnswers(memory_bytes)
        self._changed = threading.Condition()
        self._state = _State()
        self._has_prompts = False
        self._counters = names.Counters()
        self._unindexed: list[tuple[Record, Location]] = []
        self._watermark: Watermark | None = None
        self._writable_waiters: list[asyncio.Future[None]] = []
        self._make_store = make_store
        self._opened: Future[OpenReport] = Future()
        self._thread = threading.Thread(target=self._run, name="kdproxy-writer", daemon=True)
        self._thread.start()
        try:
            self.report = self._opened.result()
        except BaseException:
            self._thread.join()
            raise

    # -- what the engine asks ---------------------------------------------------------------------------------

    def find(self, address: Address, form: Form) -> Answer | None:
        """Return a stored answer, or None. A damaged line is a miss, and is reported."""
        name = names.answer_name(address, form)
        answer = self._recent.get(name)
        if answer is not None:
            return answer
        value = self._store.get(name)
        if value is None:
            return None
        location = names.unpack(value)
        try:
            answer = record_format.decode_answer(self._journal.read(location), address, form)
        except KdproxyError as error:
            self._report_unreadable(location, error)
            return None
        self._recent.put(name, answer)
        return answer

    def find_prompt(self, namespace: str, match_key: str, ordinal: int = 0) -> Prompt | None:
        """Return a recorded prompt, or None."""
        if not self._has_prompts:
            return None
        value = self._store.get(names.prompt_name(namespace, match_key, ordinal))
        if value is None:
            return None
        location = names.unpack(value)
        try:
            found = record_format.decode(self._journal.read(location))
        except KdproxyError as error:
            self._report_unreadable(location, error)
            return None
        is_right = isinstance(found, Prompt) and found.match_key == match_key and found.namespace == namespace
        return found if is_right and isinstance(found, Prompt) else None

    def knows_response(self, namespace: str, response_id: str) -> bool:
        """Whether a stored answer has this provider response id."""
        return self._store.get(names.response_name(namespace, response_id)) is not None

    async def keep(self, record: Record) -> bool:
        """Make a record durable and findable; False if the disk refused and it waits in memory."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()

        def resolve(is_kept: bool) -> None:
            self._forget_recent(record)
            if not future.done():
                future.set_result(is_kept)

        self._submit(
            _Write(
                records=[record],
                lines=[record_format.encode(record)],
                done=lambda is_kept: _call_soon(loop, resolve, is_kept),
            )
        )
        return await future

    @property
    def is_writable(self) -> bool:
        """Whether the last write reached the disk."""
        return self._state.is_writable

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""
        loop = asyncio.get_running_loop()
        with self._changed:
            if self._state.is_writable:
                return
            waiter: asyncio.Future[None] = loop.create_future()
            self._writable_waiters.append(waiter)
        await waiter

    # -- what the jobs ask ------------------------------------------------------------------------------------

    def keep_all(self, records: Iterable[Record], *, raw: Iterable[bytes] = ()) -> None:
        """Make many records durable, blocking. `raw` are checked lines, written as they are.

        Raises:
            StorageFailed: the disk refused; nothing of this call is in the journal.
        """
        all_records = list(records)
        lines = [record_format.encode(record) for record in all_records]
        for line in raw:
            all_records.append(record_format.decode(line))
            lines.append(line if line.endswith(b"\n") else line + b"\n")
        if not all_records:
            return
        done: Future[bool] = Future()
        self._submit(_Write(records=all_records, lines=lines, done=done.set_result))
        if not done.result():
            raise StorageFailed(
                "The disk refused the write.",
                hint="Free disk space. The lines are held in memory and tried again while this process runs.",
                retryable=True,
            )

    def lines(self) -> Iterator[JournalLine]:
        """Yield every line of the journal in order, damaged ones included."""
        return self._journal.lines()

    def is_live(self, entry: Entry | Prompt, location: Location) -> bool:
        """Whether the index still points to this line."""
        return self._on_writer(lambda: self._store.get(names.name_of(entry))) == names.pack(location)

    def live_locations(self) -> set[Location]:
        """Return where all live lines lie."""
        return self._on_writer(
            lambda: {names.unpack(value) for prefix in ("a/", "p/") for _, value in self._store.scan(prefix)}
        )

    def has(self, address: Address, form: Form) -> bool:
        """Whether the index holds an answer, without reading it."""
        return self._on_writer(lambda: self._store.get(names.answer_name(address, form))) is not None

    def has_prompt(self, namespace: str, match_key: str, ordinal: int) -> bool:
        """Whether the index holds a recorded prompt."""
        return self._on_writer(lambda: self._store.get(names.prompt_name(namespace, match_key, ordinal))) is not None

    def segment_name(self, segment: int) -> str:
        """File name of a segment."""
        return self._journal.name(segment)

    @property
    def counters(self) -> names.Counters:
        """Sums over what the index holds."""
        return self._counters

    @property
    def size_bytes(self) -> int:
        """Bytes in the journal."""
        return self._journal.size_bytes

    def rebuild(self) -> OpenReport:
        """Make the index anew from the journal. Blocks; answers are not found meanwhile."""
        return self._on_writer(self._rebuild)

    def close(self) -> None:
        """Write what waits, close all files. Records that the disk still refuses are lost with the process."""
        with self._changed:
            self._state.is_closing = True
            self._changed.notify()
        self._thread.join()

    # -- the writer thread ------------------------------------------------------------------------------------

    def _submit(self, write: _Write) -> None:
        with self._changed:
            if self._state.is_closing:
                raise StorageFailed("The archive is closed.", hint="Start kdproxy again.")
            self._state.queue.append(write)
            self._changed.notify()

    def _on_writer(self, job: Callable[[], T]) -> T:
        if threading.current_thread() is self._thread:
            return job()
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(job())
            except BaseException as error:
                result.set_exception(error)

        with self._changed:
            if self._state.is_closing:
                raise StorageFailed("The archive is closed.", hint="Start kdproxy again.")
            self._state.jobs.append(run)
            self._changed.notify()
        return result.result()

    def _run(self) -> None:
        try:
            self._store = self._make_store()
            report = self._recover()
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(report)
        waiting: list[_Write] = []
        while True:
            with self._changed:
                while not (self._state.queue or self._state.jobs or self._state.is_closing):
                    if not self._changed.wait(RETRY_SECONDS if waiting or self._unindexed else None):
                        break
                jobs, self._state.jobs = self._state.jobs, []
                waiting += self._state.queue
                self._state.queue = []
                is_closing = self._state.is_closing
            for job in jobs:
                job()
            if waiting or self._unindexed:
                waiting = self._commit(waiting)
            if is_closing:
                break
        for write in waiting:
            log.error("answers lost: the disk refused them until the end", extra={"lines": len(write.lines)})
            write.tell(False)
        self._store.close()
        self._journal.close()

    def _commit(self, writes: list[_Write]) -> list[_Write]:
        """Write and index; return what the disk refused."""
        try:
            self._journal.seal_if_full()
            locations = self._journal.append([line for write in writes for line in write.lines]) if writes else []
            placed = iter(locations)
            self._unindexed += [(record, next(placed)) for write in writes for record in write.records]
            if writes:
                last = locations[-1]
                self._watermark = Watermark(
                    last.segment, last.offset + last.length, _tail(writes[-1].lines[-1])
                )
            refused: list[_Write] = []
        except (StorageFailed, OSError) as error:
            self._set_writable(False, error)
            refused = writes
        while self._unindexed:
            try:
                self._index(self._unindexed[:_INDEX_BATCH], is_last=len(self._unindexed) <= _INDEX_BATCH)
            except (StorageFailed, OSError) as error:
                self._set_writable(False, error)
                for write in writes:
                    write.tell(False)
                return refused
            del self._unindexed[:_INDEX_BATCH]
        for write in writes:
            write.tell(write not in refused)
        if not refused:
            self._set_writable(True, None)
        return refused

    def _index(self, placed: Sequence[tuple[Record, Location]], *, is_last: bool) -> None:
        puts: dict[str, bytes] = {}
        deletes: set[str] = set()
        counters = names.Counters(answers=dict(self._counters.answers), prompts=self._counters.prompts)
        for record, location in placed:
            if isinstance(record, Tombstone):
                for name in names.withdrawn_names(record):
                    previous = puts.pop(name, None) or self._store.get(name)
                    if previous is not None and name not in deletes:
                        deletes.add(name)
                        counters.add(self._decode_at(names.unpack(previous)), -1)
                continue
            name = names.name_of(record)
            is_new = name in deletes or (name not in puts and self._store.get(name) is None)
            deletes.discard(name)
            puts[name] = names.pack(location)
            if is_new:
                counters.add(record)
            if isinstance(record, Entry) and record.response_id is not None:
                puts[names.response_name(record.address.namespace, record.response_id)] = b"1"
        puts[names.COUNTERS] = counters.dump()
        watermark = self._watermark if is_last else None
        self._store.apply(Batch(puts=puts, deletes=frozenset(deletes), watermark=watermark))
        self._counters = counters
        self._has_prompts = counters.prompts > 0

    def _decode_at(self, location: Location) -> Entry | Prompt:
        found = record_format.decode(self._journal.read(location))
        assert not isinstance(found, Tombstone)  # the index points to answers and prompts only
        return found

    def _set_writable(self, is_writable: bool, error: Exception | None) -> None:
        with self._changed:
            was_writable, self._state.is_writable = self._state.is_writable, is_writable
            waiters: list[asyncio.Future[None]] = []
            if is_writable:
                waiters, self._writable_waiters = self._writable_waiters, []
        if was_writable and not is_writable:
            log.error("the disk refuses to store answers", extra={"error": str(error)})
        elif is_writable and not was_writable:
            log.warning("the disk stores answers again", extra={})
        for waiter in waiters:
            _call_soon(waiter.get_loop(), _resolve, waiter)

    # -- opening ----------------------------------------------------------------------------------------------

    def _recover(self) -> OpenReport:
        torn = self._journal.cut_torn_tail()
        if torn:
            log.warning("an unfinished last line was cut off the journal", extra={"bytes": torn})
        mark = self._store.watermark()
        if mark is not None and not self._continues(mark):
            log.warning("the index does not fit the journal and is rebuilt", extra={})
            report = self._rebuild()
        else:
            self._counters = names.Counters.load(self._store.get(names.COUNTERS))
            self._has_prompts = self._counters.prompts > 0
            self._watermark = mark
            report = self._read_on(mark, is_rebuilt=False)
        return OpenReport(
            indexed_lines=report.indexed_lines,
            torn_bytes=torn,
            damage=report.damage,
            is_rebuilt=report.is_rebuilt,
        )

    def _rebuild(self) -> OpenReport:
        self._store.clear()
        self._counters = names.Counters()
        self._has_prompts = False
        self._watermark = None
        return self._read_on(None, is_rebuilt=True)

    def _continues(self, mark: Watermark) -> bool:
        """Whether the journal still holds the line at which the index stopped reading."""
        if mark.segment not in self._journal.segments() or mark.offset > self._journal.segment_size(mark.segment):
            return False
        length = len(mark.seal) + 1
        tail = self._journal.read(Location(mark.segment, max(0, mark.offset - length), length))
        return tail == mark.seal.encode() + b"\n"

    def _read_on(self, mark: Watermark | None, *, is_rebuilt: bool) -> OpenReport:
        lines = (
            self._journal.lines()
            if mark is None
            else self._journal.lines(segment=mark.segment, offset=mark.offset)
        )
        damage: list[Damage] = []
        placed: list[tuple[Record, Location]] = []
        count = 0
        for line in lines:
            count += 1
            location = line.location
            try:
                placed.append((record_format.decode(line.raw), location))
            except RecordInvalid as error:
                damage.append(
                    Damage(
                        segment_name=self._journal.name(location.segment), location=location, reason=error.message
                    )
                )
                if len(damage) <= _REPORTED_DAMAGE:
                    self._report_unreadable(location, error)
                continue
            self._watermark = Watermark(location.segment, location.offset + location.length, _tail(line.raw))
            if len(placed) >= _INDEX_BATCH:
                self._index(placed, is_last=True)
                placed.clear()
        if placed:
            self._index(placed, is_last=True)
        return OpenReport(indexed_lines=count, torn_bytes=0, damage=tuple(damage), is_rebuilt=is_rebuilt)

    def _report_unreadable(self, location: Location, error: KdproxyError) -> None:
        log.error(
            "a journal line cannot be used",
            extra={
                "segment": self._journal.name(location.segment),
                "offset": location.offset,
                "bytes": location.length,
                "reason": error.message,
            },
        )

    def _forget_recent(self, record: Record) -> None:
        match record:
            case Tombstone():
                for name in names.withdrawn_names(record):
                    self._recent.drop(name)
            case _:
                self._recent.drop(names.name_of(record))


def _tail(line: bytes) -> str:
    return line.rstrip(b"\n")[-_SEAL_TAIL_BYTES:].decode("latin-1")


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        log.debug("the loop that waited for a write is closed")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
