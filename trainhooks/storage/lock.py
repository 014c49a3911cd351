"""One process writes to an output directory: the kernel's lock on progress/lock, with who holds it inside.

The kernel releases the lock when its process ends, however it ends. Forked loader workers inherit the descriptor, which
would keep the lock of a killed trainer: every child closes its copy at once. Where the file system has no such lock
(Lustre, some NFS and FUSE mounts; Windows), whatever the errno, `heartbeat` replaces it.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path

from trainhooks.errors import SessionBusy
from trainhooks.storage import heartbeat
from trainhooks.storage.heartbeat import Heartbeat

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("trainhooks.storage")

NAME = "lock"

_HAS_KERNEL_LOCKS = fcntl is not None

_CONFLICT = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES})
"""EACCES: POSIX allows it for fcntl locks, and some file systems implement flock with those."""
_FAULT = frozenset({errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EROFS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a directory."""

    pid: int
    host: str
    since: float
    """UTC Unix seconds."""


class DirectoryLock:
    """Held from construction to `release`. On a file system without locks construction takes 3 to 13 seconds.

    Raises:
        SessionBusy: another process, or another session of this one, writes there.
        OSError: the directory cannot be written to.
    """

    def __init__(self, directory: Path) -> None:
        self._path = path = directory / NAME
        self._descriptor: int | None = None
        self._heartbeat: Heartbeat | None = None
        if any(each._heartbeat is not None and each._path == path for each in _held):
            raise _busy(directory, _read(path))
        holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=time.time())
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            reason = _flock(descriptor, exclusive=True)
        except BlockingIOError as error:
            os.close(descriptor)
            raise _busy(directory, _read(path)) from error
        except BaseException:
            os.close(descriptor)
            raise
        if reason is None:
            if heartbeat.is_beating(path):  # held by a host whose mount has no locks
                os.close(descriptor)
                raise _busy(directory, _read(path))
            os.ftruncate(descriptor, 0)
            with contextlib.suppress(OSError):  # a full disk: the lock holds, only the holder is unnamed
                os.write(descriptor, json.dumps(asdict(holder)).encode() + b"\n")
            self._descriptor = descriptor
        else:
            os.close(descriptor)
            log.warning(
                "%s is on a file system without locks (%s): a heartbeat in the lock file replaces them, which takes"
                " 3 seconds now, 13 after a kill",
                directory,
                reason,
            )
            self._heartbeat = heartbeat.taken(path, asdict(holder))
            if self._heartbeat is None:
                raise _busy(directory, _read(path))
        _held.add(self)

    def release(self) -> None:
        """Release the lock."""
        _held.discard(self)
        self.forget()

    def forget(self) -> None:
        """Close the descriptor; in a forked child the parent keeps the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._heartbeat is not None:
            self._heartbeat.release()
            self._heartbeat = None


def holder(directory: Path) -> Holder | None:
    """Return who holds a directory now, or None. Changes nothing.

    If a process without kernel locks did not release it, this watches for up to 10 seconds.
    """
    path = directory / NAME
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        _flock(descriptor, exclusive=False)
    except BlockingIOError:
        return _read(path) or Holder(pid=0, host="unknown", since=0.0)
    finally:
        os.close(descriptor)
    return _read(path) if heartbeat.is_beating(path) else None


def _flock(descriptor: int, *, exclusive: bool) -> str | None:
    """Take the kernel's lock; return why the file system has no locks, in words.

    Raises:
        BlockingIOError: another process has it.
        OSError: a fault.
    """
    if not _HAS_KERNEL_LOCKS:
        return "Windows"
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _CONFLICT:
            raise BlockingIOError(error.errno, os.strerror(error.errno)) from error
        if error.errno in _FAULT:
            raise
        return error.strerror or str(error)
    return None


def _read(path: Path) -> Holder | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        members = json.loads(path.read_bytes())
        return Holder(pid=members["pid"], host=members["host"], since=members["since"])
    return None


def _busy(directory: Path, found: Holder | None) -> SessionBusy:
    if found is not None and (found.pid, found.host) == (os.getpid(), socket.gethostname()):
        return SessionBusy(
            f"{directory.parent} is being written by this process itself.",
            hint="An earlier session was not closed: call its close(). In a notebook, run progress.close() in a cell or"
            " restart the kernel.",
        )
    who = "another process" if found is None else f"process {found.pid} on {found.host}"
    return SessionBusy(
        f"{directory.parent} is being written by {who}.",
        hint="Wait until it ends, stop it, or give this run another output directory.",
    )


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_all)
