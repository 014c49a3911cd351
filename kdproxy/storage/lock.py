"""One process owns a data directory: the lock file names it and the address of its API.

On a local disk the kernel's lock decides (it ends with the process, however that dies). On a network or FUSE file
system that lock may have no effect, so a heartbeat in the file decides.
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
_ATTEMPTS = 3
_FILE_BYTES = 2048  # always written whole, with one length: no reader sees a half-written owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that owns a directory."""

    pid: int
    host: str
    started_at: float
    beat_at: float
    address: str | None
    """Base URL of the owner's own API, once it serves."""
    token: str
    """Secret for the owner's API: whoever can read the file (mode 0600) may use it."""
    command: str


class DirectoryLock:
    """The lock of a data directory, held from `acquire` to `release`."""

    def __init__(self, directory: Path, *, is_network: bool, command: str) -> None:
        self._path = directory / NAME
        self._is_network = is_network
        self._descriptor: int | None = None
        self._directory: int | None = None
        self._stop = threading.Event()
        self._writing = threading.Lock()  # between the heartbeat and `announce`: both write the whole owner
        self._beat: threading.Thread | None = None
        now = time.time()
        self.is_lost = False
        """Whether another process took the directory because this one was suspended for too long."""
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
        """Take the lock, or raise at once with the name of its holder.

        Raises:
            DirectoryBusy: another process owns the directory.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if self._is_network:
                _refuse_beating(self._path.parent)
            else:
                self._take_kernel_lock(descriptor)
                self._take_directory()
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        try:
            self._write_if_there_is_room()
        except BaseException:
            self._close()
            raise
        if self._is_network:
            self._confirm()
            self._beat = threading.Thread(target=self._keep_beating, name="kdproxy-lock", daemon=True)
            self._beat.start()

    def announce(self, address: str) -> None:
        """Write the address of the owner's API."""
        with self._writing:
            self.owner = replace(self.owner, address=address)
            self._write_if_there_is_room()

    def release(self) -> None:
        """Release the directory."""
        self._stop.set()
        if self._beat is not None:
            self._beat.join()
        if self._descriptor is None:
            return
        # The file stays: unlinking a locked file would let two processes hold two locks of one name.
        if not self._is_followed():
            # No owner, with the usual length: on a full disk the next owner still has room for its text.
            _write_whole(self._descriptor, b"{}")
        self._close()

    def _close(self) -> None:
        for descriptor in (self._descriptor, self._directory):
            if descriptor is not None:
                os.close(descriptor)
        self._descriptor = self._directory = None

    def _take_directory(self) -> None:
        """Lock the directory itself too: a cleaner of old files (systemd-tmpfiles) may delete the lock file of a
        running process, and the next one would then lock a new file of the same name."""
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._take_kernel_lock(descriptor)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                return  # a file system that does not lock directories
            raise
        self._directory = descriptor

    def _take_kernel_lock(self, descriptor: int) -> None:
        import fcntl

        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                # A read-only command takes the lock too, for some microseconds.
                if attempt == _ATTEMPTS - 1:
                    raise busy(self._path.parent, read_owner(self._path.parent)) from error
            _pause()

    def _confirm(self) -> None:
        """Two processes may have written at the same time: after a pause the last writer is the owner."""
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
                log.critical(
                    "another process has taken the data directory: this one no longer stores answers", extra={}
                )
                return
            with self._writing, contextlib.suppress(OSError):  # the next beat makes up for a missed one
                self.owner = replace(self.owner, beat_at=time.time())
                self._write()

    def _is_followed(self) -> bool:
        """Whether another process took the directory while this one was suspended and seemed dead."""
        owner = read_owner(self._path.parent)
        return owner is not None and owner.token != self.owner.token

    def _write_if_there_is_room(self) -> None:
        """Write the owner, or log that the disk is full: on a local disk the kernel's lock decides, not the text."""
        try:
            self._write()
        except OSError as error:
            if self._is_network or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            log.warning(
                "the disk is full: other kdproxy commands cannot find the address of this process",
                extra={"path": str(self._path)},
            )

    def _write(self) -> None:
        assert self._descriptor is not None
        _write_whole(self._descriptor, orjson.dumps(asdict(self.owner), option=orjson.OPT_INDENT_2))


def _write_whole(descriptor: int, text: bytes) -> None:
    os.pwrite(descriptor, text.ljust(_FILE_BYTES - 1) + b"\n", 0)
    os.fsync(descriptor)


def read_owner(directory: Path) -> Owner | None:
    """Return the owner in the lock file, or None if the file is missing or half-written."""
    try:
        members = orjson.loads((directory / NAME).read_bytes())
        return Owner(**members)
    except (OSError, orjson.JSONDecodeError, TypeError):
        return None


def refuse_owned(directory: Path, *, is_network: bool) -> None:
    """Raise DirectoryBusy if a process owns the directory. Writes nothing."""
    import fcntl

    if is_network:
        _refuse_beating(directory)
        return
    for path in (directory / NAME, directory):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy(directory, read_owner(directory)) from error
        except OSError:
            if path != directory:  # some file systems do not lock directories, as for the owner
                raise
        finally:
            os.close(descriptor)


def _refuse_beating(directory: Path) -> None:
    owner, path = read_owner(directory), directory / NAME
    if owner is None and path.exists() and path.stat().st_size:
        _pause()
        owner = read_owner(directory)
    if owner is None:
        return
    is_dead_here = owner.host == socket.gethostname() and not is_alive(owner.pid)
    if not is_dead_here and time.time() - owner.beat_at < STALE_SECONDS:
        raise busy(directory, owner)


def busy(directory: Path, owner: Owner | None) -> DirectoryBusy:
    """Return the error that names the owner of a directory."""
    if owner is None:
        who, address = "another process", None
    else:
        where = f", answering at {owner.address}" if owner.address else ""
        who, address = f"process {owner.pid} on {owner.host} ({owner.command}{where})", owner.address
    return DirectoryBusy(
        f"The data directory {directory} belongs to {who}.",
        hint="Two processes would overwrite each other's data, so nothing was opened. Use that process (kdproxy stats "
        "shows it), stop it first, or give this one another --data-dir.",
        address=address,
    )


def _pause() -> None:
    time.sleep(0.2)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # Z: it has exited, and its parent has not waited for it yet (proc_pid_stat(5)).
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (OSError, IndexError):
        return True
