"""FSDP2 over two GPUs (NCCL): exact after kills, and a snapshot on the device holds one moment.

Run with `make gpu ARGS="-k sharded"` on a machine that has two.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

JOB = Path(__file__).with_name("job_sharded.py")
DEVICES = 2
"""Left out where there are fewer."""


def run(out: Path, what: str) -> list[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environ = {**os.environ, "WORLD_SIZE": str(DEVICES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(JOB), str(out), what], env={**environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(DEVICES)
    ]
    try:
        return [rank.wait(timeout=200) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


def final(out: Path) -> list[dict[str, Any]]:
    return [json.loads((out / f"final-{rank}.json").read_bytes()) for rank in range(DEVICES)]


def test_sharded_killed_twice_equals_uninterrupted(tmp_path: Path) -> None:
    assert run(tmp_path / "whole", "never") == [0, 0]
    for kill_at in ("8", "16"):
        assert run(tmp_path / "killed", kill_at) == [-9, -9]
    assert run(tmp_path / "killed", "never") == [0, 0]
    for whole, killed in zip(final(tmp_path / "whole"), final(tmp_path / "killed"), strict=True):
        assert killed["began_at"] in (10, 15), "it did not resume from where it could"
        assert killed["losses"] == whole["losses"][killed["began_at"] :]
        for member in ("model", "optimizer", "drawn"):
            assert killed[member] == whole[member], member


def test_sharded_updates_after_a_snapshot_do_not_reach_it(tmp_path: Path) -> None:
    assert run(tmp_path / "run", "leak") == [0, 0]
    for rank in final(tmp_path / "run"):
        assert rank["held"] == [[1.0], [2.0], [3.0], [4.0]]
        print("\nblocked for", rank["blocked_seconds"], "s")
