"""Files that are either as before or as after, also across a power cut: temp, fsync, rename, fsync the folder."""

import fcntl
import os
from contextlib import suppress
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


def make_directory(path: Path) -> None:
    """Make a folder, and those above it, durably: without its name in the one above, what is in it is gone as well."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in new:
        with suppress(PermissionError):  # one that may be written to and not be read
            sync_directory(each.parent)


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
