"""Accelerate in real trainings: a session resumes exactly; its own saves are vouched for."""

import json
from pathlib import Path
from typing import Any

from trainhooks import newest_good_checkpoint, read_metrics

JOB = Path(__file__).with_name("job_accelerate.py")


def run(zygote: Any, out: Path, kind: str, *, kill_at: str = "never") -> str:
    """Run the job to its end, or to its kill; returns what it said."""
    job = zygote.run(JOB, out, kill_at, kind, output=out.with_name(f"{out.name}-{kill_at}.log"))
    assert job.wait() == (0 if kill_at == "never" else -9), job.said()
    said: str = job.said()
    return said


def final(out: Path) -> Any:
    return json.loads((out / "final.json").read_bytes())


def test_a_session_in_an_accelerated_loop_resumes_exactly_inside_an_accumulation_window(
    trainers: Any, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(trainers, whole, "session")
    for kill_at in ("6", "18"):  # on from steps 4 and 16, each the second batch of a window of three
        run(trainers, killed, "session", kill_at=kill_at)
    line = "resumed at step 16: exact (state, batch ids, random numbers; 2 of 2 recorded steps compared)\n"
    assert line in run(trainers, killed, "session")
    assert final(killed) == final(whole)
    assert [row["loss"] for row in read_metrics(killed)] == [row["loss"] for row in read_metrics(whole)]


def test_what_accelerate_saves_is_vouched_for_and_damage_passed_over(trainers: Any, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(trainers, whole, "states")
    run(trainers, killed, "states", kill_at="20")
    (killed / "checkpoint-18" / "optimizer.bin").write_bytes(b"")
    said = run(trainers, killed, "states")
    assert "from 12\n" in said
    assert "optimizer.bin is damaged" in said
    assert "resumed at step 12: exact (8 of 8 recorded steps compared, by loss alone)\n" in said
    assert final(killed) == final(whole)
    assert newest_good_checkpoint(killed) == str(killed / "checkpoint-24")
    assert [row["step"] for row in read_metrics(killed)] == list(range(24))
