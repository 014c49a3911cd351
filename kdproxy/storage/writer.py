"""The writer thread: the only one that appends to the journal and changes the index.

Records that come while a sync runs share the next one (group commit). Who waits is told once the line is synced and
found by `look_up`; the index on disk follows within half a second, many rows in one transaction. What the disk refuses
waits in memory and is tried again each second: what was paid for is not dropped while the process lives.
"""

import asyncio
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

from kdproxy import __version__
from kdproxy.core.call_set import CallSet
from kdproxy.core.models import LineName
from kdproxy.core.ports import Batch, Location, RecordLine, Store
from kdproxy.errors import StorageFailed
from kdproxy.storage import event_reading
from kdproxy.storage.event_log import EventLog
from kdproxy.storage.fold import Fold
from kdproxy.storage.fold import needed as rows_needed
from kdproxy.storage.indexer import BATCH, Indexer, OpenReport, watermark_after
from kdproxy.storage.journal import Journal
from kdproxy.storage.life import Life
from kdproxy.storage.settle import Draft, settle

log = logging.getLogger("kdproxy.storage")

RETRY_SECONDS = 1.0
INDEX_SECONDS = 0.5
"""How long a line may be missing in the index on disk: what a start after a kill has to read again, at most."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Write:
    """Lines that wait for the disk, and who is to be told."""

    items: Sequence[RecordLine | Draft]
    done: Callable[[bool], None]
    is_told: bool = False

    def tell(self, is_kept: bool) -> None:
        """Tell once: the first news counts."""
        if not self.is_told:
            self.is_told = True
            self.done(is_kept)


class Writer:
    """Owns journal and index from `start` to `close`."""

    def __init__(
        self,
        journal: Journal,
        make_store: Callable[[], Store],
        life: Life,
        events: EventLog,
        *,
        before_first: Callable[[], None],
        on_change: Callable[[Iterable[str]], None],
    ) -> None:
        self._journal = journal
        self._life = life
        self._events = events
        self._has_started = False
        """Whether the life's first line is in the journal."""
        self._before_first: Callable[[], None] | None = before_first
        self._make_store = make_store
        self._on_change = on_change  # told which rows are others now, before anybody is told of a write
        self._changed = threading.Condition()  # protects the five below
        self._queue: list[Write] = []
        self._jobs: list[Callable[[], None]] = []
        self._is_closing = False
        self.trouble: str | None = None
        self.trouble_hint = ""
        """What to do about it, which depends on the cause."""
        self._writable_waiters: list[asyncio.Future[None]] = []
        # Written by the thread alone:
        self.unwritten = 0
        """Lines that the disk has refused and that memory alone holds."""
        self._index_at: float | None = None
        self._journal_error: Exception | None = None
        self._index_error: Exception | None = None
        self._opened: Future[OpenReport] = Future()
        self._thread = threading.Thread(target=self._run, name="kdproxy-writer", daemon=True)

    def start(self) -> OpenReport:
        """Open the index and read what it lacks. Raises StorageFailed."""
        self._thread.start()
        try:
            return self._opened.result()
        except BaseException:
            self._thread.join()
            raise

    def look_up(self, name: str) -> bytes | None:
        """Return the index's row of a name, what is not yet on disk included. Any thread."""
        return self.indexer.look_up(name)

    def submit(self, writes: list[Write]) -> None:
        """Queue writes. Raises StorageFailed after `close`."""
        with self._changed:
            self.refuse_closed()
            self._queue += writes
            self._changed.notify()

    def call(self, job: Callable[[], T]) -> T:
        """Run a job on the writer thread, between two commits, and return its result."""
        if threading.current_thread() is self._thread:
            return job()
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(job())
            except BaseException as error:
                result.set_exception(error)

        with self._changed:
            self.refuse_closed()
            self._jobs.append(run)
            self._changed.notify()
        return result.result()

    def revise(self, decide: Callable[[], Sequence[RecordLine | Draft]]) -> bool:
        """Write what `decide` returns, which runs on the writer thread: nothing is written in between.

        Returns:
            Whether that is on disk and indexed; if not, it is tried again like any other write.
        """

        def job() -> bool:
            items = decide()
            told: list[bool] = []
            if not items:
                return True
            write = Write(items, told.append)
            refused = self._commit([write])
            self._index()
            with self._changed:
                self._queue += refused
            return told[0]

        return self.call(job)

    @property
    def is_writable(self) -> bool:
        """Whether the last write reached the disk."""
        return self.trouble is None

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self.is_writable:
                return
            self._writable_waiters.append(waiter)
        await waiter

    def close(self) -> None:
        """Write what waits and end. Records that the disk still refuses are lost with the process."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def refuse_closed(self) -> None:
        """Raises StorageFailed after `close`."""
        if self._is_closing:
            raise StorageFailed("The archive is closed.", hint="Start kdproxy again.")

    # -- on the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        with ExitStack() as opened:
            opened.callback(self._journal.close)
            try:
                self.store = self._make_store()
                opened.callback(self.store.close)
                self.indexer = Indexer(self._journal, self.store, calls_row=self._events.row)
                # Before the index is written on: its row of calls goes with its watermark.
                calls_row = self.store.get(event_reading.ROW)
                report = self.indexer.recover()
                self._events.recover(calls_row, self.indexer.answered, self._all_answered)
                self.note_calls()
            except BaseException as error:
                self._opened.set_exception(error)
                return
            self._opened.set_result(report)
            self._serve()

    def note_calls(self) -> None:
        """Put what the events log comes to into the index; on a full disk a later flush does. On the thread."""
        row = self._events.row()
        if self.store.get(event_reading.ROW) != row and row is not None:
            with suppress(StorageFailed):
                self.store.apply(Batch(puts={event_reading.ROW: row}))

    def _all_answered(self) -> CallSet:
        return event_reading.calls_of(line.raw for line in self._journal.lines())

    def _serve(self) -> None:
        waiting: list[Write] = []
        is_closing = False
        while not is_closing:
            with self._changed:
                while not (self._queue or self._jobs or self._is_closing):
                    if not self._changed.wait(self._idle_seconds(waiting)):
                        break
                jobs, self._jobs = self._jobs, []
                waiting += self._queue
                self._queue = []
                is_closing = self._is_closing
            if jobs:
                self._index()
            for job in jobs:
                job()
            waiting = self._commit(waiting)
            if is_closing or self.indexer.waiting >= BATCH or self._is_index_due():
                self._index()
        self.note_calls()
        for write in waiting:
            log.error("answers lost: the disk refused them until the end", extra={"lines": len(write.items)})
            write.tell(False)

    def _idle_seconds(self, waiting: list[Write]) -> float | None:
        if waiting:
            return RETRY_SECONDS
        return None if self._index_at is None else max(0.0, self._index_at - time.monotonic())

    def _is_index_due(self) -> bool:
        return self._index_at is not None and time.monotonic() >= self._index_at

    def _commit(self, writes: list[Write]) -> list[Write]:
        """Append, sync, tell; return what the disk refused."""
        if not writes:
            return []
        self._journal_error = None
        try:
            self._append(writes)
        except Exception as error:  # want of memory too: a writer that dies would leave every keeper waiting
            self._journal_error = error
        # First: who is told of a refusal must find `is_writable` false and the lines counted.
        self._count_refused(writes)
        self._note_health()
        for write in writes:
            write.tell(self._journal_error is None)
        return [] if self._journal_error is None else writes

    def _count_refused(self, writes: list[Write]) -> None:
        for write in writes:
            if write.is_told and self._journal_error is None:
                self.unwritten -= len(write.items)
            elif not write.is_told and self._journal_error is not None:
                self.unwritten += len(write.items)

    def _append(self, writes: list[Write]) -> None:
        self._journal.seal_if_full()
        items = [item for write in writes for item in write.items]
        fold = self.indexer.fold(name for item in items for name in _needed(item))
        lines: list[bytes] = []
        calls: list[LineName] = []
        segment, start = self._journal.end
        for named, line in self._settled(items, fold):
            is_new = named.name.origin == self._life.origin
            fold.take(named, Location(segment, start, len(line)), is_new=is_new)
            lines.append(line)
            call = event_reading.call_of(named.record)
            if call is not None:
                calls.append(call)
            start += len(line)
        if not lines:
            return
        if self._before_first is not None:
            self._before_first()
            self._before_first = None
        last = self._journal.append(lines)[-1]
        self._has_started = self._has_started or any(map(self._is_own, items))
        self.indexer.accept(fold, watermark_after(last, lines[-1]), count=len(lines))
        self._on_change(fold.changes)
        for call in calls:
            self._events.answered(call)
        if self._index_at is None:
            self._index_at = time.monotonic() + INDEX_SECONDS

    def _settled(self, items: Sequence[RecordLine | Draft], fold: Fold) -> Iterator[RecordLine]:
        """Yield the lines as they are written. What `fold` has taken of one counts for the next."""
        if not self._has_started and any(map(self._is_own, items)):
            yield self._life.start(now=time.time(), release=__version__)
        for item in items:
            if isinstance(item, Draft):
                yield from settle(item, fold, self._life)
            else:
                yield item

    def _is_own(self, item: RecordLine | Draft) -> bool:
        return isinstance(item, Draft) or item[0].name.origin == self._life.origin

    def _index(self) -> None:
        """Bring the index on disk up to the journal."""
        self._index_error = None
        try:
            self.indexer.flush()
            self._index_at = None
        except Exception as error:  # whatever it is, as above
            self._index_error = error
            self._index_at = time.monotonic() + RETRY_SECONDS
        self._note_health()

    def _note_health(self) -> None:
        error = self._journal_error or self._index_error
        if error is None and self.is_writable:
            return
        with self._changed:
            was_writable, self.trouble = self.is_writable, None if error is None else _sentence(error)
            self.trouble_hint = "" if error is None else _hint(error)
            waiters: list[asyncio.Future[None]] = []
            if error is None:
                waiters, self._writable_waiters = self._writable_waiters, []
        if was_writable and error is not None:
            log.error("the disk refuses to store answers", extra={"error": str(error)})
        elif error is None and not was_writable:
            log.warning("the disk stores answers again", extra={})
        for waiter in waiters:
            call_soon(waiter.get_loop(), _resolve, waiter)


def _needed(item: RecordLine | Draft) -> list[str]:
    return item.needed() if isinstance(item, Draft) else rows_needed(item[0])


def _sentence(error: Exception) -> str:
    """Return what went wrong, as anybody may read it: what no code here has worded can name anything."""
    if isinstance(error, StorageFailed):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"The disk refuses ({error.strerror})."
    return f"The disk refuses ({type(error).__name__})."


def _hint(error: Exception) -> str:
    """Return what to do: room helps a full disk alone."""
    if isinstance(error, StorageFailed) and not isinstance(error.__cause__, OSError):
        return error.hint
    cause = error.__cause__ if isinstance(error, StorageFailed) else error
    match cause:
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG):
            return "Free space where the data directory lies, or raise the quota."
        case OSError(errno=errno.EACCES | errno.EPERM | errno.EROFS):
            return "Make the data directory writable again (owner, mode, mount)."
        case OSError(errno=errno.EIO):
            return "Look at the disk (dmesg): it fails. Copy api_recovery*.jsonl to another one now."
        case _:
            return "The log has the cause."


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    """Call back on a loop, if it still runs."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        log.debug("the loop that waited for a write is closed")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
