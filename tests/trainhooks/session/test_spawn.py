"""Loader workers that are spawned, as on macOS and Windows: a killed training ends as one that was not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

JOB = Path(__file__).with_name("job_spawn.py")


def train(out: Path, kill_at: int = -1) -> int:
    done = subprocess.run(
        [sys.executable, str(JOB), str(out), str(kill_at)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def final(out: Path) -> Any:
    return json.loads((out / "final.json").read_bytes())


def test_a_killed_training_with_spawned_workers_ends_as_one_that_was_not(tmp_path: Path) -> None:
    assert train(tmp_path / "whole") == 0
    assert train(tmp_path / "killed", kill_at=4) == -9
    assert train(tmp_path / "killed") == 0
    assert final(tmp_path / "killed") == final(tmp_path / "whole")
