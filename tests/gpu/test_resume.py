"""On a GPU, under deterministic flags, a training that was killed ends as one that was not, bit for bit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

JOB = Path(__file__).with_name("job.py")


def run(out: Path, *, kill_at: str = "never", how: str) -> int:
    return subprocess.run([sys.executable, str(JOB), str(out), kill_at, how], check=False, timeout=300).returncode


def final(out: Path) -> dict[str, Any]:
    return json.loads((out / "final.json").read_bytes())


def check(root: Path, how: str) -> None:
    assert run(root / "whole", how=how) == 0
    for kill_at in ("11", "24"):
        assert run(root / "killed", kill_at=kill_at, how=how) == -9
    assert run(root / "killed", how=how) == 0
    whole, killed = final(root / "whole"), final(root / "killed")
    assert killed["began_at"] > 0, "it did not resume"
    assert killed["losses"] == whole["losses"][killed["began_at"] :]
    for member in ("model", "optimizer", "scaler", "lr", "drawn"):
        assert killed[member] == whole[member], member


def test_two_uninterrupted_runs_are_equal(tmp_path: Path) -> None:
    """Else the flags do not do what the other tests rely on."""
    for name in ("a", "b"):
        assert run(tmp_path / name, how="sync") == 0
    assert final(tmp_path / "a") == final(tmp_path / "b")


def test_killed_twice_equals_uninterrupted(tmp_path: Path) -> None:
    check(tmp_path, "sync")


def test_killed_twice_with_saves_beside_the_training_equals_uninterrupted(tmp_path: Path) -> None:
    check(tmp_path, "async")
