"""What only a process of its own shows: SIGKILL, no torch, the end without close, a full disk, forked children."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from trainhooks import read_metrics
from trainhooks.storage.metrics import Follower, read_lines
from trainhooks.storage.responses import ResponseLog

# Prints the wall clock of each row once it is recorded.
ENDLESS = """
import sys, time
from trainhooks import ProgressTracker
tracker = ProgressTracker({}, sys.argv[1], 10**9)
tracker.resume_at(int(sys.argv[2]))
step = int(sys.argv[2])
while True:
    tracker.update_metrics(step, loss=0.5, recorded_at=time.time())
    sys.stdout.write(f"{step} {time.time()}\\n")
    sys.stdout.flush()
    step += 1
    time.sleep(0.001)
"""


def kill_after(out: Path, start: int, steps: int) -> tuple[dict[int, float], float]:
    """Run until so many steps are recorded, then SIGKILL; returns when each was recorded, and the kill."""
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(out), str(start)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen: dict[int, float] = {}
        for line in process.stdout:
            step, at = line.split()
            seen[int(step)] = float(at)
            if len(seen) == steps:
                process.send_signal(signal.SIGKILL)
                killed_at = time.time()
                break
        rest = process.stdout.read().splitlines()
        seen |= {int(step): float(at) for step, at in (line.split() for line in rest if line.count(" ") == 1)}
    return seen, killed_at


def test_sigkill_loses_at_most_a_second_and_three_rewinds_leave_one_row_a_step(tmp_path: Path) -> None:
    start = 0
    for _ in range(4):
        seen, killed_at = kill_after(tmp_path, start, 1_200)
        rows = read_metrics(tmp_path)
        assert [row["step"] for row in rows] == list(range(len(rows))), "exactly one row a step"
        lost = [step for step, at in seen.items() if step >= len(rows) and at < killed_at - 1.0]
        assert lost == [], "a row older than a second is with the operating system"
        assert len(rows) > start, "the test saw something written"
        start = len(rows) - 100
    session = json.loads((tmp_path / "progress" / "session.json").read_bytes())
    assert [attempt.get("end") for attempt in session["attempts"]] == ["cut off", "cut off", "cut off", None]
    assert session["attempts"][0]["seconds"]["active"] > 0.5


def test_torch_is_never_loaded_for_floats(tmp_path: Path) -> None:
    script = """
import sys
from trainhooks import *
with training_progress_context({}, sys.argv[1], 10) as progress:
    progress.update_metrics(0, loss=1.0)
    progress.record_api_response("a", "b", model="m")
    progress.record_checkpoint(sys.argv[1], tags=["x"])
    progress.recovery_checkpoint("x")
    progress.summary()
    progress.flush()
assert not {"torch", "numpy", "safetensors", "aiohttp"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_the_end_of_the_process_closes(tmp_path: Path) -> None:
    script = """
import sys
from trainhooks import setup_progress_tracking
progress = setup_progress_tracking({}, sys.argv[1], 10)
for step in range(5):
    progress.update_metrics(step, loss=1.0)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert len(read_metrics(tmp_path)) == 5
    assert json.loads((tmp_path / "progress" / "session.json").read_bytes())["attempts"][0]["end"] == "closed"


def test_a_forked_child_that_ends_leaves_the_parents_session_alone(tmp_path: Path) -> None:
    script = """
import os, sys
from trainhooks import setup_progress_tracking
progress = setup_progress_tracking({}, sys.argv[1], 10)
progress.update_metrics(0, loss=1.0)
if os.fork() == 0:
    progress.update_metrics(1, loss=9.0)
    progress.flush()  # what the parent has not written yet is not the child's to write
    sys.exit(0)  # runs the child's exit handlers
assert os.wait()[1] == 0
progress.update_metrics(1, loss=2.0)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert [line["loss"] for line in read_lines(tmp_path) if "kind" not in line] == [1.0, 2.0]


def test_a_full_disk_stops_no_training_and_is_reported(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from trainhooks import setup_progress_tracking
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
progress = setup_progress_tracking({}, sys.argv[1], 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
for step in range(100):
    progress.update_metrics(step, loss=1.0)
progress.flush()
print(progress.summary().problems)
for step in range(100, 200):
    progress.update_metrics(step, loss=1.0)
assert progress.record_api_response("p" * 5000, "a", model="m") is None
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert progress.record_api_response("p", "a", model="m") == 0
assert progress.find_api_response("p", model="m") == "a"
progress.flush()
print(progress.summary().problems)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    full, fine = done.stdout.splitlines()
    assert "rows are kept and tried again" in full
    assert fine == "()"
    assert "Training continues" in done.stderr
    assert "nothing was lost" in done.stderr
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(200))
    answers = ResponseLog(tmp_path / "progress")
    assert answers.find("p", model="m", system=None, ordinal=0) == "a"
    answers.close()


def test_rows_and_snapshot_come_within_a_second_of_a_live_run(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path), "0"], stdout=subprocess.DEVNULL) as process:
        path = tmp_path / "progress" / "metrics.jsonl"
        deadline = time.monotonic() + 30
        while not path.exists() or not any("kind" not in line for line in Follower(path).read()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        follower, waits = Follower(path), []
        list(follower.read())
        while len(waits) < 500:
            now = time.time()
            waits += [now - line["recorded_at"] for line in follower.read()]
            time.sleep(0.01)
        snapshot = json.loads((tmp_path / "progress" / "progress.json").read_bytes())
        assert time.time() - snapshot["at"] < 3.0
        os.kill(process.pid, signal.SIGKILL)
    assert sorted(waits)[len(waits) // 2] < 1.0
