"""Mistakes with a run's directory: each ends in one sentence with a way out, and changes nothing that was there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainhooks import read_metrics, training_progress_context
from trainhooks.errors import TrainhooksError


def record(out: Path) -> None:
    with training_progress_context({}, out, 3) as progress:
        progress.update_metrics(0, loss=1.0)


@pytest.mark.parametrize("below", ["", "run"])
def test_an_output_directory_that_is_a_file(tmp_path: Path, below: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(TrainhooksError) as caught:
        record(file / below)
    assert f"{file} is a file." in str(caught.value)
    assert "move the file away" in str(caught.value)
    assert file.read_text() == "mine"


def test_a_run_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    record(tmp_path / "run")
    session = tmp_path / "run" / "progress" / "session.json"
    text = json.dumps({**json.loads(session.read_text()), "v": 99})
    session.write_text(text)
    with pytest.raises(TrainhooksError, match=r"has version 99; this release reads version 1\. Hint: .* newer"):
        record(tmp_path / "run")
    assert session.read_text() == text


def test_two_runs_in_one_directory(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 3) as progress:
        progress.update_metrics(0, loss=1.0)
        with pytest.raises(TrainhooksError, match="is being written by this process itself"):
            record(tmp_path)
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0]


FULL = """
import resource, signal, sys
from pathlib import Path
from trainhooks import training_progress_context
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with training_progress_context({}, Path(sys.argv[1]), 2_000, database=False) as progress:
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, resource.RLIM_INFINITY))
    for step in range(2_000):
        progress.update_metrics(step, loss=1.0)
print("trained to the end")
"""


def test_a_disk_that_takes_no_more_does_not_end_the_training(tmp_path: Path) -> None:
    """What is lost is counted; what was written stays readable."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "run")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "trained to the end\n"), done.stderr
    assert "progress cannot be written (File too large); rows are kept and tried again" in done.stderr
    assert "bytes of metrics are lost: the disk took no more" in done.stderr
    assert "Traceback" not in done.stderr
    rows = read_metrics(tmp_path / "run")
    assert 0 < len(rows) < 2_000
    assert [row["step"] for row in rows] == list(range(len(rows)))
