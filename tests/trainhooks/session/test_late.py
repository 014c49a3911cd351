"""What is recorded after a session was closed is written or refused, never lost in silence."""

import threading
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from trainhooks import ProgressTracker, read_metrics, training_progress_context
from trainhooks.errors import ConfigInvalid, DirectoryUnusable, SessionBusy
from trainhooks.storage import inspection, metrics


def train(out: Path, until: int = 3, **options: Any) -> Any:
    with training_progress_context({}, out, until, database=False, **options) as progress:
        for step in range(until):
            progress.update_metrics(step, loss=1.0)
    return progress


def test_a_row_of_the_last_step_is_completed(tmp_path: Path) -> None:
    progress = train(tmp_path)
    progress.update_metrics(2, accuracy=0.75)
    progress.update_metrics(3, loss=0.5)
    assert [(row["step"], row.get("accuracy")) for row in read_metrics(tmp_path)] == [
        (0, None), (1, None), (2, 0.75), (3, None)
    ]  # fmt: skip
    assert read_metrics(tmp_path)[2]["loss"] == 1.0
    assert progress.summary().loss == 0.5
    progress.close()


def test_a_file_and_an_answer_are_kept(tmp_path: Path) -> None:
    progress = train(tmp_path)
    (tmp_path / "final.pt").write_bytes(b"weights")
    progress.record_checkpoint(tmp_path / "final.pt", step=3, tags=("final",))
    assert progress.recovery_checkpoint("final") == tmp_path / "final.pt"
    assert progress.record_api_response("why?", "because", model="m") == 0
    assert progress.find_api_response("why?", model="m") == "because"
    progress.record_inputs(lengths=[1, 2, 3])
    progress.record_connection_failure("gone")
    kinds = [line.get("kind") for line in metrics.read_lines(tmp_path)]
    assert {"checkpoint", "inputs", "connection_failure"} <= set(kinds)
    assert not [problem for _, problems in inspection.verify(tmp_path) for problem in problems]


def test_what_no_attempt_would_count_is_refused(tmp_path: Path) -> None:
    first = train(tmp_path)
    train(tmp_path)
    with pytest.raises(SessionBusy, match="a later attempt has recorded"):
        first.update_metrics(2, accuracy=1.0)


def test_while_another_writes_it_is_refused(tmp_path: Path) -> None:
    first = train(tmp_path)
    other = ProgressTracker({}, tmp_path, 3, database=False)
    with pytest.raises(SessionBusy, match="written by"):
        first.record_checkpoint(tmp_path / "x.pt")
    other.close()


def test_a_directory_that_is_gone_is_reported(tmp_path: Path) -> None:
    progress = train(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(DirectoryUnusable, match="closed"):
        progress.update_metrics(2, accuracy=1.0)


def test_a_closed_session_neither_trains_nor_saves(tmp_path: Path) -> None:
    progress = train(tmp_path, state={"model": nn.Linear(1, 1)})
    with pytest.raises(ConfigInvalid, match="closed"):
        progress.save_checkpoint()
    with pytest.raises(ConfigInvalid, match="closed"):
        next(progress.steps())


def test_threads_that_record_while_it_closes_lose_nothing(tmp_path: Path) -> None:
    progress = ProgressTracker({}, tmp_path, 1_000, database=False)
    started = threading.Barrier(3)

    def record(first: int) -> None:
        started.wait()
        for step in range(first, first + 60):
            progress.update_metrics(step, loss=1.0)

    threads = [threading.Thread(target=record, args=(first,)) for first in (0, 60)]
    for thread in threads:
        thread.start()
    started.wait()
    progress.close()
    for thread in threads:
        thread.join()
    assert [row["step"] for row in read_metrics(tmp_path)] == [*range(120)]
