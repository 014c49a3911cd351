"""Output that never blocks: a pipe without a reader, a stopped terminal or a hung disk must not stop the proxy.

Output is written at once while the pipe has room, so that a killed process leaves no line unwritten. The rest goes into
a bounded queue that a thread writes. When the queue is full, further output is dropped and counted; the count is
reported once the reader reads again.
"""

import contextlib
import io
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TextIO

MOST_PIECES = 10_000
_GATHER_SECONDS = 0.02
"""Delay between waking and writing: a busy proxy wakes the thread fifty times a second instead of once per line."""

FLUSH_SECONDS = 1.0
"""How long the process waits at its end for the rest of the queue."""


class QueuedOutput(io.TextIOBase):
    """A text stream over a file descriptor. Any thread may write."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream: TextIO) -> None:
        self._descriptor = stream.fileno()
        self._is_terminal = stream.isatty()
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        """Whether it is a file, which always polls writable: to ask costs 5 to 10 us beside a busy writer thread."""
        self._room = select.poll()
        self._room.register(self._descriptor, select.POLLOUT)
        self._polling = threading.Lock()  # a poll object serves one thread at a time
        self._pieces: deque[bytes] = deque()
        self._dropped = 0
        self._is_closing = False
        self._wake = threading.Event()
        self._is_empty = threading.Event()
        self._is_empty.set()
        self._thread = threading.Thread(target=self._run, name="kdproxy-output", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Write text, or queue it; drop it when the queue is full."""
        piece = text.encode("utf-8", "backslashreplace")
        if not piece or self._write_now(piece):
            return len(text)
        if len(self._pieces) >= MOST_PIECES:
            self._dropped += 1
        else:
            self._pieces.append(piece)
            self._is_empty.clear()
            self._wake.set()
        return len(text)

    def _write_now(self, piece: bytes) -> bool:
        """Write if that cannot block: a pipe that polls writable has room for PIPE_BUF bytes (pipe(7))."""
        if len(piece) > select.PIPE_BUF or not self._is_empty.is_set():
            return False
        try:
            if not self._is_file:
                with self._polling:
                    found = self._room.poll(0)
                if not found or not found[0][1] & select.POLLOUT:
                    return False
            return os.write(self._descriptor, piece) == len(piece)
        except OSError:
            return True  # closed, or a full disk: the output is lost

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._is_terminal

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def flush(self) -> None:
        """Do nothing: waiting for the queue would mean waiting for a reader that may never read."""

    def finish(self) -> None:
        """Wait up to FLUSH_SECONDS for the queue, then end the thread."""
        self._is_empty.wait(FLUSH_SECONDS)
        self._is_closing = True
        self._wake.set()

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait()
            if not self._is_closing:
                time.sleep(_GATHER_SECONDS)
            self._wake.clear()
            with contextlib.suppress(OSError):  # closed, or a full disk: the output is lost
                self._write_all()
            if not self._pieces:
                self._is_empty.set()

    def _write_all(self) -> None:
        while self._pieces:
            found = b"".join(self._pieces.popleft() for _ in range(min(len(self._pieces), 256)))
            while found:
                found = found[os.write(self._descriptor, found) :]
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                note = f"kdproxy: {dropped} pieces of output were dropped: the reader was too slow.\n"
                self._pieces.append(note.encode())


@contextlib.contextmanager
def queued_output() -> Iterator[None]:
    """Make stdout and stderr of this process non-blocking while entered."""
    before = sys.stdout, sys.stderr
    made: list[QueuedOutput] = []
    try:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            try:
                stream.flush()
                made.append(QueuedOutput(stream))
            except (OSError, ValueError, AttributeError):  # closed, or none
                continue
            setattr(sys, name, made[-1])
        yield
    finally:
        sys.stdout, sys.stderr = before
        for output in made:
            output.finish()
