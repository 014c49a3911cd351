"""What is recorded after a session was closed: its files are opened again for each record, and closed behind it.

A final evaluation or the registration of a file often comes after the `with` block. It belongs to the attempt that has
ended, so it is written to it, durably, or refused with an error: nothing is lost silently.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainhooks.core.progress import Progress
from trainhooks.errors import ConfigInvalid, DirectoryUnusable, SessionBusy
from trainhooks.session.recorder import Entry
from trainhooks.storage import metrics
from trainhooks.storage.catalog import Catalog, Recoverable
from trainhooks.storage.lock import DirectoryLock
from trainhooks.storage.metrics import MetricsLog
from trainhooks.storage.responses import ResponseLog

log = logging.getLogger("trainhooks")


class LateRecords:
    """The records of an attempt that has ended. Every method may be called from any thread.

    Args:
        output_dir: the run's.
        progress: of the attempt; it stays up to date.
    """

    def __init__(self, output_dir: Path, progress: Progress) -> None:
        self._output_dir = output_dir
        self._directory = output_dir / "progress"
        self._progress = progress
        self._has_said = False
        self.lock = threading.Lock()
        """Held while the files are open; by the session itself until it has closed them."""

    def put(self, entry: Entry) -> None:
        """Write a row or an event, durably.

        Raises:
            SessionBusy: another process writes there, or a later attempt has.
            DirectoryUnusable: the directory cannot be written to.
        """
        step, at, _, members = entry
        if members is None:
            return
        with self._opened() as lines:
            lines.add(
                {"attempt": self._progress.attempt, **({} if step is None else {"step": step}), "at": at, **members}
            )
            lines.write()
            lines.sync()
        if step is not None:
            self._progress.row(step, members)

    def register(self, entry: Recoverable) -> None:
        """Make a registration durable; the event of it has been `put`."""
        with self._opened():
            catalog = Catalog(self._output_dir)
            catalog.register(entry)
            catalog.write()

    @contextmanager
    def responses(self) -> Iterator[ResponseLog]:
        """Open the teacher's answers."""
        with self._opened():
            log = ResponseLog(self._directory)
            try:
                yield log
            finally:
                log.close()

    @contextmanager
    def _opened(self) -> Iterator[MetricsLog]:
        with self.lock, self._files() as lines:
            yield lines

    @contextmanager
    def _files(self) -> Iterator[MetricsLog]:
        try:
            lock = DirectoryLock(self._directory)
            try:
                lines = MetricsLog(self._directory / metrics.NAME)
                try:
                    if lines.tail.attempt > self._progress.attempt:
                        raise SessionBusy(
                            f"This session of {self._output_dir} is closed, and a later attempt has recorded since:"
                            " what comes now would not count.",
                            hint="Record it in the later attempt.",
                        )
                    self._say()
                    yield lines
                finally:
                    lines.close()
            finally:
                lock.release()
        except OSError as error:
            raise DirectoryUnusable(
                f"The session is closed and what was recorded since cannot be written to {self._directory}"
                f" ({error.strerror or error}).",
                hint="Record before the end of the `with` block, or make room on the disk and record it again.",
            ) from error

    def _say(self) -> None:
        if not self._has_said:
            self._has_said = True
            log.info("recorded after the session was closed: its files are opened again for each such record")


def closed() -> ConfigInvalid:
    """Say that a session cannot do this any more."""
    return ConfigInvalid(
        "This session is closed: its loop and its checkpoints have ended.",
        hint="Do it inside the `with` block, or open the session again.",
        code="session_closed",
    )
