"""Rewrites segments of a journal that no process has open, line by line. Only `scrub` uses it.

Safe against a crash at any moment: the new file of a segment is written beside it, synced, and renamed over it. The
index is removed before the first rename: the next start reads whatever mixture of old and new segments it finds.
"""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdproxy.errors import StorageFailed
from kdproxy.filesystem import is_network
from kdproxy.storage.directory import check_format, index_path_of
from kdproxy.storage.disk import discard
from kdproxy.storage.durable import sync, sync_directory
from kdproxy.storage.layout import prepare
from kdproxy.storage.lock import DirectoryLock
from kdproxy.storage.log_files import ACTIVE_NAME, SEALED
from kdproxy.storage.manifest import Manifest

Change = Callable[[bytes], bytes | None]
"""Returns the new line, including its line break; None if it stays unchanged."""

_SUFFIX = ".scrubbed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The result for one segment."""

    segment: str
    lines: int
    changed: int


def survey(path: Path, change: Change) -> Iterator[Rewritten]:
    """Yield what a change would do, segment by segment. Changes no byte. Raises StorageFailed."""
    try:
        for file in _segments(path):
            yield _count(file, change)
    except OSError as error:
        raise _failed(path, error) from error


def rewrite(path: Path, change: Change, *, command: str) -> Iterator[Rewritten]:
    """Rewrite the segments that a change affects; yield each segment once it is durable.

    Raises:
        DirectoryBusy: another process owns the directory.
        StorageFailed: the directory is not kdproxy's or not this user's, or a write failed. The
            yielded segments are rewritten, the others are unchanged.
    """
    if path.exists():
        prepare(path)  # refuses a directory that is another user's or not kdproxy's
    on_network = is_network(path)
    lock = DirectoryLock(path, is_network=on_network, command=command)
    try:
        lock.acquire()
        try:
            check_format(path)
            for rest in path.glob(f"api_recovery*{_SUFFIX}"):
                rest.unlink()  # left by a killed run
            manifest = Manifest.load(path)
            index_path = index_path_of(path, on_network=on_network)
            for file in _segments(path):
                found = _count(file, change)
                if found.changed:
                    _replace(file, change, index_path)
                    if file.name != ACTIVE_NAME and not manifest.is_new:
                        manifest.add(file.name)
                yield found
        finally:
            lock.release()
    except OSError as error:
        raise _failed(path, error) from error


def _segments(path: Path) -> list[Path]:
    sealed = sorted(file for file in path.iterdir() if SEALED.fullmatch(file.name))
    active = path / ACTIVE_NAME
    return [*sealed, active] if active.exists() else sealed


def _count(file: Path, change: Change) -> Rewritten:
    lines = changed = 0
    with file.open("rb") as source:
        for line in source:
            lines += 1
            changed += change(line) is not None
    return Rewritten(segment=file.name, lines=lines, changed=changed)


def _replace(file: Path, change: Change, index_path: Path | None) -> None:
    fresh = file.with_name(file.name + _SUFFIX)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with file.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            for line in source:
                new = change(line)
                target.write(line if new is None else new)
            target.flush()
            sync(target.fileno())
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if index_path is not None:
        discard(index_path)
    fresh.rename(file)
    sync_directory(file.parent)


def _failed(path: Path, error: OSError) -> StorageFailed:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageFailed(
        f"The journal in {path} could not be rewritten ({error.strerror}). No answer is lost.",
        hint="Free as much disk space as the largest segment takes, and run it again."
        if is_full
        else "Run it again once the directory is writable.",
        code="journal_unwritable",
    )
