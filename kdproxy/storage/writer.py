"""The writer thread: the only one that appends to the journal and changes the index.

Records that arrive during a sync share the next one (group commit). A write is reported once its line is synced and
`look_up` finds it; the index on disk follows within half a second, many rows in one transaction. Lines that cannot be
written wait in memory and are retried each second: paid answers are not dropped while the process runs.
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
from kdproxy.core.ports import Batch, Location, RecordLine, Store, Watermark
from kdproxy.errors import StorageFailed
from kdproxy.storage import event_reading
from kdproxy.storage.event_log import EventLog
from kdproxy.storage.fold import Fold
from kdproxy.storage.fold import needed as rows_needed
from kdproxy.storage.indexer import BATCH, Indexer, OpenReport
from kdproxy.storage.journal import Journal
from kdproxy.storage.life import Life
from kdproxy.storage.settle import Draft, settle

log = logging.getLogger("kdproxy.storage")

RETRY_SECONDS = 1.0
INDEX_SECONDS = 0.5
"""How long a line may be missing from the index on disk; a start after a kill reads at most that much again."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Write:
    """Lines that wait for the disk, and the callback for their outcome."""

    items: Sequence[RecordLine | Draft]
    done: Callable[[bool], None]
    is_reported: bool = False

    def report(self, is_kept: bool) -> None:
        """Report the outcome, once: later ones are ignored."""
        if not self.is_reported:
            self.is_reported = True
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
        """Whether this life's first line is in the journal."""
        self._before_first: Callable[[], None] | None = before_first
        self._make_store = make_store
        self._on_change = on_change  # called with the changed rows, before a write is reported
        self._changed = threading.Condition()  # protects the five below
        self._queue: list[Write] = []
        self._jobs: list[Callable[[], None]] = []
        self._is_closing = False
        self.trouble: str | None = None
        self.trouble_hint = ""
        """What to do about it; depends on the cause."""
        self._writable_waiters: list[asyncio.Future[None]] = []
        # Written only by the thread:
        self.unwritten = 0
        """Lines that could not be written to disk and exist in memory only."""
        self._index_at: float | None = None
        self._journal_error: Exception | None = None
        self._index_error: Exception | None = None
        self._opened: Future[OpenReport] = Future()
        self._thread = threading.Thread(target=self._run, name="kdproxy-writer", daemon=True)

    def start(self) -> OpenReport:
        """Open the index and read the lines that it lacks. Raises StorageFailed."""
        self._thread.start()
        try:
            return self._opened.result()
        except BaseException:
            self._thread.join()
            raise

    def look_up(self, name: str) -> bytes | None:
        """Return the index row of a name, even if it is not on disk yet. Any thread."""
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

    def revise(self, decide: Callable[[], Sequence[RecordLine]]) -> bool:
        """Run `decide` on the writer thread and write what it returns: nothing else is written in between.

        Returns:
            Whether the lines are on disk and indexed; if not, they are retried like any other write.
        """

        def job() -> bool:
            outcome: list[bool] = []
            with self.indexer.deciding():
                items = decide()
                if not items:
                    return True
                refused = self._commit([Write(items, outcome.append)])
            self._index()
            with self._changed:
                self._queue += refused
            return outcome[0]

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
        """Write what is queued and stop. Records that still cannot be written are lost with the process."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def refuse_closed(self) -> None:
        """Raise StorageFailed after `close`."""
        if self._is_closing:
            raise StorageFailed("The archive is closed.", hint="Restart kdproxy.")

    # -- on the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        with ExitStack() as opened:
            opened.callback(self._journal.close)
            try:
                self.store = self._make_store()
                opened.callback(self.store.close)
                self.indexer = Indexer(self._journal, self.store, calls_row=self._events.row)
                # Before the index is written: its row of calls belongs to its watermark.
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
        """Put the state of the events log into the index; on a full disk a later flush does. On the thread."""
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
            log.error("answers lost: the disk refused them until exit", extra={"lines": len(write.items)})
            write.report(False)

    def _idle_seconds(self, waiting: list[Write]) -> float | None:
        if waiting:
            return RETRY_SECONDS
        return None if self._index_at is None else max(0.0, self._index_at - time.monotonic())

    def _is_index_due(self) -> bool:
        return self._index_at is not None and time.monotonic() >= self._index_at

    def _commit(self, writes: list[Write]) -> list[Write]:
        """Append, sync, report; return the writes that failed."""
        if not writes:
            return []
        self._journal_error = None
        try:
            self._append(writes)
        except Exception as error:  # MemoryError too: if the writer died, every caller would wait forever
            self._journal_error = error
        # Before the report: a caller whose write failed must find `is_writable` false and the lines counted.
        self._count_refused(writes)
        self._note_health()
        for write in writes:
            write.report(self._journal_error is None)
        return [] if self._journal_error is None else writes

    def _count_refused(self, writes: list[Write]) -> None:
        for write in writes:
            if write.is_reported and self._journal_error is None:
                self.unwritten -= len(write.items)
            elif not write.is_reported and self._journal_error is not None:
                self.unwritten += len(write.items)

    def _append(self, writes: list[Write]) -> None:
        self._journal.seal_if_full()
        items = [item for write in writes for item in write.items]
        fold = self.indexer.fold(name for item in items for name in _needed(item))
        lines: list[bytes] = []
        calls: list[LineName] = []
        segment, start = self._journal.end
        begins_life = not self._has_started and any(map(self._is_own, items))
        for named, line in self._settled(items, fold, begins_life=begins_life):
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
        self._has_started = self._has_started or begins_life
        self.indexer.accept(fold, Watermark.after(last, lines[-1]), count=len(lines))
        self._on_change(fold.changes)
        if calls:
            self._events.answered(calls)
        if self._index_at is None:
            self._index_at = time.monotonic() + INDEX_SECONDS

    def _settled(self, items: Sequence[RecordLine | Draft], fold: Fold, *, begins_life: bool) -> Iterator[RecordLine]:
        """Yield the lines as they are written. Each line sees what `fold` has taken from the lines before it."""
        if begins_life:
            yield self._life.start(now=time.time(), release=__version__)
        for item in items:
            if isinstance(item, Draft):
                yield from settle(item, fold, self._life)
            else:
                yield item

    def _is_own(self, item: RecordLine | Draft) -> bool:
        return isinstance(item, Draft) or item[0].name.origin == self._life.origin

    def _index(self) -> None:
        """Bring the index on disk up to date with the journal."""
        self._index_error = None
        try:
            self.indexer.flush()
            self._index_at = None
        except Exception as error:  # any error, as above
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
    """Return what went wrong, safe to publish: texts of foreign exceptions may contain anything and are left out."""
    if isinstance(error, StorageFailed):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"The disk refuses ({error.strerror})."
    return f"The disk refuses ({type(error).__name__})."


def _hint(error: Exception) -> str:
    """Return what to do; it depends on the cause, since free space only helps a full disk."""
    if isinstance(error, StorageFailed) and not isinstance(error.__cause__, OSError):
        return error.hint
    cause = error.__cause__ if isinstance(error, StorageFailed) else error
    match cause:
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG):
            return "Free space where the data directory lies, or raise the quota."
        case OSError(errno=errno.EACCES | errno.EPERM | errno.EROFS):
            return "Make the data directory writable again (owner, mode, mount)."
        case OSError(errno=errno.EIO):
            return "The disk is failing (see dmesg). Copy api_recovery*.jsonl to another disk now."
        case _:
            return "See the proxy's log for the cause."


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    """Schedule a callback on a loop, if it is still running."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        log.debug("the loop that waited for a write is closed")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
