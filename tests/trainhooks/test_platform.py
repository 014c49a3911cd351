"""What the host lacks: a process in which POSIX's own modules and calls are not there, as on Windows."""

import subprocess
import sys
from pathlib import Path

LESS = """
import os, signal, sys
sys.modules["fcntl"] = None
for name in ("register_at_fork", "fork", "pread", "O_CLOEXEC", "O_DIRECTORY"):
    delattr(os, name)
for name in ("SIGUSR1", "pthread_sigmask"):
    delattr(signal, name)
"""

RECORDS = f"""
{LESS}
import trainhooks
from trainhooks.storage import heartbeat
heartbeat.BEAT_SECONDS = 0.1
for _ in range(2):
    with trainhooks.training_progress_context({{}}, sys.argv[1], 4, database=False) as progress:
        first = progress.current_step
        for step in range(first, first + 2):
            progress.update_metrics(step=step, loss=1.0)
        progress.record_api_response("question", "answer", model="m")
        assert progress.find_api_response("question", model="m") == "answer"
print(len(trainhooks.read_metrics(sys.argv[1])))
"""


def test_import_and_records_need_nothing_of_posix(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RECORDS, str(tmp_path / "run")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in ("2", "4")
    assert "without locks (Windows)" in done.stderr
