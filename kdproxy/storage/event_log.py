"""The events log, `events.jsonl`: which calls were sent and how they ended. docs/formats/events.md has the guarantees.

The event loop writes each line itself, in one `write()`, so that a call never waits for a running sync; a written line
survives a kill of the process. A thread syncs lines against a power cut: at once if a task waits for it (group commit),
else within a second. A call whose `sent` line cannot be written is not sent.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from typing import Protocol

from kdproxy import __version__
from kdproxy.core.call_event import Ended, Sent, encode_event
from kdproxy.core.call_set import CallSet
from kdproxy.core.call_state import CallState
from kdproxy.core.models import LineName
from kdproxy.core.ports import JournalLine, Location, Watermark
from kdproxy.core.run_event import RunEvent, Used, encode_run_event
from kdproxy.core.run_history import History
from kdproxy.core.run_list import RunList
from kdproxy.errors import CallNotRecorded, StorageFailed
from kdproxy.storage.event_reading import Calls, recover
from kdproxy.storage.journal import Journal
from kdproxy.storage.life import Life
from kdproxy.storage.run_reading import read_history

log = logging.getLogger("kdproxy.storage")

SYNC_SECONDS = 1.0
"""A power cut may lose lines of this age, unless a task waited for their sync."""
RETRY_SECONDS = 1.0
MOST_UNROWED = 10_000
"""Most lines that a start has to read again where no answer updated the index: 0.2 s of work."""


class OpenFiles(Protocol):
    """Opens the log's files."""

    def __call__(self, *, is_read_only: bool) -> Journal:
        """Open them; opening for writing creates the active one."""


class EventLog:
    """`sent`, `ended` and `settle` belong to the event loop; `answered` and `row` to the journal's writer thread."""

    def __init__(self, open_files: OpenFiles, life: Life, *, on_lag: Callable[[], None] = lambda: None) -> None:
        """Take over a log. `on_lag` is called every `MOST_UNROWED` lines, to put `row` into the index."""
        self._open_files = open_files
        self._life = life
        self._on_lag = on_lag
        self._rowed = 0
        """Lines that had been written at the last call of `row`."""
        self._files: Journal | None = None  # made with the first line
        self._calls = Calls()
        self._last: tuple[Location, bytes] | None = None
        """The last line that was written: the mark is made of it when `row` needs one."""
        self._is_recovered = False
        self._changed = threading.Condition()  # protects the state, the file's end and all below
        self._thread: threading.Thread | None = None
        self._unsynced: list[bytes] = []
        self._refused: list[bytes] = []
        """Lines that could not be written to disk and exist in memory only."""
        self._written = 0
        self._synced = 0
        """Lines, counted."""
        self._settling: list[asyncio.Future[None]] = []
        self._writable_waiters: list[asyncio.Future[None]] = []
        self._is_closing = False
        self.trouble: str | None = None
        """Why the last write did not reach the disk, in one sentence; None if it did."""

    def recover(self, row: bytes | None, answered: CallSet, all_answered: Callable[[], CallSet]) -> None:
        """Read the existing log. Must run before anything is written."""
        files = self._open_files(is_read_only=True)
        try:
            self._calls = recover(files, row, answered, all_answered)
        finally:
            files.close()
        self._calls.state.forget_old(time.time())
        self._is_recovered = True

    # -- the event loop ---------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Open the file off the loop, unless it is open. If that fails, `sent` raises the error."""
        if self._files is None:
            await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        with self._changed:
            if self._files is None and self.trouble is None and not self._is_closing:
                try:
                    self._open()
                except Exception as error:
                    self._fail(error)

    def sent(self, sent: Sent) -> LineName:
        """Record that a call is sent, before its first byte; return its name.

        Raises:
            CallNotRecorded: the write failed; the call must not be sent.
        """
        name = self._life.next_name()
        line = encode_event(sent, name)
        with self._changed:
            if self.trouble is not None:
                raise _not_recorded(self.trouble)
            try:
                self._write(line)
            except (StorageFailed, OSError) as error:
                self._fail(error)
                raise _not_recorded(_sentence(error)) from error
            self._calls.state.take_sent(name, sent)
        return name

    def ended(self, ended: Ended) -> None:
        """Record how a call ended. A line that cannot be written waits in memory and is retried each second."""
        line = encode_event(ended, self._life.next_name())
        with self._changed:
            if ended.call not in self._calls.state.open:
                return
            self._calls.state.take_ended(ended)
            if self.trouble is None:
                try:
                    self._write(line)
                    return
                except (StorageFailed, OSError) as error:
                    self._fail(error)
            self._refused.append(line)

    def note(self, event: RunEvent) -> LineName:
        """Record an event of a run; return its name. A line that cannot be written waits in memory, as above."""
        name = self._life.next_name()
        line = encode_run_event(event, name)
        with self._changed:
            if not isinstance(event, Used):  # one for each hit of a run
                self._calls.runs.take(event, name)
            if self.trouble is None:
                try:
                    self._write(line)
                    return name
                except (StorageFailed, OSError) as error:
                    self._fail(error)
            self._refused.append(line)
        return name

    def is_open(self, call: LineName) -> bool:
        """Whether a call has no end yet: neither an answer line nor `ended`."""
        return call in self._calls.state.open

    async def settle(self) -> None:
        """Return once all written lines are durable, or writing fails."""
        with self._changed:
            if self._synced >= self._written or self.trouble is not None:
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settling.append(future)
            self._changed.notify()
        await future

    async def wait_writable(self) -> None:
        """Return when writing works (again)."""
        with self._changed:
            if self.trouble is None:
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writable_waiters.append(future)
        await future

    # -- the journal's writer thread --------------------------------------------------------------------------

    def answered(self, calls: Sequence[LineName]) -> None:
        """Note that the answer lines of calls are in the journal."""
        with self._changed:
            for call in calls:
                self._calls.state.take_answer(call)

    def row(self) -> bytes | None:
        """Return the index's row; None: nothing was ever written; empty: not known yet, so the log is read again."""
        with self._changed:
            if not self._is_recovered:
                return b""
            if self._last is not None:
                self._calls.advance(Watermark.after(*self._last), self._life.origin)
                self._last = None
            if self._calls.mark is None:
                return None
            self._rowed = self._written
            calls = self._calls.copy()
        return calls.dump()

    # -- any thread -------------------------------------------------------------------------------------------

    @property
    def has_unrowed(self) -> bool:
        """Whether lines were written since the last call of `row`."""
        return self._rowed < self._written

    def state(self) -> CallState:
        """Return the state of all calls."""
        with self._changed:
            return self._calls.state.copy()

    def runs(self) -> RunList:
        """Return all runs and their attempts."""
        with self._changed:
            return self._calls.runs.copy()

    def history(self, attempts: Collection[LineName]) -> History:
        """Return the events of these attempts of a run; lines in memory only are left out."""
        with closing(self._open_files(is_read_only=True)) as files:
            return read_history(files, attempts)

    def lines(self) -> Iterator[JournalLine]:
        """Yield the lines of the log, unreadable ones included; lines written in the meantime are left out."""
        with closing(self._open_files(is_read_only=True)) as files:
            yield from files.lines()

    def segment_name(self, segment: int) -> str:
        """File name of a segment."""
        with closing(self._open_files(is_read_only=True)) as files:
            return files.name(segment)

    def close(self) -> None:
        """Sync what was written and stop. Lines that still cannot be written are lost with the process."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        if self._files is not None:
            self._files.close()

    def _write(self, line: bytes) -> None:
        self._append(line, line)
        self._unsynced.append(line)
        if len(self._unsynced) == 1:
            self._start_thread()  # the second until its sync starts now

    def _append(self, data: bytes, last: bytes) -> None:
        """Write lines; `last` is the last of them."""
        files = self._files or self._open()
        segment, start = files.end
        files.write(data)
        self._last = Location(segment, start + len(data) - len(last), len(last)), last
        self._written += 1

    def _open(self) -> Journal:
        """Open the file, terminate a line that a power cut tore, write the life's first line."""
        files = self._open_files(is_read_only=False)
        try:
            _, start = self._life.start(now=time.time(), release=__version__)
            files.write((b"\n" if files.is_torn else b"") + start)
        except BaseException:
            files.close()
            raise
        self._files = files
        return files

    def _fail(self, error: Exception) -> None:
        if self.trouble is None:
            log.error(
                "calls cannot be recorded on disk: no call is sent until the disk is writable",
                extra={"error": str(error)},
            )
        self.trouble = _sentence(error)
        self._start_thread()

    def _start_thread(self) -> None:
        """Start the thread, or wake it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kdproxy-events", daemon=True)
            self._thread.start()
        self._changed.notify()

    # -- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._wait():
            self._make_durable()
        self._make_durable()
        if self._refused:
            log.error("records of calls lost: the disk refused them until exit", extra={"lines": len(self._refused)})

    def _wait(self) -> bool:
        """Wait until there is something to do; False: the log is closing."""
        with self._changed:
            while not (self._unsynced or self._settling or self.trouble or self._is_closing):
                self._changed.wait()
            ends_at = time.monotonic() + (RETRY_SECONDS if self.trouble else SYNC_SECONDS)
            while not self._is_closing and (self.trouble or not self._settling):
                left = ends_at - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return not self._is_closing

    def _make_durable(self) -> None:
        """Write the lines that failed before, and sync. The lock is not held during the sync."""
        error: Exception | None = None
        with self._changed:
            settling, self._settling = self._settling, []
            try:
                self._write_refused()
            except Exception as refused:  # any error: if the thread died, tasks in `settle` would wait forever
                error = refused
            files, upto = self._files, self._written
            taken, self._unsynced = self._unsynced, []
        if error is None and files is not None:
            try:
                files.check_place()
                files.sync()
            except Exception as refused:  # any error: if the thread died, tasks in `settle` would wait forever
                error = refused
        with self._changed:
            if error is None:
                self._synced = upto
                settling += self._recovered()
            else:
                self._fail(error)
                # Lines that were not synced may be missing from the file, so they are written again. A line that
                # occurs twice counts once.
                self._refused = taken + self._refused
        for future in settling:
            _wake(future)
        if error is None and files is not None:
            self._seal(files)
        if upto - self._rowed >= MOST_UNROWED or (self._rowed == 0 and upto and error is None):
            # At the first lines of a life too: without a row, a start would find lines of an unknown life and read all.
            self._on_lag()

    def _write_refused(self) -> None:
        if self._refused:
            self._append(b"".join(self._refused), self._refused[-1])
            self._unsynced += self._refused
            self._refused = []
        elif self.trouble is not None and self._files is None:
            self._open()

    def _recovered(self) -> "list[asyncio.Future[None]]":
        """Note that the disk is writable again; return the futures that waited for it."""
        if self.trouble is None:
            return []
        self.trouble = None
        log.warning("calls are recorded on disk again", extra={})
        waiters, self._writable_waiters = self._writable_waiters, []
        return waiters

    def _seal(self, files: Journal) -> None:
        try:
            with self._changed:
                files.seal_if_full()
                self._calls.sealed = files.sealed_facts()
        except (StorageFailed, OSError) as error:
            log.warning("the events log could not be sealed", extra={"error": str(error)})


def _wake(future: "asyncio.Future[None]") -> None:
    try:
        future.get_loop().call_soon_threadsafe(_resolve, future)
    except RuntimeError:
        log.debug("the loop that waited for a write is closed")


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _sentence(error: Exception) -> str:
    if isinstance(error, StorageFailed):
        return error.message
    return f"The events log could not be written ({getattr(error, 'strerror', None) or type(error).__name__})."


def _not_recorded(trouble: str) -> CallNotRecorded:
    return CallNotRecorded(
        f"The call was not sent, because its record could not be written. It cost nothing. {trouble}",
        hint="Free space on the data directory's disk; waiting calls are then sent automatically.",
        retryable=True,
        retry_after_seconds=5.0,
    )
