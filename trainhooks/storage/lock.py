"""One process writes to an output directory: the kernel's lock on progress/lock, with who holds it inside.

The lock goes with its process, however that dies. Data-loading workers are forked with a copy of the descriptor, which
would keep the lock of a killed trainer: every child closes its copy at once. There is no heartbeat: on a network file
system without working locks two processes are not told apart.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path

from trainhooks.errors import SessionBusy

NAME = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a directory."""

    pid: int
    host: str
    since: float
    """UTC Unix seconds."""


class DirectoryLock:
    """Held from its making to `release`.

    Raises:
        SessionBusy: another process, or another session of this one, writes there.
        OSError: the directory cannot be written to.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / NAME
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise _busy(directory, _read(path)) from error
        holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=time.time())
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only its name is missing
            os.write(descriptor, json.dumps(asdict(holder)).encode() + b"\n")
        self._descriptor: int | None = descriptor
        _held.add(self)

    def release(self) -> None:
        """Let the next one in."""
        _held.discard(self)
        self.forget()

    def forget(self) -> None:
        """Close the descriptor; in a forked child that leaves the parent's lock as it is."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(directory: Path) -> Holder | None:
    """Return who holds a directory now, or None. Changes nothing."""
    path = directory / NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path) or Holder(pid=0, host="unknown", since=0.0)
    finally:
        os.close(descriptor)
    return None


def _read(path: Path) -> Holder | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads(path.read_bytes()))
    return None


def _busy(directory: Path, found: Holder | None) -> SessionBusy:
    if found is not None and (found.pid, found.host) == (os.getpid(), socket.gethostname()):
        return SessionBusy(
            f"{directory.parent} is being written by this process itself.",
            hint="It was opened before and not closed: call its close(). In a notebook that is progress.close() in a"
            " cell, or a new kernel.",
        )
    who = "another process" if found is None else f"process {found.pid} on {found.host}"
    return SessionBusy(
        f"{directory.parent} is being written by {who}.",
        hint="Wait until it ends or stop it; or give this run another output directory.",
    )


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()
    _held.clear()


os.register_at_fork(after_in_child=_forget_all)
