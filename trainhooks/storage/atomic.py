"""Files that are either as before or as after, also across a power cut: temp, fsync, rename, fsync the folder.

Some file systems (Lustre, SMB, FUSE, object stores) cannot sync a folder, and each says so with an errno of its own.
There the sync is left out, and said once: what lies in the files is durable, their names are as the file system has
them. A fault (EIO, a full disk) is raised.
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

_told: set[str] = set()
"""What was said of the file systems of this process."""


def write(path: Path, text: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `text` in one step. `durable` False leaves out the syncs, for what can be made again."""
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
    """Make a folder, and those above it, durably: without its name in the one above, what is in it is gone as well."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in new:
        with suppress(PermissionError):  # one that may be written to and not be read
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
        _tell("files", error)


def sync_data(descriptor: int) -> bool:
    """Return once what is written so far is on the medium, its name and size apart; False where only `sync_file` does
    that."""
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
    """Make the names in a folder durable, where the file system can.

    Raises:
        OSError: a fault of the disk; that it cannot is none.
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
        _tell("folders", error)


def _tell(what: str, error: OSError) -> None:
    if what not in _told:
        _told.add(what)
        log.warning(
            "the file system cannot sync %s (%s): a power cut may take the newest ones, a kill takes nothing",
            what,
            error.strerror or error,
        )
