"""The tracker as a loop uses it: the seed's loop, its five files, resume, pauses, failures, checkpoints."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainhooks import ProgressTracker, read_metrics, setup_progress_tracking, training_progress_context
from trainhooks.errors import ConfigInvalid, DirectoryUnusable, SessionBusy, SessionInvalid
from trainhooks.storage.metrics import read_lines


def train(tracker: ProgressTracker, steps: range) -> None:
    for step in steps:
        tracker.update_metrics(
            step=step,
            loss=1 / (step + 1),
            loss_components={"ce": 0.5, "kl": 0.25},
            learning_rate=1e-3,
            samples_processed=step * 8,
            tokens_processed=step * 800,
            grad_norm=1.5,
        )


def test_the_loop_of_the_guide_leaves_its_files(tmp_path: Path) -> None:
    with training_progress_context({"lr": 1e-3}, tmp_path, 100) as progress:
        train(progress, range(20))
        progress.record_api_response("Why?", "Because.", model="gpt-4.1")
    files = {path.name for path in (tmp_path / "progress").iterdir()}
    assert files == {"session.json", "progress.json", "metrics.jsonl", "checkpoints.json", "api_recovery.jsonl", "lock"}
    for name in ("session.json", "progress.json", "checkpoints.json"):
        assert json.loads((tmp_path / "progress" / name).read_bytes())["v"] == 1
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(20))
    assert rows[3]["loss_components"] == {"ce": 0.5, "kl": 0.25}
    snapshot = json.loads((tmp_path / "progress" / "progress.json").read_bytes())
    assert (snapshot["step"], snapshot["percent"], snapshot["loss_trend"]) == (20, 20.0, "improving")


def test_a_second_attempt_continues_with_the_session(tmp_path: Path) -> None:
    first = ProgressTracker({}, tmp_path, 100)
    train(first, range(30))
    first.close()
    second = ProgressTracker({}, tmp_path, 100)
    second.resume_at(25)
    assert (second.session_id, second.attempt, second.current_step) == (first.session_id, 2, 25)
    train(second, range(25, 28))
    second.close()
    rows = read_metrics(tmp_path)
    assert [(row["step"], row["attempt"]) for row in rows] == [(at, 1 + (at >= 25)) for at in range(28)]
    assert sum("kind" not in line for line in read_lines(tmp_path)) == 33, "rows are superseded and never deleted"


def test_time_of_all_attempts_is_kept_and_replays_are_reported(tmp_path: Path) -> None:
    first = ProgressTracker({}, tmp_path, 100)
    train(first, range(30))
    with first.evaluating():
        pass
    ended = first.summary().seconds
    first.close()
    second = ProgressTracker({}, tmp_path, 100)
    assert second.summary().seconds["active"] >= ended["active"]
    second.resume_at(20)
    train(second, range(20, 29))
    assert second.summary().attempt_seconds["replayed"] > 0.0
    train(second, range(29, 32))
    before = second.summary().attempt_seconds
    train(second, range(32, 34))
    after = second.summary().attempt_seconds
    assert after["replayed"] == before["replayed"]
    assert after["active"] > before["active"]
    second.close()


def test_pausing_stops_the_clock(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 100)
    tracker.pause()
    tracker.pause()
    paused = tracker.summary()
    later = tracker.summary()
    assert later.wall_seconds == paused.wall_seconds
    assert later.seconds["paused"] > paused.seconds["paused"]
    tracker.unpause()
    tracker.unpause()
    with tracker.paused():
        assert tracker.summary().wall_seconds == tracker.summary().wall_seconds
    assert tracker.summary().wall_seconds > later.wall_seconds
    tracker.close()


def test_resume_is_a_deprecated_name_of_unpause(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 100)
    tracker.pause()
    paused = tracker.summary().wall_seconds
    with pytest.warns(DeprecationWarning, match=r"call unpause\(\)"):
        tracker.resume()
    assert tracker.summary().wall_seconds > paused
    tracker.close()


def test_failures_and_recoveries_are_counted_and_recorded(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 100)
    tracker.record_connection_failure(TimeoutError("no answer"))
    tracker.record_connection_failure("no answer again")
    assert tracker.summary().is_down
    tracker.record_api_response("Why?", "Because.", model="m")
    summary = tracker.summary()
    assert (summary.failures, summary.recoveries, summary.is_down) == (2, 1, False)
    assert summary.down_seconds > 0
    tracker.record_connection_recovery()
    tracker.close()
    kinds = [line["kind"] for line in read_lines(tmp_path) if "kind" in line]
    assert kinds == ["attempt", "connection_failure", "connection_failure", "connection_recovery"]


def test_a_registered_checkpoint_is_found_by_tag_and_never_touched(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 100)
    train(tracker, range(10))
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"weights")
    stamp = mine.stat().st_mtime_ns
    entry = tracker.record_checkpoint(mine, tags=["before-anneal"], metrics={"loss": 0.5}, position={"epoch": 1})
    assert (entry.path, entry.step, entry.size_bytes) == ("mine.pt", 10, 7)
    tracker.close()
    again = ProgressTracker({}, tmp_path, 100)
    assert again.recovery_checkpoint("before-anneal") == mine
    assert again.recovery_checkpoint("another") is None
    again.close()
    assert (mine.read_bytes(), mine.stat().st_mtime_ns) == (b"weights", stamp)


def test_a_damaged_list_of_checkpoints_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = ProgressTracker({}, tmp_path, 100)
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"weights")
    tracker.record_checkpoint(mine, tags="x", step=7)
    tracker.close()
    (tmp_path / "progress" / "checkpoints.json").write_bytes(b'{"v": 1, "checkp')
    with caplog.at_level(logging.WARNING):
        again = ProgressTracker({}, tmp_path, 100)
    assert "made again" in caplog.text
    assert again.recovery_checkpoint("x") == mine
    again.close()


def test_answers_are_found_again_in_the_next_attempt(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 10) as progress:
        assert progress.record_api_response("Why?", "Because.", model="m") == 0
        assert progress.record_api_response("Why?", "So.", model="m") == 1
    with training_progress_context({}, tmp_path, 10) as progress:
        assert progress.find_api_response("Why?", model="m", ordinal=1) == "So."
        assert progress.find_api_response("Why not?", model="m") is None


def test_numbers_of_every_kind_are_recorded_as_they_were_at_the_call(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 10)
    total, ids, parts = torch.tensor(1.5), [1, 2], {"ce": torch.tensor([2.5])}
    tracker.update_metrics(
        0,
        loss=total,
        loss_components=parts,
        grad_norm=np.float32(0.5),
        ids=ids,
        half=torch.tensor(0.1, dtype=torch.bfloat16),
    )
    total.add_(100)
    ids.append(3)
    parts["ce"] = torch.tensor(9.0)
    tracker.close()
    [row] = read_metrics(tmp_path)
    assert row["loss"] == 1.5
    assert row["loss_components"] == {"ce": 2.5}
    assert row["grad_norm"] == 0.5
    assert row["ids"] == [1, 2]
    assert row["half"] == torch.tensor(0.1, dtype=torch.bfloat16).item()


def test_nan_and_infinity_are_recorded_as_such(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 10)
    tracker.update_metrics(0, loss=float("nan"), grad_norm=torch.tensor(float("inf")))
    assert tracker.summary().loss_trend == "not_finite"
    tracker.close()
    [row] = read_metrics(tmp_path)
    assert row["loss"] != row["loss"]
    assert row["grad_norm"] == float("inf")


@pytest.mark.parametrize("metric", [{"loss": torch.zeros(3)}, {"norms": np.zeros((2, 2))}])
def test_what_is_not_one_number_is_refused_by_name(tmp_path: Path, metric: dict[str, Any]) -> None:
    tracker = ProgressTracker({}, tmp_path, 10)
    with pytest.raises(ConfigInvalid, match=next(iter(metric))):
        tracker.update_metrics(0, **metric)
    tracker.close()


def test_names_of_the_file_itself_are_refused(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 10)
    with pytest.raises(ConfigInvalid, match="seq"):
        tracker.update_metrics(0, seq=1.0)
    tracker.close()


def test_threads_lose_no_row(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 10_000)

    def record(name: str) -> None:
        for step in range(500):
            tracker.update_metrics(step, **{name: float(step)})

    threads = [threading.Thread(target=record, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracker.close()
    rows = read_metrics(tmp_path)
    assert len(rows) == 500
    assert all(row[name] == row["step"] for row in rows for name in "abcd")


def test_threads_register_their_checkpoints_side_by_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = ProgressTracker({}, tmp_path, 100, database=False)

    def register(name: str) -> None:
        for step in range(20):
            path = tmp_path / f"{name}-{step}.pt"
            path.write_bytes(b"mine")
            tracker.record_checkpoint(path, step=step)

    threads = [threading.Thread(target=register, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = json.loads((tmp_path / "progress" / "checkpoints.json").read_bytes())["checkpoints"]
    tracker.close()
    assert len(listed) == 80
    assert "could not be written" not in caplog.text


def test_what_is_attached_goes_with_the_next_row_or_alone(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 10)
    tracker.attach({"ids": [1]})
    tracker.attach({"rng": "abc"})
    tracker.update_metrics(0, loss=1.0)
    tracker.update_metrics(1, loss=2.0)
    tracker.attach({"ids": [2]})
    tracker.close()
    first, second = read_metrics(tmp_path)
    assert (first["ids"], first["rng"], second["loss"], second["ids"]) == ([1], "abc", 2.0, [2])


def test_a_failed_block_says_so_and_lets_go(tmp_path: Path) -> None:
    def fail() -> None:
        with training_progress_context({}, tmp_path, 10) as progress:
            train(progress, range(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    session = json.loads((tmp_path / "progress" / "session.json").read_bytes())
    assert session["attempts"][0]["end"] == "failed: ZeroDivisionError"
    assert session["attempts"][0]["step"] == 3
    setup_progress_tracking({}, tmp_path, 10).close()


def test_a_registered_file_that_has_been_cut_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with training_progress_context({}, tmp_path, 10) as progress:
        for step in (1, 2):
            (tmp_path / f"mine-{step}.pt").write_bytes(b"weights")
            progress.record_checkpoint(tmp_path / f"mine-{step}.pt", step=step)
        (tmp_path / "mine-2.pt").write_bytes(b"wei")
        assert progress.recovery_checkpoint() == tmp_path / "mine-1.pt"
    assert "mine-2.pt was skipped: it had 7 bytes" in caplog.text


def test_one_writer(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 10)
    with pytest.raises(SessionBusy, match="by this process itself"):
        ProgressTracker({}, tmp_path, 10)
    tracker.close()
    tracker.close()
    ProgressTracker({}, tmp_path, 10).close()


def test_a_ranks_records_go_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ProgressTracker({}, tmp_path, 10)
    writer.record_connection_failure("a first record: before it nothing is written")
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    other = ProgressTracker({}, tmp_path, 10)
    assert other.session_id == writer.session_id
    train(other, range(5))
    assert other.record_api_response("a", "b", model="m") is None
    other.record_connection_failure("x")
    other.record_checkpoint(tmp_path)
    other.flush()
    assert other.summary().failures == 1
    other.close()
    train(writer, range(2))
    writer.close()
    assert len(read_metrics(tmp_path)) == 2


def test_a_damaged_session_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 10)
    train(tracker, range(5))
    tracker.close()
    path = tmp_path / "progress" / "session.json"
    path.write_bytes(path.read_bytes()[:40])
    metrics = (tmp_path / "progress" / "metrics.jsonl").read_bytes()
    with pytest.raises(SessionInvalid):
        ProgressTracker({}, tmp_path, 10)
    assert (tmp_path / "progress" / "metrics.jsonl").read_bytes() == metrics
    path.rename(path.with_suffix(".bad"))
    again = ProgressTracker({}, tmp_path, 10)
    assert again.attempt == 2, "rows of the new session must not be taken for the old attempt's"
    again.resume_at(5)
    again.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(5))


def test_a_directory_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DirectoryUnusable, match="is a file"):
        ProgressTracker({}, tmp_path / "file", 10)


def test_nothing_is_written_for_a_bad_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid):
        ProgressTracker({"model": object()}, tmp_path / "out", 10)
    assert not (tmp_path / "out").exists()


def test_credentials_stay_out_of_the_files(tmp_path: Path) -> None:
    secret = "sk" + "-live-" + "9z8y" * 8
    tracker = ProgressTracker({"api_key": secret}, tmp_path, 10)
    tracker.record_connection_failure(ConnectionError(f"Incorrect API key provided: {secret}"))
    tracker.close()
    for path in (tmp_path / "progress").iterdir():
        assert secret.encode() not in path.read_bytes(), path.name


def test_an_evaluation_that_was_long_in_coming_moves_nothing_back(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 200) as progress:
        for step in range(100):
            progress.update_metrics(step, loss=float(step), samples_processed=2 * step)
        progress.update_metrics(49, val_loss=0.5, loss=7.0, samples_processed=98)
        late = progress.summary()
        assert (late.step, late.percent, late.loss) == (100, 50.0, 99.0)
        assert progress.current_step == 100
        progress.update_metrics(100, loss=100.0, samples_processed=200)
        assert progress.summary().step == 101
        progress.resume_at(40)  # a loop that does go back
        progress.update_metrics(40, loss=1.0)
        assert (progress.summary().step, progress.summary().loss) == (41, 1.0)
    rows = {row["step"]: row for row in read_metrics(tmp_path)}
    assert list(rows) == list(range(41))


def test_a_late_row_is_kept_with_its_step(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 10) as progress:
        for step in range(8):
            progress.update_metrics(step, loss=1.0)
        progress.update_metrics(3, val_loss=0.5)
    assert [row["step"] for row in read_metrics(tmp_path) if "val_loss" in row] == [3]


@pytest.mark.parametrize("first", [0, 1])
def test_a_loop_that_counts_from_one_loses_no_row_where_it_is_resumed(tmp_path: Path, first: int) -> None:
    for begin, end in [(0, 5), (3, 7), (7, 10)]:
        with training_progress_context({}, tmp_path, 10) as progress:
            progress.resume_at(begin)
            for step in range(begin, end):
                progress.update_metrics(step + first, loss=float(step), begun_at=begin)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(first, 10 + first))
    assert [row["begun_at"] for row in rows] == [0] * 3 + [3] * 4 + [7] * 3


def test_a_repr_says_which_run_how_far_and_whether_it_records(tmp_path: Path) -> None:
    tracker = ProgressTracker({}, tmp_path, 10, database=False)
    assert repr(tracker) == f"<ProgressTracker {tmp_path}: step 0 of 10, not begun>"
    tracker.update_metrics(step=2, loss=1.0)
    assert repr(tracker) == f"<ProgressTracker {tmp_path}: step 3 of 10, open>"
    tracker.close()
    assert repr(tracker) == f"<ProgressTracker {tmp_path}: step 3 of 10, closed>"
