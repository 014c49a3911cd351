"""metrics.jsonl on disk: appended to, repaired, read beside a writer, kept when the disk is full."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainhooks.storage import metrics
from trainhooks.storage.metrics import Follower, MetricsLog, read_metrics


def write(path: Path, *lines: dict[str, Any]) -> None:
    log = MetricsLog(path)
    for line in lines:
        log.add(line)
    log.write()
    log.sync()
    log.close()


def row(step: int, attempt: int = 1, **members: Any) -> dict[str, Any]:
    return {"attempt": attempt, "step": step, "at": 1.0, **members}


def test_seq_continues_over_attempts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, row(0), row(1))
    write(path, row(1, 2), row(2, 2))
    assert [json.loads(line)["seq"] for line in path.read_bytes().splitlines()] == [0, 1, 2, 3]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_is_cut_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, row(0, loss=1.0), row(1, loss=2.0), row(2, loss=3.0))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with caplog.at_level(logging.WARNING):
        log = MetricsLog(path)
    log.close()
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    assert log.tail == metrics.Tail(seq=1, attempt=1, steps=2, torn_bytes=log.tail.torn_bytes)
    assert f"last {log.tail.torn_bytes} bytes were cut off" in caplog.text


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"v":1,"seq":0')
    write(path, row(0))
    assert [each["seq"] for each in metrics.read_lines(path)] == [0]


def test_zeros_of_a_power_cut_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, row(0))
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 8192)
    write(path, row(1))
    assert [each["step"] for each in read_metrics(path)] == [0, 1]


def test_a_last_line_longer_than_a_block_is_found(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, row(0), row(1, ids=list(range(60_000))))
    log = MetricsLog(path)
    log.close()
    assert (log.tail.seq, log.tail.steps) == (1, 2)


def test_a_damaged_line_is_left_out_and_the_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, row(0), row(1), row(2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\xff" + lines[1] + lines[2])
    assert [each["step"] for each in read_metrics(path)] == [0, 2]


def test_a_reader_beside_a_writer_gets_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, row(0))
    follower = Follower(path)
    assert [each["step"] for each in follower.read()] == [0]
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":1,"attempt":1,"st')
        file.flush()
        assert list(follower.read()) == []
        file.write(b'ep":1}\n')
    assert [each["step"] for each in follower.read()] == [1]
    assert list(follower.read()) == []


@pytest.mark.parametrize("given", ["", "progress", "progress/metrics.jsonl"])
def test_any_of_three_paths_will_do(tmp_path: Path, given: str) -> None:
    (tmp_path / "progress").mkdir()
    write(tmp_path / "progress" / "metrics.jsonl", row(0, loss=float("nan")))
    [found] = read_metrics(tmp_path / given)
    assert found["loss"] != found["loss"]


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        read_metrics(tmp_path / "nowhere")


# The kernel's limit on a file's size is a disk that fills in the middle of a line, and gets room again.
FULL = """
import resource, signal, sys
from pathlib import Path
from trainhooks.storage.metrics import MetricsLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = MetricsLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
failures = 0
for step in range(100):
    log.add({"attempt": 1, "step": step, "at": 1.0, "loss": 0.5})
    try:
        log.write()
    except OSError:
        failures += 1
assert failures > 50 and log.pending_bytes > 0, (failures, log.pending_bytes)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.write()
assert log.pending_bytes == 0
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    subprocess.run([sys.executable, "-c", FULL, str(path)], check=True)
    assert [each["step"] for each in read_metrics(path)] == list(range(100))
    assert [json.loads(line)["seq"] for line in path.read_bytes().splitlines()] == list(range(100))


def test_a_killed_writer_on_a_full_disk_leaves_a_file_that_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    script = FULL[: FULL.index("assert failures")] + "import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    assert os.path.getsize(path) == 1000
    before = [each["step"] for each in read_metrics(path)]
    write(path, row(before[-1] + 1, 2))
    assert [each["step"] for each in read_metrics(path)] == [*before, before[-1] + 1]
