"""`lanes.json`: what lanes have learned, written whole, and replaced by a rename."""

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
        """Read what is there. What cannot be read is begun anew.

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
            log.warning("lanes.json was written by a newer kdproxy: it is left alone, and lanes learn anew")
            return
        except OSError as error:
            log.warning("lanes.json cannot be read: lanes learn anew", extra={"reason": error.strerror})
            return
        if found is None:
            log.warning("lanes.json is damaged: lanes learn anew")
        else:
            self.lanes = found

    def save(self, lanes: Iterable[Remembered]) -> None:
        """Write what lanes have learned, if it is other than what was written last. Any thread; raises no OSError."""
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
            # It costs a few refusals at the next start, and no answer.
            log.warning("what lanes have learned is not saved", extra={"reason": error.strerror})
            return
        self._written = data
