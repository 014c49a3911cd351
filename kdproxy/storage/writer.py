"""The writer thread: the only one that appends to the journal and changes the index.

Records that come while a sync runs share the next one (group commit). What the disk refuses waits in memory and is
tried again each second: what was paid for is not dropped while the process lives.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from kdproxy.core.models import Record
from kdproxy.core.ports import Store, Watermark
from kdproxy.errors import StorageFailed
from kdproxy.storage.indexer import BATCH, Indexer, OpenReport, Placed, watermark_after
from kdproxy.storage.journal import Journal

log = logging.getLogger("kdproxy.storage")

RETRY_SECONDS = 1.0

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Write:
    """Records with their lines that wait for the disk, and who is to be told."""

    records: list[Record]
    lines: list[bytes]
    done: Callable[[bool], None]
    is_told: bool = False

    def tell(self, is_kept: bool) -> None:
        """Tell once: the first news counts."""
        if not self.is_told:
            self.is_told = True
            self.done(is_kept)


class Writer:
    """Owns journal and index from `start` to `close`."""

    def __init__(self, journal: Journal, make_store: Callable[[], Store]) -> None:
        self._journal = journal
        self._make_store = make_store
        self._changed = threading.Condition()  # protects the five below
        self._queue: list[Write] = []
        self._jobs: list[Callable[[], None]] = []
        self._is_closing = False
        self._is_writable = True
        self._writable_waiters: list[asyncio.Future[None]] = []
        self._unindexed: list[Placed] = []
        self._watermark: Watermark | None = None
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

    def submit(self, write: Write) -> None:
        """Queue a write. Raises StorageFailed after `close`."""
        with self._changed:
            self._refuse_closed()
            self._queue.append(write)
            self._changed.notify()

    def call(self, job: Callable[[], T]) -> T:
        """Run a job on the writer thread, between two commits, and return its result."""
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(job())
            except BaseException as error:
                result.set_exception(error)

        with self._changed:
            self._refuse_closed()
            self._jobs.append(run)
            self._changed.notify()
        return result.result()

    @property
    def is_writable(self) -> bool:
        """Whether the last write reached the disk."""
        return self._is_writable

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""
        with self._changed:
            if self._is_writable:
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writable_waiters.append(waiter)
        await waiter

    def close(self) -> None:
        """Write what waits and end. Records that the disk still refuses are lost with the process."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _refuse_closed(self) -> None:
        if self._is_closing:
            raise StorageFailed("The archive is closed.", hint="Start kdproxy again.")

    # -- on the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.store = self._make_store()
            self.indexer = Indexer(self._journal, self.store)
            report = self.indexer.recover()
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(report)
        waiting: list[Write] = []
        is_closing = False
        while not is_closing:
            with self._changed:
                while not (self._queue or self._jobs or self._is_closing):
                    if not self._changed.wait(RETRY_SECONDS if waiting or self._unindexed else None):
                        break
                jobs, self._jobs = self._jobs, []
                waiting += self._queue
                self._queue = []
                is_closing = self._is_closing
            for job in jobs:
                job()
            if waiting or self._unindexed:
                waiting = self._commit(waiting)
        for write in waiting:
            log.error("answers lost: the disk refused them until the end", extra={"lines": len(write.lines)})
            write.tell(False)
        self.store.close()
        self._journal.close()

    def _commit(self, writes: list[Write]) -> list[Write]:
        """Append, sync, index, tell; return what the disk refused."""
        refused: list[Write] = []
        error: Exception | None = None
        try:
            self._append(writes)
        except (StorageFailed, OSError) as failure:
            refused, error = writes, failure
        try:
            self._index()
        except (StorageFailed, OSError) as failure:
            error = failure
        for write in writes:
            write.tell(error is None)
        self._set_writable(error)
        return refused

    def _append(self, writes: list[Write]) -> None:
        if not writes:
            return
        self._journal.seal_if_full()
        lines = [line for write in writes for line in write.lines]
        locations = self._journal.append(lines)
        records = [record for write in writes for record in write.records]
        self._unindexed += zip(records, locations, strict=True)
        self._watermark = watermark_after(locations[-1], lines[-1])

    def _index(self) -> None:
        while self._unindexed:
            placed = self._unindexed[:BATCH]
            is_last = len(placed) == len(self._unindexed)
            self.indexer.apply(placed, self._watermark if is_last else None)
            del self._unindexed[: len(placed)]

    def _set_writable(self, error: Exception | None) -> None:
        with self._changed:
            was_writable, self._is_writable = self._is_writable, error is None
            waiters: list[asyncio.Future[None]] = []
            if error is None:
                waiters, self._writable_waiters = self._writable_waiters, []
        if was_writable and error is not None:
            log.error("the disk refuses to store answers", extra={"error": str(error)})
        elif error is None and not was_writable:
            log.warning("the disk stores answers again", extra={})
        for waiter in waiters:
            call_soon(waiter.get_loop(), _resolve, waiter)


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    """Call back on a loop, if it still runs."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        log.debug("the loop that waited for a write is closed")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
