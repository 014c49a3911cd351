"""The command line as real processes, on dead and live runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trainhooks import training_progress_context
from trainhooks.storage import receipts

KEY, OTHER = "a" * 64, "b" * 64

# The command with a proof that it never loaded torch.
COMMAND = """
import sys
from trainhooks.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "numpy", "safetensors", "aiohttp"} & set(sys.modules)
    if heavy:
        sys.exit(f"loaded {heavy}")
"""


def trainhooks(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def as_json(*arguments: object) -> Any:
    done = trainhooks(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is over: 20 steps, then again from 15 on."""
    out = tmp_path_factory.mktemp("run")
    for first, last in ((0, 20), (15, 18)):
        with training_progress_context({"lr": 0.1}, out, 100) as progress:
            progress.resume_at(first)
            for step in range(first, last):
                progress.update_metrics(
                    step, loss=1 / (step + 1), loss_components={"ce": 0.5}, samples_processed=step * 4
                )
            (out / "mine.pt").write_bytes(b"weights")
            progress.record_checkpoint(out / "mine.pt", tags=["good"], metrics={"loss": 0.5})
            progress.record_api_response("Why?", "Because.", model="m")
            progress.record_connection_failure(TimeoutError("late"))
    return out


def test_status_of_a_run_that_is_over(run: Path) -> None:
    found = as_json("status", run)
    assert (found["state"], found["attempts"], found["checkpoints"], found["holder"]) == ("closed", 2, 1, None)
    assert (found["progress"]["step"], found["progress"]["total_steps"]) == (18, 100)
    assert found["newest_checkpoint"]["tags"] == ["good"]
    text = trainhooks("status", run).stdout
    for part in ("18 of 100 (18.0 %)", "closed", "1 failures, 0 recoveries", "newest at step 18", "replayed"):
        assert part in text, text


def test_progress_may_be_given_too(run: Path) -> None:
    assert as_json("status", run / "progress")["output_dir"] == str(run)


def test_ls(run: Path) -> None:
    [entry] = as_json("ls", run)
    assert (entry["path"], entry["step"], entry["size_bytes"], entry["is_registered"]) == ("mine.pt", 18, 7, True)
    assert as_json("ls", run, "--tag", "another") == []
    assert "mine.pt" in trainhooks("ls", run).stdout


def test_tail_shows_one_row_a_step(run: Path) -> None:
    done = trainhooks("tail", run, "--json", "-n", 5)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["step"], row["attempt"]) for row in rows] == [(13, 1), (14, 1), (15, 2), (16, 2), (17, 2)]
    assert (
        trainhooks("tail", run, "-n", 1).stdout
        == "step 17  loss 0.05556  loss_components.ce 0.5  samples_processed 68\n"
    )


def test_tail_leaves_out_what_is_no_metric(traced: Path) -> None:
    assert trainhooks("tail", traced, "-n", 1).stdout == "step 2  loss 0.5\n"
    assert json.loads(trainhooks("tail", traced, "-n", 1, "--json").stdout)["lineage"]["ids"] == [4, 5]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose loop says what its steps are made of, where it knows that."""
    out = tmp_path_factory.mktemp("traced")
    with training_progress_context({}, out, 100) as progress:
        progress.record_lineage([4, 5], [[(KEY, 0)], []], epoch=0)
        progress.update_metrics(0, loss=0.5)
        progress.update_metrics(1, loss=0.5)
        progress.record_lineage([4, 5], [[(KEY, 0)], [(OTHER, None)]], epoch=1)
        progress.update_metrics(2, loss=0.5)
    return out


def test_lineage_of_a_run_a_step_and_an_answer(traced: Path, run: Path) -> None:
    assert as_json("lineage", traced) == {
        "steps": 3,
        "steps_with_answers": 2,
        "samples": 2,
        "samples_with_answers": 2,
        "answers": 2,
    }
    found = as_json("lineage", traced, "--step", 2)
    assert (found["ids"], found["keys"], found["epoch"]) == ([4, 5], [[[KEY, 0]], [[OTHER, None]]], 1)
    assert trainhooks("lineage", traced, "--step", 0).stdout == (
        f"step 0, epoch 0\n  sample 4  {KEY} ordinal 0\n  sample 5  unknown\n"
    )
    assert trainhooks("lineage", traced, "--step", 1).stdout == "step 1, epoch unknown\n  samples unknown\n"
    assert as_json("lineage", traced, "--key", KEY[:8])["steps"] == [0, 2]
    assert trainhooks("lineage", traced, "--key", OTHER).stdout == "2\n"
    assert trainhooks("lineage", traced, "--key", "c0ffee").stdout == "no step\n"
    assert "3 steps, 2 with known answers" in trainhooks("lineage", traced).stdout
    assert "18 steps, 0 with known answers\n0 samples" in trainhooks("lineage", run).stdout
    missing = trainhooks("lineage", traced, "--step", 3)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "Step 3 is not recorded" in missing.stderr


def test_verify_of_whole_files(run: Path) -> None:
    found = as_json("verify", run)
    assert found["problems"] == []
    assert set(found["checked"]) == {
        "mine.pt",
        "progress/session.json",
        "progress/metrics.jsonl",
        "progress/api_recovery.jsonl",
    }
    assert "0 problems found" in trainhooks("verify", run).stderr


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", str(run), str(tmp_path / "copy")], check=True)
    return tmp_path / "copy"


def test_verify_reports_every_problem(copied: Path) -> None:
    (copied / "mine.pt").unlink()
    for name, line in (("metrics.jsonl", 3), ("api_recovery.jsonl", 1)):
        path = copied / "progress" / name
        lines = path.read_bytes().splitlines(keepends=True)
        lines[line - 1] = lines[line - 1].replace(b'"', b"'", 1)
        path.write_bytes(b"".join(lines))
    done = trainhooks("verify", copied, "--json")
    assert done.returncode == 1
    places = [problem["where"] for problem in json.loads(done.stdout)["problems"]]
    assert places == ["mine.pt", "progress/metrics.jsonl:3", "progress/api_recovery.jsonl:1"]
    done = trainhooks("verify", copied)
    assert done.returncode == 1
    assert "mine.pt: It was registered and is gone." in done.stdout


def test_what_was_deleted_since_later_ones_are_there_is_no_problem(tmp_path: Path) -> None:
    """Trainers keep the last few, or the best; of theirs the receipts are looked at."""
    with training_progress_context({}, tmp_path, 100) as progress:
        for step in (10, 20, 30):
            path = tmp_path / f"checkpoint-{step}"
            path.write_bytes(b"weights")
            receipts.issue(tmp_path, path, step=step)
            progress.record_checkpoint(path, step=step)
            (tmp_path / f"mine-{step}").write_bytes(b"weights")
            progress.record_checkpoint(tmp_path / f"mine-{step}", step=step)
    for gone in ("checkpoint-10", "checkpoint-30", "mine-10", "mine-20"):
        (tmp_path / gone).unlink()
    found = as_json("verify", tmp_path)
    assert found["problems"] == []
    assert {"checkpoint-20", "mine-30"} <= set(found["checked"])
    assert as_json("status", tmp_path)["checkpoints"] == 2
    (tmp_path / "checkpoint-20").write_bytes(b"Weights")  # as long as before
    (tmp_path / "mine-30").unlink()
    done = trainhooks("verify", tmp_path)
    assert done.returncode == 1
    assert "checkpoint-20 is damaged" in done.stdout
    assert "mine-30: It was registered and is gone." in done.stdout


def test_a_directory_within_a_run_is_not_the_run(copied: Path) -> None:
    (copied / "plots").mkdir()
    assert "holds no run" in trainhooks("status", copied / "plots").stderr


def test_verify_reports_whatever_stops_the_next_start(copied: Path) -> None:
    """A session that cannot be read, rows that are gone, checkpoints that were found damaged."""
    (copied / "progress" / "session.json").write_bytes(b"{")
    aside = copied / "checkpoints" / "quarantine"
    (aside / "step-000000005.0").mkdir(parents=True)
    (aside / "step-000000005.0.reason.txt").write_text("state.json has 0 bytes.\n")
    done = trainhooks("verify", copied, "--json")
    assert done.returncode == 1
    said = {problem["where"]: problem["what"] for problem in json.loads(done.stdout)["problems"]}
    assert said.keys() == {"progress/session.json", "checkpoints/quarantine/step-000000005.0"}
    assert said["checkpoints/quarantine/step-000000005.0"] == "state.json has 0 bytes."


def test_verify_reports_that_the_rows_are_gone(copied: Path) -> None:
    (copied / "progress" / "metrics.jsonl").unlink()
    done = trainhooks("verify", copied)
    assert done.returncode == 1
    assert "It is gone, with every row." in done.stdout


def test_verify_reports_lines_that_were_taken_out(copied: Path) -> None:
    path = copied / "progress" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5] + lines[7:]))
    done = trainhooks("verify", copied)
    assert done.returncode == 1
    assert "Line 5 is expected here, but 7 follows." in done.stdout


@pytest.mark.parametrize("verb", ["status", "verify", "ls", "tail", "lineage"])
def test_no_run_is_one_sentence(verb: str, tmp_path: Path) -> None:
    done = trainhooks(verb, tmp_path)
    assert done.returncode == 1
    assert "holds no run" in done.stderr
    assert "Traceback" not in done.stderr
    assert trainhooks(verb, tmp_path / "nowhere").returncode == 2


def test_a_damaged_session_is_one_sentence(copied: Path) -> None:
    (copied / "progress" / "session.json").write_bytes(b"{")
    done = trainhooks("status", copied)
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr


LIVE = """
import sys
from trainhooks import setup_progress_tracking
progress = setup_progress_tracking({}, sys.argv[1], 100)
print("ready", flush=True)
for step, line in enumerate(sys.stdin):
    progress.update_metrics(step, loss=float(line))
    progress.flush()
    print("recorded", flush=True)
"""


def test_a_live_run_is_seen_and_followed_and_its_death_too(tmp_path: Path) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", LIVE, str(tmp_path)], **pipes) as job:
        assert job.stdin is not None
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        follow = [sys.executable, "-u", "-c", COMMAND, "tail", "-f", "--json", str(tmp_path)]
        with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
            assert tail.stdout is not None
            assert tail.stderr is not None
            for step, loss in enumerate(("0.5", "nan")):
                job.stdin.write(loss + "\n")
                job.stdin.flush()
                assert job.stdout.readline() == "recorded\n"
                row = json.loads(tail.stdout.readline())
                assert (row["step"], row["loss"]) == (step, {"0.5": 0.5, "nan": "NaN"}[loss])
            found = as_json("status", tmp_path)
            assert (found["state"], found["holder"]["pid"]) == ("running", job.pid)
            assert found["progress"]["step"] == 2
            assert as_json("verify", tmp_path)["problems"] == []
            tail.send_signal(signal.SIGINT)
            begun = time.monotonic()
            assert tail.wait() == 130
            assert time.monotonic() - begun < 10
            assert tail.stderr.read() == "", "who looks on and has seen enough made no mistake"
        job.send_signal(signal.SIGKILL)
    assert as_json("status", tmp_path)["state"] == "cut off"
