"""Makes files durable, and prevents one file from replacing another."""

import os
import stat
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make a rename or a new file in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes. Raises OSError, possibly after a part of them."""
    written = os.write(descriptor, data)
    if written == len(data):
        return  # nearly always
    view = memoryview(data)[written:]
    while view:
        view = view[os.write(descriptor, view) :]


def sync(descriptor: int) -> None:
    """Make a file's bytes durable. On macOS fsync stops at the drive's cache; F_FULLFSYNC goes through it."""
    try:
        import fcntl

        full_sync = getattr(fcntl, "F_FULLFSYNC", None)
        if full_sync is not None:
            fcntl.fcntl(descriptor, full_sync)
            return
    except (ImportError, OSError):
        pass
    (getattr(os, "fdatasync", None) or os.fsync)(descriptor)


def take_name(path: Path) -> bool:
    """Create an empty file for a rename to replace; False if another file has the name, since it would be lost.

    An existing empty file is accepted: a kill or a full disk may have left it, and nothing is lost with it.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        found = path.lstat()
        return stat.S_ISREG(found.st_mode) and not found.st_size
    return True
