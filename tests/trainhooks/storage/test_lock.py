"""One writer per output directory: real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainhooks.errors import SessionBusy
from trainhooks.storage.lock import DirectoryLock, holder

HOLD = """
import os, sys, time
from pathlib import Path
from trainhooks.storage.lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
if sys.argv[2] == "with a worker":
    told, tell = os.pipe()
    if os.fork() == 0:
        os.write(tell, b"forked")  # a SIGKILL of the parent that comes before would meet half a fork
        sys.stdin.read()
        os._exit(0)
    os.read(told, 6)
print("held", flush=True)
sys.stdin.read()
"""


def hold(directory: Path, how: str = "alone") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_at_once_and_learns_who_holds_it(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        begun = time.monotonic()
        with pytest.raises(SessionBusy, match=rf"process {process.pid} on "):
            DirectoryLock(tmp_path)
        assert time.monotonic() - begun < 1.0
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == process.pid
        process.communicate("")
    assert holder(tmp_path) is None
    DirectoryLock(tmp_path).release()


def test_a_second_session_of_one_process_is_refused(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(SessionBusy, match="by this process itself") as refused:
        DirectoryLock(tmp_path)
    assert "close()" in refused.value.hint
    lock.release()
    DirectoryLock(tmp_path).release()


def test_a_killed_holder_lets_go_though_its_workers_live(tmp_path: Path) -> None:
    """Data-loading workers are forked with a copy of the lock's descriptor, and outlive a SIGKILL by seconds."""
    with hold(tmp_path, "with a worker") as process:
        process.send_signal(signal.SIGKILL)
        os.waitpid(process.pid, 0)
        process.returncode = -9
        lock = DirectoryLock(tmp_path)  # the worker still waits on the pipe's other end
        lock.release()
        assert process.stdin is not None
        process.stdin.close()


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    lock = DirectoryLock(tmp_path)
    assert holder(tmp_path) is not None
    assert holder(tmp_path) is not None
    lock.release()


def test_no_half_written_holder_confuses(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    (tmp_path / "lock").write_bytes(b'{"pid": 1')
    with pytest.raises(SessionBusy, match="another process"):
        DirectoryLock(tmp_path)
    lock.release()
