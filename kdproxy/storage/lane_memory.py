"""`lanes.json`: the limits that lanes have learned; written as a whole and replaced by a rename."""

import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from kdproxy.core.pacing.memory import NewerVersion, Remembered, decode, encode
from kdproxy.storage.durable import sync, sync_directory, write_all

log = logging.getLogger("kdproxy.storage")

NAME = "lanes.json"


class LaneMemory:
    """The file of one data directory that this process owns."""

    def __init__(self, directory: Path, *, now: float) -> None:
        """Read the file. If it cannot be read, lanes start without it.

        Args:
            now: UTC Unix seconds.
        """
        self._path = directory / NAME
        self._written: bytes | None = None
        self._is_foreign = False
        self._lock = threading.Lock()
        self.lanes: tuple[Remembered, ...] = ()
        try:
            data = self._path.read_bytes()
            found = decode(data, now=now)
        except FileNotFoundError:
            return
        except NewerVersion:
            self._is_foreign = True
            log.warning(
                "lanes.json was written by a newer kdproxy: it is not changed, and lanes learn their limits again"
            )
            return
        except OSError as error:
            log.warning("lanes.json cannot be read: lanes learn their limits again", extra={"reason": error.strerror})
            return
        if found is None:
            log.warning("lanes.json is damaged: lanes learn their limits again")
        else:
            self.lanes = found

    def save(self, lanes: Iterable[Remembered]) -> None:
        """Write what lanes have learned, if it has changed since the last write. Any thread; raises no OSError."""
        kept = tuple(lanes)
        if self._is_foreign or not (kept or self.lanes):
            return
        with self._lock:
            self._save(encode(kept))

    def _save(self, data: bytes) -> None:
        if data == self._written:
            return
        new = self._path.with_name(NAME + ".new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write_all(descriptor, data)
                sync(descriptor)
            finally:
                os.close(descriptor)
            new.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            # The next start meets a few rate limits that it could have avoided; no answer is lost.
            log.warning("what lanes have learned is not saved", extra={"reason": error.strerror})
            return
        self._written = data
