"""metrics.jsonl: append-only, one self-contained line per row or event. docs/formats/metrics.md."""

import errno
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainhooks.core import row as rows
from trainhooks.storage import atomic, location

log = logging.getLogger("trainhooks.storage")

NAME = "metrics.jsonl"
_BLOCK_BYTES = 1 << 16
_READ_BYTES = 256 << 10
"""A thousand rows: more at once are slower, since the garbage collector looks at them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Where a file ends."""

    seq: int = -1
    """Sequence number of the last whole line."""
    attempt: int = 0
    steps: int = 0
    """Steps that its last rows reach: their highest step + 1."""
    torn_bytes: int = 0
    """Length of a torn last line: the process or the machine died within a write."""


class MetricsLog:
    """The file while an attempt writes to it. Not thread-safe; lines that the disk refused stay pending."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._pending = bytearray()
        self._is_synced = True
        self.tail = _repair(self._descriptor, path)
        self._seq = self.tail.seq + 1

    @property
    def pending_bytes(self) -> int:
        """Bytes not yet written to the operating system."""
        return len(self._pending)

    def add(self, members: dict[str, Any]) -> None:
        """Append a line to the buffer; `write` writes it."""
        self._pending += rows.encode({"v": rows.ROW_VERSION, "seq": self._seq, **members})
        self._seq += 1

    def write(self) -> None:
        """Write what is pending to the operating system.

        Raises:
            OSError: the disk refused; the rest stays pending, and the next call continues there. Or the file was
                removed while it was open, where what is written is lost.
        """
        if self._pending and os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, f"{NAME} was removed while the training runs, with all rows so far")
        while self._pending:
            count = os.write(self._descriptor, self._pending)
            self._is_synced = False
            del self._pending[:count]

    def sync(self) -> None:
        """Return once what was written is on the medium."""
        if not self._is_synced:
            atomic.sync_file(self._descriptor)
            self._is_synced = True

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _repair(descriptor: int, path: Path) -> Tail:
    """Cut off a torn last line, with a warning; return where the file then ends."""
    tail = read_tail(descriptor)
    if tail.torn_bytes:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - tail.torn_bytes)
        log.warning("%s ended within a line: its last %d bytes were cut off", path, tail.torn_bytes)
    return tail


def read_tail(descriptor: int) -> Tail:
    """Find a file's end by reading its last 64 KiB, or more where one line is longer."""
    size = os.fstat(descriptor).st_size
    start, text = size, b""
    while start > 0 and text.count(b"\n") < 2:
        length = min(_BLOCK_BYTES, start)
        start -= length
        os.lseek(descriptor, start, os.SEEK_SET)
        text = os.read(descriptor, length) + text
    whole, _, torn = text.rpartition(b"\n") if b"\n" in text else (b"", b"", text)
    found = [members for line in whole.split(b"\n") if (members := rows.decode(line)) is not None]
    if not found:
        return Tail(torn_bytes=len(torn))
    steps = [line["step"] for line in found if "kind" not in line and isinstance(line.get("step"), int)]
    last = found[-1]
    return Tail(
        seq=last["seq"],
        attempt=last["attempt"],
        steps=max(steps, default=-1) + 1,
        torn_bytes=len(torn),
    )


def tail_of(path: Path) -> Tail:
    """Find a file's end without changing it; for a missing file, where it would begin."""
    try:
        with path.open("rb") as file:
            return read_tail(file.fileno())
    except FileNotFoundError:
        return Tail()


def locate(path: str | os.PathLike[str]) -> Path:
    """Return the metrics file of an output directory, of its `progress/`, or the file itself."""
    given = Path(path)
    for candidate in (given / "progress" / NAME, given / NAME):
        if candidate.is_file():
            return candidate
    return given


class Follower:
    """Reads a growing file: each call reads what was added since the last. Safe beside a process that writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield rows and events as they were written; damaged and torn lines are skipped."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written, or torn: it is read again the next time
                self._offset += len(line)
                if (members := rows.decode(line)) is not None:
                    yield members


def read_blocks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the whole lines of a file, many at once; one that is still being written, or torn, is left out."""
    rest = b""
    with locate(path).open("rb") as file:
        while block := file.read(_READ_BYTES):
            end = block.rfind(b"\n") + 1
            if end:
                yield rest + block[:end]
                rest = block[end:]
            else:
                rest += block


def read_lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield rows and events as they were written, including superseded ones; damaged and torn lines are skipped."""
    return Follower(locate(path)).read()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return exactly one row per step, in order, across kills and resumes.

    Args:
        path: an output directory, its `progress/`, or the file.

    Raises:
        OSError: there is no such file.
    """
    return [rows.revive(row) for row in rows.settle(read_lines(location.path("path", path)))]
