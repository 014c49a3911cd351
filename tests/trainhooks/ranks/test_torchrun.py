"""Under a real torchrun: a rank is killed, torchrun starts all again, and they go on to the bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainhooks.ranks.conftest import Start, free_port
from trainhooks import read_metrics
from trainhooks.storage import session

pytestmark = pytest.mark.faults  # six new interpreters with torch; the same without torchrun is in test_failing_save.py
JOB = Path(__file__).with_name("job.py")


def test_torchrun_starts_all_again_and_they_continue_exactly(start: Start, tmp_path: Path) -> None:
    whole, out, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "torchrun.log"
    team = start(JOB, whole)
    assert team.codes() == [0, 0], team.said()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    command += ["--monitor-interval=0.1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    command += ["--local-addr=127.0.0.1", str(JOB), str(out), "kill", "1", "8"]
    with log.open("wb") as file:
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        done = subprocess.run(command, stdout=file, stderr=file, env=environ, timeout=120, check=False)
    said = log.read_text()
    assert done.returncode == 0, said
    assert f"exitcode: {-signal.SIGKILL}" in said, said
    assert [said.count("from 0\n"), said.count("from 4\n")] == [2, 2], said
    for rank in range(2):
        assert (out / f"final-{rank}").read_text() == (whole / f"final-{rank}").read_text()
    rows, uninterrupted = read_metrics(out), read_metrics(whole)
    assert [(row["step"], row["loss"]) for row in rows] == [(row["step"], row["loss"]) for row in uninterrupted]
    members = session.read(out / "progress" / session.NAME)
    assert members is not None
    assert [each["end"] for each in members["attempts"]][-1] == "closed"
    assert len(members["attempts"]) == 2, "rank 0 alone writes"
