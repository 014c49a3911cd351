"""What the host lacks: a process in which POSIX's own modules and calls are not there, as on Windows."""

import subprocess
import sys
from pathlib import Path

LESS = """
import os, signal, sys
sys.modules["fcntl"] = None
for name in ("register_at_fork", "fork", "pread", "O_CLOEXEC", "O_DIRECTORY"):
    delattr(os, name)
for name in ("SIGUSR1", "SIGKILL", "pthread_sigmask"):
    delattr(signal, name)
import select, socket
everywhere = select.select
def select_sockets(readers, writers, others, timeout=None):
    if not all(isinstance(each, socket.socket) for each in (*readers, *writers)):
        raise OSError(10038, "An operation was attempted on something that is not a socket")
    return everywhere(readers, writers, others, timeout)
select.select = select_sockets
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


TRAINING = f"""
import torch, torch._dynamo  # which take the host as they were built for it
import torch.utils.data
{LESS}
import trainhooks
from trainhooks.storage import heartbeat
heartbeat.BEAT_SECONDS = 0.1
seen = []
for until in (3, 6):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = {{"model": model, "optimizer": optimizer}}
    with trainhooks.training_progress_context({{}}, sys.argv[1], 6, state=state, database=False) as progress:
        progress.loader([torch.tensor([float(each)]) for each in range(12)], batch_size=2)
        for step, batch in progress.steps():
            model(batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            seen += batch.flatten().tolist()
            progress.update_metrics(step=step, loss=1.0)
            if step + 1 == until:
                progress.stop()
assert sorted(seen) == list(range(12)), seen
assert trainhooks.peek(sys.argv[1]).step == 6
from trainhooks.recovery import recover
assert recover(sys.argv[1]).results["steps"] == 6
from trainhooks.cli.main import main
sys.argv = ["trainhooks", "verify", sys.argv[1]]
main()
"""


def test_a_training_is_saved_and_resumed_without_posix(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path / "run # 1")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "OSError" not in done.stderr
