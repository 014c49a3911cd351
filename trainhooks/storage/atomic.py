"""Files that are either as before or as after, also across a power cut: temp, fsync, rename, fsync the folder."""

import fcntl
import os
from pathlib import Path

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


def write(path: Path, text: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `text` in one step. `durable` False leaves out the syncs, for what can be made again."""
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("wb") as file:
        file.write(text)
        if durable:
            sync_file(file.fileno())
    scratch.replace(path)
    if durable:
        sync_directory(path.parent)


def sync_file(descriptor: int) -> None:
    """Return once the file's bytes are on the medium; on macOS fsync alone leaves them in the drive's cache."""
    if _FULL_SYNC is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, _FULL_SYNC)


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
