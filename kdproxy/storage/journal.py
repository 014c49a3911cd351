"""The journal's files: append, sync, seal, read back. Blocking; one thread appends. Knows lines, not records.

Active file `api_recovery.jsonl`, sealed segments `api_recovery.NNNNNN.jsonl`; `events.jsonl` likewise.
The active file's number is the one that it gets when it is sealed, so a location stays right.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kdproxy.core.ports import JournalLine, Location
from kdproxy.errors import StorageFailed
from kdproxy.storage.durable import sync, sync_directory, take_name, write_all

log = logging.getLogger("kdproxy.storage")


class LogFiles(NamedTuple):
    """The names of a log's files, and its own."""

    stem: str
    title: str

    @property
    def active(self) -> str:
        """Name of the file that is written."""
        return f"{self.stem}.jsonl"

    @property
    def sealed(self) -> re.Pattern[str]:
        """What the names of sealed segments look like; the group is the number."""
        return re.compile(rf"{self.stem}\.(\d{{6,}})\.jsonl")

    def segment(self, number: int) -> str:
        """Name of a sealed segment."""
        return f"{self.stem}.{number:06d}.jsonl"


JOURNAL_FILES = LogFiles("api_recovery", "journal")
EVENT_FILES = LogFiles("events", "events log")
ACTIVE_NAME = JOURNAL_FILES.active
SEALED = JOURNAL_FILES.sealed
_READ_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 30
"""A longer line is damage."""


class Journal:
    """The segments of one data directory."""

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int,
        files: LogFiles = JOURNAL_FILES,
        is_ours: Callable[[], bool] = lambda: True,
        is_read_only: bool = False,
        last_sealed: int = 0,
        on_seal: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Open the journal.

        Args:
            last_sealed: the highest number that any segment had, though its file be gone: none gets it again.
            on_seal: told the name of each segment once it is sealed.
        """
        self._directory = directory
        self._names = files
        self._is_read_only = is_read_only
        self._segment_bytes = segment_bytes
        self._is_ours = is_ours
        self._on_seal = on_seal
        self._is_seal_blocked = False
        self._has_remains = False
        """Whether an append was refused and what it had written could not be cut off."""
        # Descriptors by segment, the active one's included: the loop's thread reads while the writer's seals, and a
        # single dict look-up is what keeps it from reading one segment at another's offset.
        self._files: dict[int, int] = {}
        # An empty file holds a name for a seal that a kill cut short: the active file still has that number.
        active = max((number for number, path in self._sealed() if path.stat().st_size), default=last_sealed)
        active = max(active, last_sealed) + 1
        self._file = self._open_active()
        self._files[active] = self._file
        # Number and synced bytes of the active segment; one tuple, since other threads read both.
        self._end = (active, os.fstat(self._file).st_size)

    @property
    def active_segment(self) -> int:
        """Number of the segment that is written to."""
        return self._end[0]

    @property
    def end(self) -> tuple[int, int]:
        """The active segment and its bytes: where the next line comes to lie."""
        return self._end

    @property
    def size_bytes(self) -> int:
        """Bytes in all segments."""
        return sum(map(self.segment_size, self.segments()))

    def segments(self) -> list[int]:
        """Return the numbers of all segments, oldest first."""
        # Asked first: one that the writer seals meanwhile has both names and counts once; the other way round, none.
        active = self._end[0]
        return sorted({active, *(number for number, _ in self._sealed())})

    def segment_size(self, segment: int) -> int:
        """Return a segment's bytes; 0 if there is none."""
        active, size = self._end
        if segment == active:
            return size
        path = self._path(segment)
        return path.stat().st_size if path.exists() else 0

    def name(self, segment: int) -> str:
        """Return a segment's file name."""
        return self._path(segment).name

    def append(self, lines: list[bytes]) -> list[Location]:
        """Write lines and sync them; all are durable on return, or none is there.

        Raises:
            StorageFailed: the disk refused; what was written of them is cut off again.
        """
        active, start = self._end
        self.check_place()
        if not self._has_remains and os.fstat(self._file).st_size != start:
            raise _taken()
        self.write(b"".join(lines), is_synced=True)
        locations = []
        for line in lines:
            locations.append(Location(active, start, len(line)))
            start += len(line)
        return locations

    def write(self, data: bytes, *, is_synced: bool = False) -> None:
        """Write whole lines: all of them are there on return, or none. They outlive the process, not the machine.

        Args:
            is_synced: make them durable too, and all that was written before.

        Raises:
            StorageFailed: the disk refused; what was written of them is cut off again.
        """
        active, start = self._end
        if not self._is_ours():
            raise _taken()
        try:
            if self._has_remains:
                self._cut(start)
            write_all(self._file, data)
            if is_synced:
                sync(self._file)
        except OSError as error:
            self._has_remains = True
            with contextlib.suppress(OSError):  # the next write cuts first
                self._cut(start)
            raise self._refused(error) from error
        self._end = (active, start + len(data))

    def sync(self) -> None:
        """Make durable what was written before. Any thread; raises StorageFailed."""
        try:
            sync(self._file)
        except OSError as error:
            raise self._refused(error) from error

    def check_place(self) -> None:
        """Raises StorageFailed: the file that is written is another's, or is not under its name any more."""
        if not self._is_ours():
            raise _taken()
        if not self._is_named(self._names.active):
            raise self._moved()

    def seal_if_full(self) -> None:
        """Close the active segment if it has grown past its limit, and start the next.

        Raises:
            OSError: the disk refused; the next call goes on where this one stopped.
            StorageFailed: the active file is another's, or has been moved away.
        """
        active, size = self._end
        if size < self._segment_bytes:
            return
        if not self._is_ours():
            raise _taken()
        sealed_name = self._names.segment(active)
        # A call that the disk refused half-way may have moved it: what has the active name now is an empty file, and
        # moving that too would put it in the full segment's place.
        is_moved = self._is_named(sealed_name)
        if not is_moved and not self._is_named(self._names.active):
            raise self._moved()
        # The next file is made before the full one is moved: a disk without room for it leaves all as it was.
        fresh = self._directory / f"{self._names.active}.next"
        descriptor = _open(fresh, os.O_TRUNC)
        try:
            if not is_moved and not self._takes(sealed_name):
                os.close(descriptor)
                return
            if not is_moved:
                (self._directory / self._names.active).rename(self._directory / sealed_name)
            fresh.rename(self._directory / self._names.active)
            sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        # The old descriptor stays valid across the rename and goes on as the segment's reader.
        self._file = descriptor
        self._files[active + 1] = descriptor
        self._end = (active + 1, 0)
        self._is_seal_blocked = False
        self._on_seal(sealed_name)

    def read(self, location: Location) -> bytes:
        """Return the bytes at a location; fewer if the file ends before. Raises StorageFailed."""
        try:
            descriptor = self._files.get(location.segment)
            if descriptor is None:
                opened = os.open(self._path(location.segment), os.O_RDONLY | os.O_CLOEXEC)
                descriptor = self._files.setdefault(location.segment, opened)
                if descriptor != opened:
                    os.close(opened)  # another thread was here first
            return os.pread(descriptor, location.length, location.offset)
        except OSError as error:
            raise StorageFailed(
                f"The journal segment {self.name(location.segment)} could not be read ({error.strerror}).",
                hint="Put the segment back into the data directory, or run `kdproxy verify --repair`.",
            ) from error

    def lines(self, *, segment: int | None = None, offset: int = 0) -> Iterator[JournalLine]:
        """Yield the lines from a place on, in order. An unfinished last line comes without its line break.

        Any thread; of the active segment, what was synced when its turn came.
        """
        for number in self.segments():
            if segment is not None and number < segment:
                continue
            start = offset if number == segment else 0
            yield from self._segment_lines(number, start)

    def cut_torn_tail(self) -> int:
        """Cut an unfinished last line off the active segment and return its bytes: it was never acknowledged.

        Where a journal is only read the line is left out, and nothing is cut.
        """
        size = end = self._end[1]
        while end > 0:
            start = max(0, end - _READ_BYTES)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        torn = size - end
        if torn:
            self._cut(end)
        return 0 if self._is_read_only else torn

    def open_events(self, *, is_read_only: bool) -> "Journal":
        """Open the events log beside it."""
        return Journal(
            self._directory,
            segment_bytes=self._segment_bytes,
            files=EVENT_FILES,
            is_ours=self._is_ours,
            is_read_only=is_read_only,
        )

    def sealed_facts(self) -> dict[str, list[int]]:
        """Return size and time of each sealed segment, by name: what tells whether one was changed."""
        found = {path.name: path.stat() for _, path in self._sealed()}
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(found.items()) if stat.st_size}

    def sealed_name(self, segment: int) -> str:
        """Return the name that a segment has, or gets, when it is sealed."""
        return self._names.segment(segment)

    @property
    def is_torn(self) -> bool:
        """Whether the active file ends within a line."""
        size = self._end[1]
        return bool(size) and os.pread(self._file, 1, size - 1) != b"\n"

    def close(self) -> None:
        """Close all files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _segment_lines(self, segment: int, offset: int) -> Iterator[JournalLine]:
        pending = bytearray()
        end, limit = offset, self.segment_size(segment)
        while end < limit:
            chunk = self.read(Location(segment, end, min(_READ_BYTES, limit - end)))
            if not chunk:
                break
            end += len(chunk)
            pending += chunk
            start = 0
            while (found := pending.find(b"\n", start)) >= 0:
                raw = bytes(pending[start : found + 1])
                yield JournalLine(location=Location(segment, offset, len(raw)), raw=raw)
                offset += len(raw)
                start = found + 1
            del pending[:start]
            if len(pending) > MAX_LINE_BYTES:
                raise StorageFailed(
                    f"{self.name(segment)} holds a line of over {MAX_LINE_BYTES} bytes.",
                    hint="It is not a journal: restore the file from a copy.",
                )
        if pending:
            yield JournalLine(location=Location(segment, offset, len(pending)), raw=bytes(pending))

    def _is_named(self, name: str) -> bool:
        """Whether a name leads to the open file: what goes elsewhere would be gone with the process."""
        try:
            named = (self._directory / name).stat()
        except FileNotFoundError:
            return False
        held = os.fstat(self._file)
        return (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev)

    def _takes(self, name: str) -> bool:
        """Take a free name for the full segment, or say once that another file has it."""
        path = self._directory / name
        if take_name(path):
            return True
        if not self._is_seal_blocked:
            log.error(
                "a file that is not ours has the name of the journal segment that is full: nothing is sealed and the "
                "active file grows on, until that file is moved away",
                extra={"path": str(path)},
            )
        self._is_seal_blocked = True
        return False

    def _cut(self, size: int) -> None:
        if not self._is_read_only:
            os.ftruncate(self._file, size)
        self._end = (self._end[0], size)
        self._has_remains = False

    def _open_active(self) -> int:
        if self._is_read_only:
            with contextlib.suppress(FileNotFoundError):  # a kill amid a seal: what was written is in the sealed one
                return os.open(self._directory / self._names.active, os.O_RDONLY | os.O_CLOEXEC)
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        descriptor = _open(self._directory / self._names.active)
        sync_directory(self._directory)
        return descriptor

    def _path(self, segment: int) -> Path:
        if segment == self._end[0]:
            return self._directory / self._names.active
        return self._directory / self._names.segment(segment)

    def _sealed(self) -> list[tuple[int, Path]]:
        sealed = self._names.sealed
        return [(int(match[1]), path) for path in self._directory.iterdir() if (match := sealed.fullmatch(path.name))]

    def _refused(self, error: OSError) -> StorageFailed:
        return StorageFailed(
            f"The {self._names.title} could not be written ({error.strerror}).",
            hint="Free disk space: kdproxy keeps what it has in memory and tries again each second.",
            retryable=True,
        )

    def _moved(self) -> StorageFailed:
        held = f" (Linux: cp /proc/{os.getpid()}/fd/{self._file} FILE)" if sys.platform == "linux" else ""
        return StorageFailed(
            f"{self._names.active} in the data directory was moved, replaced or deleted while this process writes it.",
            hint="Put the file back under its name; an editor that saves by renaming does this. If it was deleted, "
            f"copy it out of this process{held} before you stop it, put the copy there and restart: answers that are "
            "lost are bought again.",
            retryable=True,
        )


def _taken() -> StorageFailed:
    return StorageFailed(
        "Another process has taken or changed the journal.",
        hint="Two must not write one journal: stop one of them, then run `kdproxy verify`.",
    )


def _open(path: Path, extra_flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | extra_flags, 0o600)
