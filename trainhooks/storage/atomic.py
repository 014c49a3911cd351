"""Atomic replacement of files, also across a power cut: temp, fsync, rename, fsync the folder.

Some file systems (Lustre, SMB, FUSE, object stores) cannot sync a folder, each with its own errno. There the sync is
skipped, with one warning: file contents are durable, file names may not be. A fault (EIO, a full disk) is raised.
"""

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("trainhooks.storage")

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_NOT_OFFERED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY})
_NO_FOLDER_SYNC = _NOT_OFFERED | {errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR}

_warned: set[str] = set()
"""Warnings already given in this process."""


def write(path: Path, text: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `text` atomically. `durable=False` skips the syncs, for files that can be rebuilt."""
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("wb") as file:
        file.write(text)
        if durable:
            file.flush()
            sync_file(file.fileno())
    scratch.replace(path)
    if durable:
        sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Create a folder and its parents durably: a folder whose name is lost loses its content, too."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in new:
        with suppress(PermissionError):  # a folder that is writable but not readable
            sync_directory(each.parent)


def sync_file(descriptor: int) -> None:
    """Return once the file's bytes are on the medium; on macOS fsync alone leaves them in the drive's cache."""
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(descriptor, _FULL_SYNC)
            return
        except OSError as error:  # a network mount of macOS
            if error.errno not in _NOT_OFFERED:
                raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        _warn("files", error)


def sync_data(descriptor: int) -> bool:
    """Return once all written data is on the medium, name and size apart; False if only `sync_file` can do that."""
    if _FULL_SYNC is not None or not hasattr(os, "fdatasync"):
        return False
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        return False
    return True


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable, if the file system supports it.

    Raises:
        OSError: a disk fault.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        _warn("folders", error)


def _warn(what: str, error: OSError) -> None:
    if what not in _warned:
        _warned.add(what)
        log.warning(
            "the file system cannot sync %s (%s): a power cut may lose the newest ones, a kill loses nothing",
            what,
            error.strerror or error,
        )
