"""A lock for file systems without flock: the holder changes the lock file every few seconds, others watch it change.

Watching takes time but compares no clocks. A process that finds an unreleased file watches it for five beats. If there
is no file, or it does not change, the process writes its own name, and holds the lock if the name is still there a beat
and a half later. A holder that is suspended for more than five beats can lose the lock; it logs that at its next beat.
"""

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

log = logging.getLogger("trainhooks.storage")

BEAT_SECONDS = 2.0
BEAT = "beat"
"""The member that changes; a lock file without it was written under flock."""

_WATCHED_BEATS = 5.0
_SETTLED_BEATS = 1.5
_POLLS_PER_BEAT = 4
_BYTES = 256
"""Every beat has this length: the file is never empty while it is held."""


def taken(path: Path, holder: dict[str, Any]) -> "Heartbeat | None":
    """Take the lock, or return None if another process holds it or is taking it. Waits for 3 to 13 seconds.

    Raises:
        OSError: the file cannot be written.
    """
    if is_beating(path):
        return None
    mine = Heartbeat(path, holder)
    mine.beat()
    end = time.monotonic() + _SETTLED_BEATS * BEAT_SECONDS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / _POLLS_PER_BEAT)
        if not mine.is_own():
            return None
    mine.start()
    return mine


def is_beating(path: Path) -> bool:
    """Return whether the file changes within five beats; at once if it was released or never had a beat."""
    first = read(path)
    if BEAT.encode() not in first:
        return False
    end = time.monotonic() + _WATCHED_BEATS * BEAT_SECONDS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / _POLLS_PER_BEAT)
        now = read(path)
        if now != first:
            return now != b""
    return False


def read(path: Path) -> bytes:
    """Return the file's bytes, empty if it is missing. Reopens it, which makes NFS ask the server."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


class Heartbeat:
    """A held lock file, from `start` to `release`. The daemon thread ends with the process."""

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        self._path = path
        self._token = uuid.uuid4().hex
        self._holder = {**holder, "token": self._token}
        self._beats = 0
        self._is_over = threading.Event()
        self._has_warned = False
        self._pid = os.getpid()

    def beat(self) -> None:
        """Write the next beat; return once it is on the server."""
        self._beats += 1
        text = json.dumps({**self._holder, BEAT: self._beats}).encode().ljust(_BYTES - 1) + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, text)
            if os.fstat(descriptor).st_size != len(text):
                os.ftruncate(descriptor, len(text))
            with contextlib.suppress(OSError):  # closing the file sends it, too
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def is_own(self) -> bool:
        """Whether the file has this holder's name."""
        return self._token.encode() in read(self._path)

    def start(self) -> None:
        """Beat until `release`."""
        threading.Thread(target=self._beat_on, name="trainhooks-heartbeat", daemon=True).start()

    def _beat_on(self) -> None:
        while not self._is_over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # a full disk, an unreachable server: the next beat may work
                if not self.is_own() and not self._has_warned:
                    self._has_warned = True
                    log.error(
                        "%s was written by another process: two may write to this directory, and records or"
                        " checkpoints of one of them may be lost. Stop one of them",
                        self._path,
                    )
                if not self._is_over.is_set():
                    self.beat()

    def release(self) -> None:
        """Release the lock, so that the next process need not wait. Does nothing in a forked child."""
        if os.getpid() != self._pid:
            return
        self._is_over.set()
        with contextlib.suppress(OSError):
            if self.is_own():
                os.truncate(self._path, 0)
