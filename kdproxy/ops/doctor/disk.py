"""The file system of the data directory: its type, room, locks and whether it syncs. Writes nothing."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from kdproxy.filesystem import MOUNTS, is_network, is_network_type, type_of
from kdproxy.ops.doctor.check import Checks, note, ok, problem, reason_of
from kdproxy.storage.layout import MARKER_NAME
from kdproxy.storage.lock import NAME as LOCK_NAME
from kdproxy.storage.log_files import ACTIVE_NAME

LEAST_BYTES = 100 << 20
FEW_BYTES = 1 << 30
LEAST_INODES = 100
"""The proxy makes a file for each sealed segment, some for the index, and some for a moment."""
_GONE = {
    "tmpfs": "in memory: all answers are gone after a restart of the machine",
    "ramfs": "in memory: all answers are gone after a restart of the machine",
    "overlay": "in a container's own layer: all answers are deleted with the container",
}


def file_system_of(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system that holds a path; "" if it is not known."""
    if mounts is None:
        if sys.platform != "linux":
            return "network" if is_network(path) else ""
        try:
            mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    return type_of(path, mounts)


def check_file_system(path: Path, type_name: str) -> Checks:
    """Check the type of the file system."""
    shown = type_name or "of an unknown type"
    if is_network_type(type_name) or type_name == "network":
        yield note(
            "file system",
            f"{path} lies on a network or FUSE file system ({shown}): a heartbeat replaces the lock, and the index is "
            "kept on this machine's own disk. Answers are as safe as that file system's syncs.",
            "The clocks of all machines that use it must agree within 30 s. A local disk is faster.",
        )
    elif type_name in _GONE:
        yield note(
            "file system",
            f"{path} lies {_GONE[type_name]}, and would be paid for again.",
            "Give a --data-dir on a disk, in a container on a volume.",
        )
    else:
        case = ", case-insensitive (the names of kdproxy's files do not depend on case)" if _ignores_case(path) else ""
        yield ok("file system", f"{path} lies on a local disk ({shown}{case})")


def check_room(path: Path, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> Checks:
    """Check free space and inodes, as far as the file system counts them."""
    found = statvfs(path)
    free = found.f_bavail * found.f_frsize
    if not found.f_blocks:
        yield note("free space", f"The file system of {path} does not say how much space it has.")
    elif free < LEAST_BYTES:
        yield problem(
            "free space",
            f"{_size(free)} are free for {path}. When the disk is full, new calls are held, because their answers "
            "could not be stored.",
            "Free some space, or move the directory to a larger disk (stop the proxy first).",
        )
    elif free < FEW_BYTES:
        yield note("free space", f"{_size(free)} are free for {path}: room for some 100,000 short answers at most.")
    else:
        yield ok("free space", f"{_size(free)} are free for {path}")
    # btrfs, zfs and many network file systems have no fixed number of inodes, and say 0.
    if found.f_files and found.f_favail < LEAST_INODES:
        yield problem(
            "free inodes",
            f"{found.f_favail} inodes are free for {path}: no new file can be made there, though there is space.",
            "Delete small files on that file system (df -i shows which one it is).",
        )


def check_locks(path: Path) -> Checks:
    """Check on a local disk that the kernel's locks work: they keep two proxies from writing at once."""
    import fcntl

    target = path / LOCK_NAME
    if not target.exists():
        target = path
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass  # a process has it, so locks work
    except OSError as error:
        yield problem(
            "locks",
            f"The file system of {path} does not lock files ({reason_of(error)}): two proxies could use the directory "
            "at once and damage it.",
            "Give a --data-dir on a local disk.",
        )
        return
    finally:
        os.close(descriptor)
    yield ok("locks", "the file system locks files")


def check_sync(path: Path, fsync: Callable[[int], None] = os.fsync) -> Checks:
    """Check that the file system syncs directories and the journal; reads and changes no byte."""
    for target in (path, path / ACTIVE_NAME):
        try:
            descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        try:
            fsync(descriptor)
        except OSError as error:
            is_failing = error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT)
            what = "The disk failed to sync" if is_failing else "The file system does not sync"
            yield problem(
                "sync",
                f"{what} {target} ({reason_of(error)}): answers could be lost when the machine stops.",
                "Copy the directory to another disk now." if is_failing else "Give a --data-dir on a local disk.",
            )
            return
        finally:
            os.close(descriptor)
    yield ok("sync", "the file system syncs files and directories")


def _ignores_case(path: Path) -> bool:
    try:
        return (path / MARKER_NAME.upper()).samefile(path / MARKER_NAME)
    except OSError:
        return False


def _size(count: int) -> str:
    return f"{count / (1 << 30):,.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):,.0f} MiB"
