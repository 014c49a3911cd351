"""api_recovery.jsonl: answers of the teacher, as prompt lines of the proxy's journal; `kdproxy warm` takes the file.

The k-th equal prompt for a model is ordinal k. Each line is synced before `record` returns, because the answer was paid
for.
"""

import logging
import os
import threading
import time
from pathlib import Path

from trainhooks.storage import atomic

log = logging.getLogger("trainhooks.storage")

NAME = "api_recovery.jsonl"


class ResponseLog:
    """The file of one output directory; opened when the first answer is recorded or looked up. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._places: dict[str, list[tuple[int, int]]] = {}
        """By the prompt's match key: offset and length of each line, in bytes, in the order of ordinals."""
        self._end = 0

    def record(self, prompt: str, response: str, *, model: str, system: str | None, source: str | None) -> int:
        """Append an answer and return its ordinal once it is on the medium.

        Raises:
            OSError: the disk refused; the file is unchanged.
        """
        from kdproxy.core import record as records

        with self._lock:
            descriptor = self._open()
            key = records.prompt_key(model, prompt, system=system)
            places = self._places.setdefault(key, [])
            line = records.encode(
                records.prompt_record(
                    model, prompt, response, system=system, ordinal=len(places), created_at=time.time(), source=source
                )
            )
            try:
                _write_whole(descriptor, line)
                atomic.sync_file(descriptor)
            except OSError:
                os.ftruncate(descriptor, self._end)
                raise
            except BaseException:  # Ctrl-C, most likely during the sync: keep a whole line, since it was paid for
                if os.fstat(descriptor).st_size == self._end + len(line):
                    self._note(places, line)
                else:
                    os.ftruncate(descriptor, self._end)
                raise
            self._note(places, line)
            return len(places) - 1

    def find(self, prompt: str, *, model: str, system: str | None, ordinal: int) -> str | None:
        """Return a recorded answer, or None."""
        from kdproxy.core import record as records

        with self._lock:
            descriptor = self._open()
            places = self._places.get(records.prompt_key(model, prompt, system=system), [])
            if ordinal >= len(places):
                return None
            offset, length = places[ordinal]
            os.lseek(descriptor, offset, os.SEEK_SET)  # writes append, whatever the offset
            found = records.read_prompt(os.read(descriptor, length))
            return None if found is None else found[1]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _note(self, places: list[tuple[int, int]], line: bytes) -> None:
        places.append((self._end, len(line)))
        self._end += len(line)

    def _open(self) -> int:
        if self._descriptor is None:
            is_new = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if is_new:
                    atomic.sync_directory(self._path.parent)
                self._read(descriptor)
            except BaseException:  # a file not read to its end must not be appended to
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self._descriptor

    def _read(self, descriptor: int) -> None:
        """Index the prompts; cut off a torn last line, which was never acknowledged to a caller."""
        from kdproxy.core import record as records

        self._places, self._end = {}, 0
        damaged = 0
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(descriptor, self._end)
                    log.warning("%s ended within a line: its last %d bytes were cut off", self._path, len(line))
                    break
                found, start = records.read_prompt(line), 0
                if found is None and not records.is_whole(line):  # a line of another kind is whole
                    damaged += 1
                    # A file that was put behind one with a torn last line: its first line is whole.
                    start = records.remainder(line) or 0
                    found = records.read_prompt(line[start:])
                if found is not None:
                    self._places.setdefault(found[0], []).append((self._end + start, len(line) - start))
                self._end += len(line)
        if damaged:
            log.warning(
                "%s has %d damaged lines: they are left as they are, and what is whole in them is used",
                self._path,
                damaged,
            )


def _write_whole(descriptor: int, text: bytes) -> None:
    view = memoryview(text)
    while view:
        view = view[os.write(descriptor, view) :]
