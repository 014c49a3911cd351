"""kill -9 while records are kept: whatever was acknowledged is there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.kdproxy.storage.killing", str(tmp_path), str(KILLS)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["kills"] == KILLS
    assert report["told"] > KILLS
    assert (report["lost"], report["damage"], report["rebuilt"]) == (0, 0, 0)
    # A start reads the tail alone: what came after the last index write, not all that ever was.
    assert report["read_again"] < report["lines"] / 2
    assert report["segments"] > 2
    assert report["counted"] == report["lines"] - KILLS >= report["told"], "each life has a first line of its own"
