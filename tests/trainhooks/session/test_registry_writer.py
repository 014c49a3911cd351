"""A running session is in the experiment database, and nothing that is wrong with the database reaches the training."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from trainhooks import ProgressTracker, read_metrics, training_progress_context
from trainhooks.core.experiment import INTERRUPTED, RUNNING, MetricSummary, Run
from trainhooks.recovery import recover
from trainhooks.session import registry_writer
from trainhooks.storage import liveness
from trainhooks.storage.liveness import state
from trainhooks.storage.registry import Registry
from trainhooks.storage.workspace import DATABASE

JOB = """
import sys
from trainhooks import setup_progress_tracking
progress = setup_progress_tracking({"run_name": sys.argv[2]}, sys.argv[1], 100)
progress.resume_at(int(sys.argv[3]))
print("ready", flush=True)
for step, line in enumerate(sys.stdin, int(sys.argv[3])):
    progress.update_metrics(step, loss=float(line))
    progress.flush()
    print("recorded", flush=True)
progress.close()
"""


@contextmanager
def job(out: Path, *, first: int = 0) -> Iterator["subprocess.Popen[str]"]:
    """A training in a process of its own that takes a loss a line."""
    command = [sys.executable, "-c", JOB, str(out), out.name, str(first)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def feed(process: "subprocess.Popen[str]", *losses: float) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    for loss in losses:
        process.stdin.write(f"{loss}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "recorded\n"


def runs(database: Path) -> dict[str, Run]:
    with closing(Registry(database, is_copy=True)) as registry:
        return {run.name: run for run in registry.runs()}


def until(is_met: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_met():
        assert time.monotonic() < end
        time.sleep(0.01)


def summary(run: Run, name: str) -> MetricSummary:
    return next(each for each in run.metrics if each.name == name)


def test_a_run_from_its_start_to_its_end(tmp_path: Path) -> None:
    out, database = tmp_path / "a", tmp_path / DATABASE
    with training_progress_context({"lr": 0.1, "tags": ["first"], "api_key": "hidden"}, out, 100) as progress:
        progress.update_metrics(0, loss=1.0)  # before the first record a start has changed nothing
        until(lambda: database.exists() and bool(runs(database)))
        [run] = runs(database).values()
        assert (run.run_id, run.directory, run.total_steps) == (progress.session_id, str(out), 100)
        assert (run.sessions[0].status, run.sessions[0].pid, state(run)) == (RUNNING, os.getpid(), RUNNING)
        for step in range(10):
            progress.update_metrics(
                step, loss=1 / (step + 1), loss_components={"ce": 2.0}, val_loss=0.5 + step if step % 4 == 0 else None
            )
        (out / "mine.pt").write_bytes(b"weights")
        progress.record_checkpoint(out / "mine.pt", tags=["good"], metrics={"loss": 0.1})
        until(lambda: len(next(iter(runs(database).values())).checkpoints) == 1)
    [run] = runs(database).values()
    [session] = run.sessions
    assert run.config == {"lr": 0.1, "tags": ["first"], "api_key": "***"}
    assert run.tags == ("first", "good")
    assert (session.status, session.step, state(run)) == ("closed", 10, "closed")
    assert session.started_at is not None
    assert session.ended_at is not None
    assert session.started_at <= session.ended_at <= time.time()
    [checkpoint] = run.checkpoints
    assert (checkpoint.path, checkpoint.step, dict(checkpoint.metrics)) == (str(out / "mine.pt"), 10, {"loss": 0.1})
    assert summary(run, "train/loss") == MetricSummary(name="train/loss", best=0.1, last=0.1, rows=10, step=9)
    assert summary(run, "val/loss") == MetricSummary(name="val/loss", best=0.5, last=8.5, rows=3, step=8)
    assert summary(run, "loss/ce").best == 2.0


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "database lost"])
def test_a_resume_is_a_new_session_of_the_same_run(tmp_path: Path, is_known: bool) -> None:
    out, database = tmp_path / "a", tmp_path / DATABASE
    with job(out) as process:
        feed(process, 0.9, 0.3, 0.8, 0.7)
        until(lambda: database.exists() and bool(runs(database)))
        process.send_signal(signal.SIGKILL)
    [run] = runs(database).values()
    assert state(run) == INTERRUPTED
    if not is_known:
        for file in tmp_path.glob(f"{DATABASE}*"):
            file.unlink()
    with job(out, first=2) as process:
        [run] = runs(database).values() if is_known else [None]
        feed(process, 0.8, 0.7, 0.6)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
    [run] = runs(database).values()
    assert [(each.attempt, each.status) for each in run.sessions] == [(1, INTERRUPTED), (2, "closed")]
    assert state(run) == "closed"
    assert summary(run, "train/loss") == MetricSummary(name="train/loss", best=0.3, last=0.6, rows=5, step=4)
    assert [each.name for each in run.metrics] == ["train/loss"]


def test_a_killed_run_shows_as_interrupted_and_a_live_one_does_not(tmp_path: Path) -> None:
    database = tmp_path / DATABASE
    with job(tmp_path / "a") as first, job(tmp_path / "b") as second:
        feed(first, 0.9)
        feed(second, 0.9)
        until(lambda: database.exists() and len(runs(database)) == 2)
        assert {state(run) for run in runs(database).values()} == {RUNNING}
        first.send_signal(signal.SIGKILL)
        first.wait(20)
        found = runs(database)
        assert (state(found["a"]), state(found["b"])) == (INTERRUPTED, RUNNING)
        assert second.stdin is not None
        second.stdin.close()
        second.wait(20)
    assert state(runs(database)["b"]) == "closed"


def test_a_run_whose_directory_is_not_mounted_is_judged_by_its_process_or_its_last_heartbeat(tmp_path: Path) -> None:
    with job(tmp_path / "a") as process:
        feed(process, 0.9)
        until(lambda: (tmp_path / DATABASE).exists() and len(runs(tmp_path / DATABASE)) == 1)
        run = replace(runs(tmp_path / DATABASE)["a"], directory=str(tmp_path / "not mounted here"))
        assert state(run) == RUNNING
        process.kill()
        process.wait(20)
        assert state(run) == INTERRUPTED
    elsewhere = replace(run.sessions[0], host="another-host")
    assert state(replace(run, sessions=(elsewhere,))) == RUNNING
    long_ago = replace(elsewhere, seen_at=time.time() - 3600)
    assert state(replace(run, sessions=(long_ago,))) == INTERRUPTED
    # Its lock is there and free, as on a network file system that does not tell other hosts of locks.
    in_sight = replace(run, directory=str(tmp_path / "a"))
    assert state(replace(in_sight, sessions=(elsewhere,))) == RUNNING
    assert state(replace(in_sight, sessions=(long_ago,))) == INTERRUPTED


def test_many_runs_at_once_in_one_database(tmp_path: Path) -> None:
    names = [f"run-{number}" for number in range(4)]
    script = JOB.replace("for step, line in enumerate(sys.stdin, int(sys.argv[3])):", "for step in range(50):").replace(
        "float(line)", "1.0 + step"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / name), name, "0"], stdout=subprocess.PIPE)
        for name in names
    ]
    for process in processes:
        process.communicate(timeout=60)
    found = runs(tmp_path / DATABASE)
    assert sorted(found) == names
    assert {summary(run, "train/loss").rows for run in found.values()} == {50}
    assert {state(run) for run in found.values()} == {"closed"}


def test_a_sign_of_life_comes_without_anything_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_writer, "HEARTBEAT_SECONDS", 0.05)
    with training_progress_context({"name": "a"}, tmp_path / "a", 10) as progress:
        database = tmp_path / DATABASE
        progress.update_metrics(0, loss=4.0)
        until(lambda: database.exists() and bool(runs(database)))
        first = runs(database)["a"].sessions[0].seen_at
        progress.update_metrics(1, loss=3.0)
        until(lambda: runs(database)["a"].sessions[0].seen_at != first)
        until(lambda: [each.last for each in runs(database)["a"].metrics] == [3.0])
        assert summary(runs(database)["a"], "train/loss").last == 3.0


def train(out: Path, **options: object) -> None:
    with training_progress_context({}, out, 3, **options) as progress:
        for step in range(3):
            progress.update_metrics(step, loss=1.0)
            progress.record_checkpoint(out, step=step)
    assert [row["loss"] for row in read_metrics(out)] == [1.0] * 3


def test_what_is_wrong_with_the_database_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / DATABASE).write_text("no database at all " * 50)
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "a")
    told = [record.getMessage() for record in caplog.records if "experiment database" in record.getMessage()]
    assert len(told) == 1
    assert "Training continues" in told[0]
    assert str(tmp_path / DATABASE) in told[0]


def test_a_locked_database_blocks_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_writer, "_CLOSE_SECONDS", 0.2)
    database = tmp_path / DATABASE
    Registry(database).close()
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        train(tmp_path / "a")
        assert time.monotonic() - begun < 10  # the database alone would be waited for for 20 s
        other.execute("ROLLBACK")
    assert "it does not answer" in caplog.text
    train(tmp_path / "a")
    until(lambda: [each.status for run in runs(database).values() for each in run.sessions] == ["closed"] * 2)


def test_no_database_where_none_is_wanted(tmp_path: Path) -> None:
    train(tmp_path / "a", database=False)
    assert sorted(os.listdir(tmp_path)) == ["a"]
    train(tmp_path / "a", database=tmp_path / "mine.db")
    assert sorted(os.listdir(tmp_path)) == ["a", "mine.db"]


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with closing(ProgressTracker({}, tmp_path / "a", 10)) as tracker:
        tracker.update_metrics(0, loss=1.0)
    assert not (tmp_path / DATABASE).exists()


def test_a_forked_child_leaves_the_database_alone(tmp_path: Path) -> None:
    database = tmp_path / DATABASE
    with training_progress_context({"name": "a"}, tmp_path / "a", 10) as progress:
        progress.update_metrics(0, loss=1.0)
        until(lambda: database.exists() and bool(runs(database)))
        child = os.fork()
        if child == 0:
            progress.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert state(runs(database)["a"]) == RUNNING
        assert runs(database)["a"].sessions[0].status == RUNNING
    assert state(runs(database)["a"]) == "closed"


def test_recovery_and_the_run_agree(tmp_path: Path) -> None:
    out, database = tmp_path / "a", tmp_path / DATABASE
    with training_progress_context({"name": "a"}, out, 10) as progress:
        for step in range(10):
            progress.update_metrics(step, loss=1.0 / (1 + step), loss_components={"ce": step}, lr=0.5)
        (out / "mine.pt").write_bytes(b"weights")
        progress.record_checkpoint(out / "mine.pt", tags=["good"], metrics={"loss": 0.1})
    live = runs(database)["a"]
    recovered = recover(out, database=True)
    assert recovered.run_id == f"{live.run_id}_recovered"
    with closing(Registry(database, is_copy=True)) as registry:
        both = {run.run_id: run for run in registry.runs()}
    again = both[live.run_id]
    assert again.sessions == tuple(replace(each, seen_at=again.sessions[0].seen_at) for each in live.sessions)
    assert {each.name: (each.best, each.last, each.rows, each.step) for each in live.metrics}.items() <= {
        each.name: (each.best, each.last, each.rows, each.step) for each in again.metrics
    }.items()
    assert (again.checkpoints, again.tags, again.name) == (live.checkpoints, live.tags, live.name)
    assert json.loads(json.dumps(again.config))["run_name"] == "a"


def test_what_is_over_is_not_taken_for_interrupted(tmp_path: Path) -> None:
    """The database missed the end; the run's own directory knows it."""
    with training_progress_context({"name": "a"}, tmp_path / "a", 10) as progress:
        progress.update_metrics(0, loss=1.0)
        until(lambda: (tmp_path / DATABASE).exists() and bool(runs(tmp_path / DATABASE)))
        run = runs(tmp_path / DATABASE)["a"]
    assert run.sessions[0].status == RUNNING
    assert liveness.state(run) == "closed"


def test_a_run_that_failed_says_so(tmp_path: Path) -> None:
    def fail() -> None:
        with training_progress_context({"name": "a"}, tmp_path / "a", 10) as progress:
            progress.update_metrics(0, loss=float("nan"))
            raise ValueError("of the loop")

    with pytest.raises(ValueError, match="of the loop"):
        fail()
    run = runs(tmp_path / DATABASE)["a"]
    assert (state(run), run.sessions[0].step, run.metrics) == ("failed: ValueError", 1, ())
