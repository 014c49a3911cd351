"""Records across stops, kills and resumes, as public reports describe them: one table, nothing overwritten."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainhooks import read_metrics, training_progress_context

TOTAL = 12


def record(out: Path, first: int, last: int, **more: Any) -> None:
    """Record the loss of some steps of one run, in a start of its own."""
    with training_progress_context({"lr": 0.1}, out, TOTAL, database=False) as progress:
        for step in range(first, last):
            progress.update_metrics(step, loss=1 / (step + 1), **more)


def exported(out: Path) -> list[dict[str, str]]:
    """Return the rows of the CSV that the command line writes."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("trainhooks")), "export", str(out), "--out", str(out / "workspace")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    (path,) = (out / "workspace" / "results").glob("*_metrics.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_rows_before_a_resume_are_still_there_after_it(tmp_path: Path) -> None:
    """rf-detr#1321: the logger of a resumed training deleted the table of all epochs before it."""
    record(tmp_path, 0, 5)
    record(tmp_path, 5, 9)
    record(tmp_path, 9, TOTAL)
    rows = exported(tmp_path)
    assert [int(row["step"]) for row in rows] == [*range(TOTAL)]
    assert [float(row["train/loss"]) for row in rows] == pytest.approx([1 / (step + 1) for step in range(TOTAL)])


def test_a_metric_that_is_new_after_a_resume_is_a_column_and_no_second_header(tmp_path: Path) -> None:
    """DeepLabCut#3183, keras#4426: a second header in the middle, and columns that did not fit it."""
    record(tmp_path, 0, 4)
    record(tmp_path, 4, 8, val_rmse=2.5)
    rows = exported(tmp_path)
    assert [row["step"] for row in rows] == [str(step) for step in range(8)]
    assert [row["val_rmse"] for row in rows] == [""] * 4 + ["2.5"] * 4


def test_a_metric_that_was_not_given_is_absent_and_one_that_is_nan_is_nan(tmp_path: Path) -> None:
    """keras#21025: `val_*` was written as nan though there was no validation."""
    with training_progress_context({}, tmp_path, 3, database=False) as progress:
        progress.update_metrics(0, loss=1.0)
        progress.update_metrics(1, loss=float("nan"))
        progress.update_metrics(2, loss=0.5, val_loss=float("inf"))
    rows = read_metrics(tmp_path)
    assert ["val_loss" in row for row in rows] == [False, False, True]
    assert math.isnan(rows[1]["loss"])
    assert rows[2]["val_loss"] == math.inf
    json.loads(json.dumps(json.loads((tmp_path / "progress" / "progress.json").read_bytes()), allow_nan=False))


_KILLED = """
import sys
from trainhooks import training_progress_context
with training_progress_context({"lr": 0.1}, sys.argv[1], 12, database=False) as progress:
    for step in range(7):
        progress.update_metrics(step, loss=1 / (step + 1))
    progress.flush()
    print("written", flush=True)
    sys.stdin.read()
"""


def test_half_a_row_that_a_kill_left_costs_that_row_alone(tmp_path: Path) -> None:
    """mistral#54 and others: a log that is cut by a kill is overwritten, or cannot be read any more."""
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "written\n"
        job.kill()
    metrics = tmp_path / "progress" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes().rstrip(b"\n")[:-9])  # as a power cut leaves the last row
    before = read_metrics(tmp_path)
    assert [row["step"] for row in before] == [*range(6)]
    record(tmp_path, 6, TOTAL)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [*range(TOTAL)]
    assert rows[:6] == before
