"""One writer per output directory where the file system has no locks: real processes, flock that gives each errno."""

import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.trainhooks.storage.test_lock import hold as hold_by_flock
from trainhooks.errors import SessionBusy
from trainhooks.storage import heartbeat
from trainhooks.storage.lock import DirectoryLock, holder

HOLD = """
import errno, fcntl, os, sys
from pathlib import Path
def flock(descriptor, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
from trainhooks.storage import heartbeat
heartbeat.BEAT_SECONDS = 0.2
from trainhooks.storage.lock import DirectoryLock
from trainhooks.errors import SessionBusy
try:
    lock = DirectoryLock(Path(sys.argv[1]))
except SessionBusy as error:
    print("busy", flush=True)
    sys.exit()
if sys.argv[2] == "with a worker" and os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
lock.release()
"""

NOT_OFFERED = [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EBADF]


def begin(directory: Path, how: str = "alone") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, errno.ENOLCK)


def give(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.2)


@pytest.mark.parametrize("number", NOT_OFFERED, ids=errno.errorcode.__getitem__)
def test_the_directory_is_used_and_it_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    give(monkeypatch, number)
    lock = DirectoryLock(tmp_path)
    (told,) = caplog.records
    assert "without locks" in told.message
    assert os.strerror(number) in told.message
    assert holder(tmp_path) is not None
    lock.release()
    assert holder(tmp_path) is None


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_another_one_has_is_no_missing_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    give(monkeypatch, number)
    with pytest.raises(SessionBusy):
        DirectoryLock(tmp_path)


def test_a_fault_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        DirectoryLock(tmp_path)


@pytest.mark.usefixtures("no_flock")
def test_a_second_process_is_refused_and_learns_who_holds_it(tmp_path: Path) -> None:
    with begin(tmp_path) as process:
        assert said(process) == "held\n"
        with pytest.raises(SessionBusy, match=rf"process {process.pid} on "):
            DirectoryLock(tmp_path)
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == process.pid
        process.communicate("")
    assert holder(tmp_path) is None
    DirectoryLock(tmp_path).release()


def test_a_process_that_has_locks_sees_one_that_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.2)
    with begin(tmp_path) as process:
        assert said(process) == "held\n"
        assert holder(tmp_path) is not None
        with pytest.raises(SessionBusy, match=rf"process {process.pid} on "):
            DirectoryLock(tmp_path)
        process.communicate("")
    hold_by_flock(tmp_path).communicate("")


@pytest.mark.usefixtures("no_flock")
def test_a_killed_holder_lets_go_though_its_worker_lives(tmp_path: Path) -> None:
    with begin(tmp_path, "with a worker") as process:
        assert said(process) == "held\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        DirectoryLock(tmp_path).release()
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("last", ["nobody", "a killed one"])
def test_of_several_that_begin_at_once_one_holds(tmp_path: Path, last: str) -> None:
    if last == "a killed one":
        with begin(tmp_path) as process:
            assert said(process) == "held\n"
            process.kill()
    processes = [begin(tmp_path) for _ in range(4)]
    words = [said(each) for each in processes]
    for each in processes:
        each.communicate("")
    assert words.count("held\n") == 1
    assert words.count("busy\n") == 3


@pytest.mark.usefixtures("no_flock")
def test_a_second_session_of_one_process_is_refused_at_once(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(SessionBusy, match="by this process itself"):
        DirectoryLock(tmp_path)
    lock.release()


@pytest.mark.usefixtures("no_flock")
def test_a_holder_that_was_overtaken_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "two may write" in record.getMessage():
                told.set()

    listener = Listener()
    logging.getLogger("trainhooks.storage").addHandler(listener)
    lock = DirectoryLock(tmp_path)
    other = json.dumps({"pid": 1, "host": "b", "since": 0.0, "token": "other", "beat": 1})
    for _ in range(400):  # as its heart beats: one may fall into a beat of ours
        (tmp_path / "lock").write_text(other)
        if told.wait(0.05):
            break
    assert told.is_set()
    lock.release()
    logging.getLogger("trainhooks.storage").removeHandler(listener)


@pytest.mark.usefixtures("no_flock")
def test_a_disk_that_refuses_a_beat_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = threading.Event()
    lock = DirectoryLock(tmp_path)
    beat = heartbeat.Heartbeat.beat

    def refuses_once(self: heartbeat.Heartbeat) -> None:
        if not refused.is_set():
            refused.set()
            raise OSError(errno.ENOSPC, "full")
        beat(self)

    monkeypatch.setattr(heartbeat.Heartbeat, "beat", refuses_once)
    assert refused.wait(20)
    assert holder(tmp_path) is not None
    lock.release()
