"""Where records go: to the files of the running attempt, to files opened again after its end, or nowhere."""

import os
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Any

from trainhooks.core.progress import Progress
from trainhooks.session.attempt_files import AttemptFiles
from trainhooks.session.late import LateRecords
from trainhooks.session.recorder import Entry
from trainhooks.storage.catalog import Recoverable
from trainhooks.storage.responses import ResponseLog


class SinkState(StrEnum):
    """What happens to the next record."""

    NOT_BEGUN = "not begun"
    """It begins the attempt: until then a start has written nothing."""
    OPEN = "open"
    AFTER_SAVE = "open, after a save"
    """A row goes to the medium at once: a resume from that save is compared with it."""
    CLOSED = "closed"
    """The files are opened again for it."""
    NOT_WRITING = "not writing"
    """It is dropped: on ranks other than 0, and in a forked child."""


class RowSink:
    """Takes the rows and events of a session, from any thread.

    Args:
        files: of the attempt; None on a rank that does not write.
    """

    def __init__(self, files: AttemptFiles | None) -> None:
        self.files = files
        """None where nothing is written, and once the session is closed."""
        self.late: LateRecords | None = None
        """Writes what is recorded after the session was closed."""
        self.state = SinkState.NOT_WRITING if files is None else SinkState.NOT_BEGUN
        self.on_begin: Callable[[], None] | None = None
        """Called whenever the attempt begins or may have begun."""
        self.before_first_row: Callable[[], None] | None = None
        """Called once, before the first row; it may refuse the row."""
        self._append = _drop if files is None else files.recorder.put
        self._is_plain = files is None
        """Whether a record needs nothing but the append."""
        if files is not None:
            _writing.add(self)

    def put(self, entry: Entry) -> None:
        """Take a record."""
        if self._is_plain:
            self._append(entry)
        else:
            self._put_with_care(entry)

    def event(self, kind: str, /, **members: Any) -> None:
        """Take an event of this moment."""
        self.put((None, time.time(), None, {"kind": kind, **members}))

    def announce(self, kind: str, /, **members: Any) -> None:
        """Take an event that does not begin the attempt: it is written before the first record that does."""
        if self.files is not None:
            self.files.recorder.put((None, time.time(), None, {"kind": kind, **members}))

    def add(self, step: int, members: dict[str, Any]) -> None:
        """Take a row that ends no step and does not begin the attempt."""
        if self.files is not None:
            self.files.recorder.put((step, time.time(), None, members))

    def begin(self) -> None:
        """Begin the attempt, at its first step, record or save. Once is enough.

        Raises:
            DirectoryUnusable: the directory cannot be written to.
        """
        if self.files is not None:
            self.files.begin()
            if self.state is SinkState.NOT_BEGUN:
                self._enter(SinkState.OPEN)
        if self.on_begin is not None:
            self.on_begin()

    def register(self, entry: Recoverable) -> None:
        """Make the registration of a checkpoint durable; its event has been put."""
        if self.files is not None:
            self.files.register(entry)
            if self.state is SinkState.OPEN:
                self._enter(SinkState.AFTER_SAVE)
        elif self.late is not None:
            self.late.register(entry)

    def responses(self) -> AbstractContextManager[ResponseLog | None]:
        """Return the recorded answers, also of a session that is closed; None on ranks that do not write."""
        if self.files is not None:
            self.begin()
            return nullcontext(self.files.responses)
        return nullcontext() if self.late is None else self.late.responses()

    def flush(self, *, sync: bool = True) -> None:
        """Return once every record so far is on the medium; without `sync`, with the operating system."""
        if self.files is not None:
            self.files.recorder.flush(sync=sync)

    def sync(self) -> None:
        """Bring to the medium what was recorded and has left the device. From any thread."""
        if self.files is not None:
            self.files.recorder.sync()

    def send(self) -> None:
        """Start the copy of numbers that are still on a device. Does not wait."""
        if self.files is not None:
            self.files.recorder.send()

    def urge(self) -> None:
        """Have the records so far brought to the medium at once. Does not wait."""
        if self.files is not None:
            self.files.recorder.urge()

    def latest(self) -> dict[str, float]:
        """Return the last value of every metric; empty where nothing is written."""
        return {} if self.files is None else self.files.recorder.latest()

    def close(self, end: str, *, output_dir: Path, progress: Progress) -> None:
        """Write everything durably and release the directory. `end` says how the attempt ended."""
        if self.files is None:
            return
        files, late = self.files, LateRecords(output_dir, progress)
        self.on_begin = self.before_first_row = None
        _writing.discard(self)
        with late.lock:
            self.late, self._append, self.files = late, late.put, None
            self._enter(SinkState.CLOSED)
            files.close(end)

    def forget(self) -> None:
        """Drop all records from here on: in a forked child they are the parent's alone."""
        self.files, self.late, self._append = None, None, _drop
        self.on_begin = self.before_first_row = None
        self._enter(SinkState.NOT_WRITING)

    def watch_first_row(self, watch: Callable[[], None]) -> None:
        """Have `watch` called once, before the first row."""
        self.before_first_row = watch
        self._enter(self.state)

    def _enter(self, state: SinkState) -> None:
        self.state = state
        has_more_to_do = state in (SinkState.NOT_BEGUN, SinkState.AFTER_SAVE) or self.before_first_row is not None
        self._is_plain = not has_more_to_do

    def _put_with_care(self, entry: Entry) -> None:
        is_row = entry[0] is not None
        if is_row and (watch := self.before_first_row) is not None:
            self.before_first_row = None
            self._enter(self.state)
            watch()
        if self.state is SinkState.NOT_BEGUN:
            self.begin()
        self._append(entry)
        if self.state is SinkState.AFTER_SAVE and is_row and entry[3] is not None:
            self._enter(SinkState.OPEN)
            self.urge()


def _drop(entry: Entry) -> None:
    """Drop a record."""


_writing: weakref.WeakSet[RowSink] = weakref.WeakSet()


def _forget_all() -> None:
    for sink in list(_writing):
        sink.forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_all)
