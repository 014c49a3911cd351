"""One process owns a data directory: the lock file says which, and where it answers.

On local disk the kernel's lock decides (it goes with the process, however it dies). On a network or FUSE file system
that lock may mean nothing, so a heartbeat in the file does.
"""

import contextlib
import errno
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from kdproxy.errors import DirectoryBusy

log = logging.getLogger("kdproxy.storage")

NAME = "lock"
BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
_LOOKS = 3
_FILE_BYTES = 2048  # always written whole and of one length: a reader never meets a half-written owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who owns a directory."""

    pid: int
    host: str
    started_at: float
    beat_at: float
    address: str | None
    """Base URL of the owner's own API, once it serves."""
    token: str
    """Secret for the owner's own API: who can read the file (mode 0600) may use it."""
    command: str


class DirectoryLock:
    """Held from `acquire` to `release`."""

    def __init__(self, directory: Path, *, is_network: bool, command: str) -> None:
        self._path = directory / NAME
        self._is_network = is_network
        self._descriptor: int | None = None
        self._stop = threading.Event()
        self._writing = threading.Lock()  # between the heart and `announce`: both write the whole owner
        self._beat: threading.Thread | None = None
        now = time.time()
        self.is_lost = False
        """Whether another process took the directory because this one had stood still for too long."""
        self.owner = Owner(
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=now,
            beat_at=now,
            address=None,
            token=secrets.token_urlsafe(32),
            command=command,
        )

    def acquire(self) -> None:
        """Take the lock or say at once who holds it.

        Raises:
            DirectoryBusy: another process owns the directory.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if self._is_network:
                _refuse_beating(self._path.parent)
            else:
                self._take_kernel_lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        try:
            self._write_if_there_is_room()
        except BaseException:
            self._descriptor = None
            os.close(descriptor)
            raise
        if self._is_network:
            self._confirm()
            self._beat = threading.Thread(target=self._keep_beating, name="kdproxy-lock", daemon=True)
            self._beat.start()

    def announce(self, address: str) -> None:
        """Write where the owner answers."""
        with self._writing:
            self.owner = replace(self.owner, address=address)
            self._write_if_there_is_room()

    def release(self) -> None:
        """Let the next one in."""
        self._stop.set()
        if self._beat is not None:
            self._beat.join()
        if self._descriptor is None:
            return
        # The file stays: unlinking a locked file would let two processes hold two locks of one name.
        if not self._is_followed():
            # Nobody's, and as long as any: on a full disk the next owner finds room for its text.
            _write_whole(self._descriptor, b"{}")
        os.close(self._descriptor)
        self._descriptor = None

    def _take_kernel_lock(self, descriptor: int) -> None:
        import fcntl

        for look in range(_LOOKS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                # One that only reads asks for the lock too, and holds it for some microseconds.
                if look == _LOOKS - 1:
                    raise busy(self._path.parent, read_owner(self._path.parent)) from error
            _pause()

    def _confirm(self) -> None:
        """Two may have written within one moment: after a pause the last writer is the owner."""
        _pause()
        owner = read_owner(self._path.parent)
        if owner is not None and owner.token != self.owner.token:
            assert self._descriptor is not None
            os.close(self._descriptor)
            self._descriptor = None
            raise busy(self._path.parent, owner)

    def _keep_beating(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            if self._is_followed():
                self.is_lost = True
                log.critical("another process has taken the data directory: this one stores nothing any more", extra={})
                return
            with self._writing, contextlib.suppress(OSError):  # a missed beat is made up by the next
                self.owner = replace(self.owner, beat_at=time.time())
                self._write()

    def _is_followed(self) -> bool:
        """Whether somebody took the directory while this process stood still for so long that it seemed dead."""
        owner = read_owner(self._path.parent)
        return owner is not None and owner.token != self.owner.token

    def _write_if_there_is_room(self) -> None:
        """On a local disk the kernel's lock is what counts, and what is stored can be served from a full one."""
        try:
            self._write()
        except OSError as error:
            if self._is_network or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            log.warning(
                "the disk is full: other kdproxy commands cannot find out where this process answers",
                extra={"path": str(self._path)},
            )

    def _write(self) -> None:
        assert self._descriptor is not None
        _write_whole(self._descriptor, orjson.dumps(asdict(self.owner), option=orjson.OPT_INDENT_2))


def _write_whole(descriptor: int, text: bytes) -> None:
    os.pwrite(descriptor, text.ljust(_FILE_BYTES - 1) + b"\n", 0)
    os.fsync(descriptor)


def read_owner(directory: Path) -> Owner | None:
    """Return who wrote the lock file, or None if nobody did or it is half-written."""
    try:
        members = orjson.loads((directory / NAME).read_bytes())
        return Owner(**members)
    except (OSError, orjson.JSONDecodeError, TypeError):
        return None


def refuse_owned(directory: Path, *, is_network: bool) -> None:
    """Raises DirectoryBusy where a process owns the directory. Writes nothing."""
    import fcntl

    if is_network:
        _refuse_beating(directory)
        return
    try:
        descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise busy(directory, read_owner(directory)) from error
    finally:
        os.close(descriptor)


def _refuse_beating(directory: Path) -> None:
    owner, path = read_owner(directory), directory / NAME
    if owner is None and path.exists() and path.stat().st_size:
        _pause()
        owner = read_owner(directory)
    if owner is None:
        return
    is_dead_here = owner.host == socket.gethostname() and not _is_alive(owner.pid)
    if not is_dead_here and time.time() - owner.beat_at < STALE_SECONDS:
        raise busy(directory, owner)


def busy(directory: Path, owner: Owner | None) -> DirectoryBusy:
    """Say who owns a directory."""
    if owner is None:
        who, address = "another process", None
    else:
        where = f", answering at {owner.address}" if owner.address else ""
        who, address = f"process {owner.pid} on {owner.host} ({owner.command}{where})", owner.address
    return DirectoryBusy(
        f"The data directory {directory} belongs to {who}.",
        hint="Two at once would write over each other, so nothing was opened. Use that one (kdproxy stats shows it), "
        "stop it first, or give this one another --data-dir.",
        address=address,
    )


def _pause() -> None:
    time.sleep(0.2)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
