"""A training that was killed ends as one that was not, bit for bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).with_name("job.py")


def run(out: Path, *, kill_at: str, workers: int) -> int:
    return subprocess.run([sys.executable, str(JOB), str(out), kill_at, str(workers)], check=False).returncode


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_twice_equals_uninterrupted(tmp_path: Path, workers: int) -> None:
    assert run(tmp_path / "whole", kill_at="never", workers=workers) == 0
    for kill_at in ("7", "22"):
        assert run(tmp_path / "killed", kill_at=kill_at, workers=workers) == -9
    assert run(tmp_path / "killed", kill_at="never", workers=workers) == 0
    whole, killed = (json.loads((tmp_path / name / "final.json").read_bytes()) for name in ("whole", "killed"))
    assert killed == whole
