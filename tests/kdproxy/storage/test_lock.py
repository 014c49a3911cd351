"""One process owns a data directory, and says so."""

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from kdproxy.errors import DirectoryBusy
from kdproxy.storage import lock as under_test
from kdproxy.storage.lock import NAME, STALE_SECONDS, DirectoryLock, read_owner, refuse_owned

Take = Callable[..., DirectoryLock]

HOLDER = """
import sys
from pathlib import Path
from kdproxy.storage.lock import DirectoryLock

lock = DirectoryLock(Path(sys.argv[1]), is_network=sys.argv[2] == "network", command="serve")
lock.acquire()
lock.announce("http://127.0.0.1:1")
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Take]:
    taken: list[DirectoryLock] = []

    def take_lock(*, is_network: bool = False) -> DirectoryLock:
        lock = DirectoryLock(tmp_path, is_network=is_network, command="test")
        lock.acquire()
        taken.append(lock)
        return lock

    yield take_lock
    for lock in taken:
        lock.release()


@pytest.fixture(params=["local", "network"])
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock, on each kind of file system."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    process.is_network = request.param == "network"  # type: ignore[attr-defined]
    yield process
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


def test_a_second_process_is_refused_at_once_and_learns_who_holds_it(
    holder: "subprocess.Popen[str]", take: Take
) -> None:
    started = time.monotonic()
    with pytest.raises(DirectoryBusy) as caught:
        take(is_network=holder.is_network)  # type: ignore[attr-defined]
    assert time.monotonic() - started < 1
    assert f"process {holder.pid} on {socket.gethostname()} (serve" in caught.value.message
    assert caught.value.address == "http://127.0.0.1:1"
    assert "--data-dir" in caught.value.hint


def test_a_killed_owner_is_followed_at_once(holder: "subprocess.Popen[str]", take: Take) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    started = time.monotonic()
    lock = take(is_network=holder.is_network)  # type: ignore[attr-defined]
    assert time.monotonic() - started < 1
    assert lock.owner.pid == os.getpid()


def test_a_refused_process_changes_nothing(holder: "subprocess.Popen[str]", take: Take, tmp_path: Path) -> None:
    before = (tmp_path / NAME).read_bytes()
    for _ in range(3):
        with pytest.raises(DirectoryBusy):
            take(is_network=holder.is_network)  # type: ignore[attr-defined]
    assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize("is_network", [False, True])
def test_a_released_lock_is_free(take: Take, tmp_path: Path, is_network: bool) -> None:
    for _ in range(3):
        lock = take(is_network=is_network)
        assert read_owner(tmp_path) == lock.owner
        lock.release()
        lock.release()
        assert read_owner(tmp_path) is None
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_the_owner_records_its_address(take: Take, tmp_path: Path) -> None:
    lock = take()
    lock.announce("http://127.0.0.1:8400")
    owner = read_owner(tmp_path)
    assert owner is not None
    assert (owner.address, owner.pid, owner.command) == ("http://127.0.0.1:8400", os.getpid(), "test")
    assert len(owner.token) >= 32


def plant(directory: Path, **members: object) -> None:
    owner = asdict(DirectoryLock(directory, is_network=True, command="other").owner)
    (directory / NAME).write_bytes(orjson.dumps({**owner, "host": "elsewhere", **members}))


def test_a_beating_owner_on_another_host_is_respected(take: Take, tmp_path: Path) -> None:
    plant(tmp_path, beat_at=time.time() - STALE_SECONDS + 5)
    with pytest.raises(DirectoryBusy, match="elsewhere"):
        take(is_network=True)


def test_a_stale_owner_on_another_host_is_followed(take: Take, tmp_path: Path) -> None:
    plant(tmp_path, beat_at=time.time() - STALE_SECONDS - 1)
    lock = take(is_network=True)
    assert read_owner(tmp_path) == lock.owner


def test_a_dead_owner_on_this_host_is_followed_at_once(take: Take, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(10)
    plant(tmp_path, host=socket.gethostname(), pid=dead.pid, beat_at=time.time())
    assert take(is_network=True).owner.pid == os.getpid()


def test_a_live_owner_on_this_host_is_respected(take: Take, tmp_path: Path) -> None:
    plant(tmp_path, host=socket.gethostname(), pid=os.getppid(), beat_at=time.time())
    with pytest.raises(DirectoryBusy):
        take(is_network=True)


@pytest.mark.parametrize("text", [b"", b"half a li", b"[]", b'{"pid":1}'])
def test_a_file_that_names_nobody_is_free(take: Take, tmp_path: Path, text: bytes) -> None:
    (tmp_path / NAME).write_bytes(text)
    assert read_owner(tmp_path) is None
    take(is_network=True).release()
    take()


def test_a_half_written_beat_is_looked_at_again(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader on a network file system can meet the file between two writes."""
    plant(tmp_path, beat_at=time.time())
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[:-10])
    monkeypatch.setattr(under_test, "_pause", lambda: (tmp_path / NAME).write_bytes(whole))
    with pytest.raises(DirectoryBusy, match="elsewhere"):
        take(is_network=True)


def test_of_two_at_one_moment_the_last_writer_wins(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_pause", lambda: plant(tmp_path, beat_at=time.time()))
    with pytest.raises(DirectoryBusy, match="elsewhere"):
        take(is_network=True)
    owner = read_owner(tmp_path)
    assert owner is not None
    assert owner.host == "elsewhere"


def test_the_heartbeat_keeps_the_address(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "BEAT_SECONDS", 0.01)
    lock = take(is_network=True)
    lock.announce("http://127.0.0.1:8400")
    first = read_owner(tmp_path)
    assert first is not None
    assert eventually(lambda: (owner := read_owner(tmp_path)) is not None and owner.beat_at > first.beat_at)
    owner = read_owner(tmp_path)
    assert owner is not None
    assert owner.address == "http://127.0.0.1:8400"
    lock.release()
    assert read_owner(tmp_path) is None


def test_every_state_of_the_file_names_the_owner(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat never leaves the file unreadable, not even for a moment: that would look like a free directory."""
    monkeypatch.setattr(under_test, "BEAT_SECONDS", 0.0001)
    lock = take(is_network=True)
    is_done = threading.Event()
    unread: list[bytes] = []

    def read() -> None:
        while not is_done.is_set():
            text = (tmp_path / NAME).read_bytes()
            try:
                orjson.loads(text)
            except orjson.JSONDecodeError:
                unread.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        lock.announce("http://127.0.0.1:" + "8" * (number % 5))
    is_done.set()
    reader.join()
    assert unread == []


def test_an_owner_that_was_followed_does_not_beat_over_its_follower(
    take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "BEAT_SECONDS", 0.01)
    lock = take(is_network=True)
    thread = lock._beat
    assert thread is not None

    def is_over() -> bool:
        plant(tmp_path, beat_at=time.time())  # again and again, as its heart beats: one may fall into a beat of ours
        thread.join(0.05)
        return not thread.is_alive()

    assert eventually(is_over, seconds=20)
    lock.release()
    owner = read_owner(tmp_path)
    assert owner is not None
    assert owner.host == "elsewhere"


def eventually(condition: Callable[[], bool], *, seconds: float = 5) -> bool:
    """Poll until a condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EISDIR])
def test_a_file_system_that_locks_no_directories_has_the_lock_of_the_file_alone(
    take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    lock_file = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        lock_file(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    refuse_owned(tmp_path, is_network=False)
    take()
    with pytest.raises(DirectoryBusy):
        refuse_owned(tmp_path, is_network=False)
