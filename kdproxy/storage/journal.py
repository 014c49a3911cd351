"""The journal's files: append, sync, seal, read. Blocking; one thread appends. Knows lines, not records.

Active file `api_recovery.jsonl`, sealed segments `api_recovery.NNNNNN.jsonl`; `events.jsonl` likewise.
The active file already has the number that it gets when it is sealed, so locations stay valid.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from kdproxy.core.ports import JournalLine, Location
from kdproxy.errors import StorageFailed
from kdproxy.storage.durable import sync, sync_directory, take_name, write_all
from kdproxy.storage.journal_failure import moved, refused, shortened, taken
from kdproxy.storage.log_files import EVENT_FILES, JOURNAL_FILES, LogFiles

log = logging.getLogger("kdproxy.storage")


_READ_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 17
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
            last_sealed: the highest number of any segment so far, even if its file is gone; it is not used again.
            on_seal: called with the name of each segment once it is sealed.
        """
        self._directory = directory
        self._names = files
        self._is_read_only = is_read_only
        self._segment_bytes = segment_bytes
        self._is_ours = is_ours
        self._on_seal = on_seal
        self._is_seal_blocked = False
        self._has_remains = False
        """Whether a failed append left bytes that could not be cut off."""
        # Descriptors by segment, the active one's included: the loop's thread reads while the writer's seals, and a
        # single dict look-up prevents reading one segment at another's offset.
        self._files: dict[int, int] = {}
        # An empty file reserves the name of a seal that a kill interrupted: the active file still has that number.
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
        """The active segment and its size: the place of the next line."""
        return self._end

    @property
    def size_bytes(self) -> int:
        """Bytes in all segments."""
        return sum(map(self.segment_size, self.segments()))

    def segments(self) -> list[int]:
        """Return the numbers of all segments, oldest first."""
        # Read first: a segment sealed meanwhile is found twice and counts once. In the other order it is missed.
        active = self._end[0]
        return sorted({active, *(number for number, _ in self._sealed())})

    def segment_size(self, segment: int) -> int:
        """Return a segment's size in bytes; 0 if it does not exist."""
        active, size = self._end
        if segment == active:
            return size
        path = self._path(segment)
        return path.stat().st_size if path.exists() else 0

    def name(self, segment: int) -> str:
        """Return a segment's file name."""
        return self._path(segment).name

    def append(self, lines: list[bytes]) -> list[Location]:
        """Write lines and sync them; on return all are durable, on an error none is written.

        Raises:
            StorageFailed: the write failed; bytes already written are cut off again.
        """
        active, start = self._end
        self.check_place()
        self._check_size()
        self.write(b"".join(lines), is_synced=True)
        locations = []
        for line in lines:
            locations.append(Location(active, start, len(line)))
            start += len(line)
        return locations

    def write(self, data: bytes, *, is_synced: bool = False) -> None:
        """Write whole lines, all or none. They survive a kill of the process, but not a power cut.

        Args:
            is_synced: also make them and all earlier writes durable.

        Raises:
            StorageFailed: the write failed; bytes already written are cut off again.
        """
        active, start = self._end
        if not self._is_ours():
            raise taken()
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
            raise refused(self._names.title, error) from error
        self._end = (active, start + len(data))

    def sync(self) -> None:
        """Make all earlier writes durable. Any thread; raises StorageFailed."""
        try:
            sync(self._file)
        except OSError as error:
            raise refused(self._names.title, error) from error

    def check_place(self) -> None:
        """Raise StorageFailed if another process has taken the active file, or it was moved or deleted."""
        if not self._is_ours():
            raise taken()
        # A seal that failed half-way has moved it under its sealed name; the next `seal_if_full` finishes that.
        if not self._is_named(self._names.active) and not self._is_named(self._names.segment(self._end[0])):
            raise moved(self._names.active, self._file)

    def _check_size(self) -> None:
        found, expected = os.fstat(self._file).st_size, self._end[1]
        if found == expected or self._has_remains:
            return
        raise shortened(self._names.active) if found < expected else taken()

    def seal_if_full(self) -> None:
        """Seal the active segment if it has reached its limit, and start the next.

        Raises:
            OSError: a step failed; the next call continues from there.
            StorageFailed: another process has taken the active file, or it was moved or deleted.
        """
        active, size = self._end
        if size < self._segment_bytes:
            return
        if not self._is_ours():
            raise taken()
        sealed_name = self._names.segment(active)
        # An earlier call that failed half-way may have moved it. The active name is then an empty file, and moving that
        # too would replace the full segment.
        is_moved = self._is_named(sealed_name)
        if not is_moved and not self._is_named(self._names.active):
            raise moved(self._names.active, self._file)
        self._check_size()
        # The next file is created before the full one is moved: on a full disk nothing changes.
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
        # The old descriptor stays valid across the rename and now reads the sealed segment.
        self._file = descriptor
        self._files[active + 1] = descriptor
        self._end = (active + 1, 0)
        self._is_seal_blocked = False
        self._on_seal(sealed_name)

    def read(self, location: Location) -> bytes:
        """Return the bytes at a location; fewer if the file is shorter. Raises StorageFailed."""
        try:
            descriptor = self._files.get(location.segment)
            if descriptor is None:
                opened = os.open(self._path(location.segment), os.O_RDONLY | os.O_CLOEXEC)
                descriptor = self._files.setdefault(location.segment, opened)
                if descriptor != opened:
                    os.close(opened)  # another thread opened it first
            return os.pread(descriptor, location.length, location.offset)
        except OSError as error:
            raise StorageFailed(
                f"The journal segment {self.name(location.segment)} could not be read ({error.strerror}).",
                hint="Put the segment back into the data directory, or run `kdproxy verify --repair`.",
            ) from error

    def lines(self, *, segment: int | None = None, offset: int = 0) -> Iterator[JournalLine]:
        """Yield the lines from a place on, in order. An unfinished last line comes without its line break.

        Any thread; of the active segment, up to its size when the reading reaches it.
        """
        for number in self.segments():
            if segment is not None and number < segment:
                continue
            start = offset if number == segment else 0
            yield from self._segment_lines(number, start)

    def blocks(self) -> Iterator[bytes]:
        """Yield all whole lines in blocks of some 128 KB: for readers to whom `lines` is too slow, and their places
        nothing.
        """
        for number in self.segments():
            pending = b""
            end, limit = 0, self.segment_size(number)
            while end < limit:
                chunk = self.read(Location(number, end, min(_BLOCK_BYTES, limit - end)))
                if not chunk:
                    break
                end += len(chunk)
                whole = chunk.rfind(b"\n") + 1
                if whole:
                    yield pending + chunk[:whole]
                    pending = chunk[whole:]
                else:
                    pending += chunk

    def cut_torn_tail(self) -> int:
        """Cut an unfinished last line off the active segment, which was never acknowledged; return its size in bytes.

        In a read-only journal the line is skipped and nothing is cut.
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
        """Return size and time of each sealed segment, by name, to detect changes."""
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
                    hint="The file is damaged: restore it from a copy.",
                )
        if pending:
            yield JournalLine(location=Location(segment, offset, len(pending)), raw=bytes(pending))

    def _is_named(self, name: str) -> bool:
        """Whether a name still refers to the open file; otherwise writes would be lost with the process."""
        try:
            named = (self._directory / name).stat()
        except FileNotFoundError:
            return False
        held = os.fstat(self._file)
        return (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev)

    def _takes(self, name: str) -> bool:
        """Reserve the name of the full segment, or log once that another file has it."""
        path = self._directory / name
        if take_name(path):
            return True
        if not self._is_seal_blocked:
            log.error(
                "the full journal segment cannot be sealed, because another file has its name; the active file keeps "
                "growing and no answer is lost. Move that file away",
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
            with contextlib.suppress(FileNotFoundError):  # a kill during a seal: the lines are in the sealed one
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


def _open(path: Path, extra_flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | extra_flags, 0o600)
