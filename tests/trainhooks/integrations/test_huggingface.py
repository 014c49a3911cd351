"""The Trainer's callback in real trainings: records without gap, damaged checkpoints passed over, exact resume kept."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from trainhooks import newest_good_checkpoint, read_metrics
from trainhooks.core.rehearsal import VARIABLE, Plan, Result, judge
from trainhooks.storage import metrics
from trainhooks.storage.receipts import issued

JOB = Path(__file__).with_name("job_huggingface.py")
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def run(zygote: Any, out: Path, kind: str, *, kill_at: str = "never") -> str:
    """Run the job to its end, or to its kill or signal; returns what it said."""
    log = out.with_name(f"{out.name}-{kill_at}.log")
    job = zygote.run(JOB, out, kill_at, kind, output=log, env=OFFLINE)
    assert job.wait() == (0 if kill_at == "never" else 75 if kill_at.startswith("term") else -9), job.said()
    said: str = job.said()
    return said


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, and neither size nor time stamp."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["plain", "sft"])
def test_a_killed_training_continues_from_what_is_whole_to_the_same_weights(
    trainers: Any, tmp_path: Path, kind: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(trainers, whole, kind)
    run(trainers, killed, kind, kill_at="10")
    assert [receipt.step for receipt in issued(killed)] == [8, 4]
    flip(killed / "checkpoint-8" / "model.safetensors")
    said = run(trainers, killed, kind)
    assert f"from {killed / 'checkpoint-4'}\n" in said
    assert "model.safetensors is damaged" in said
    assert "resumed at step 4: exact (5 of 5 recorded steps compared, by loss and learning rate alone)\n" in said
    assert json.loads((killed / "final.json").read_bytes()) == json.loads((whole / "final.json").read_bytes())
    assert newest_good_checkpoint(killed) == str(killed / "checkpoint-16")

    rows, expected = read_metrics(killed), read_metrics(whole)
    assert [row["step"] for row in rows] == [row["step"] for row in expected] == list(range(16))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    assert [row["step"] for row in rows if "eval_loss" in row] == [7, 15]
    assert [row["lineage"] for row in rows] == [{"ids": "unknown", "keys": "unknown"}] * 16
    assert [row["attempt"] for row in rows] == [1] * 4 + [2] * 12
    session = json.loads((killed / "progress" / "session.json").read_bytes())
    assert session["config"]["experiment"] == "tiny"
    assert session["config"]["gradient_accumulation_steps"] == 2
    assert session["attempts"][1]["seconds"]["evaluation"] > 0
    assert session["attempts"][1]["seconds"]["checkpoint"] > 0
    registered = json.loads((killed / "progress" / "checkpoints.json").read_bytes())["checkpoints"]
    assert [entry["path"] for entry in registered if (killed / entry["path"]).exists()] == [
        "checkpoint-8",
        "checkpoint-12",
        "checkpoint-16",
    ]


def test_a_signal_lets_the_trainer_save_and_leave_with_the_code_that_asks_for_another_go(
    trainers: Any, tmp_path: Path
) -> None:
    whole, told = tmp_path / "whole", tmp_path / "told"
    run(trainers, whole, "plain")
    run(trainers, told, "plain", kill_at="term-6")
    assert not (told / "final.json").exists()
    found = newest_good_checkpoint(told)
    assert found in (str(told / "checkpoint-6"), str(told / "checkpoint-7"))  # not a step that the trainer saves at
    assert f"from {found}\n" in run(trainers, told, "plain")
    assert json.loads((told / "final.json").read_bytes()) == json.loads((whole / "final.json").read_bytes())
    assert [row["step"] for row in read_metrics(told)] == list(range(16))


def test_a_trainer_is_rehearsed_in_the_scratch_folder_alone(trainers: Any, tmp_path: Path) -> None:
    """The three starts of `trainhooks rehearse`: killed, resumed from its own checkpoint, and without a kill."""
    real = tmp_path / "real"
    killed = Plan(directory=str(tmp_path / "killed"), steps=6, save_at=2, kill_at=4)
    whole = Plan(directory=str(tmp_path / "whole"), steps=6, save_at=2)
    said = []
    for plan, code in ((killed, -signal.SIGKILL), (killed, 0), (whole, 0)):
        Path(plan.directory).mkdir(exist_ok=True)
        env = {**OFFLINE, VARIABLE: plan.encode()}
        job = trainers.run(JOB, real, "never", "plain", output=tmp_path / "job.log", env=env)
        assert job.wait() == code, job.said()
        said.append(job.said())
    [one], [other] = ([*Path(plan.directory).glob("*-real")] for plan in (killed, whole))
    assert f"from {one / 'checkpoint-2'}\n" in said[1]
    assert [path for path in real.rglob("*") if path.is_file()] == []
    outcome = judge(metrics.read_lines(one), metrics.read_lines(other))
    assert (outcome.result, outcome.first, outcome.last) == (Result.EXACT, 2, 4), outcome
    assert {"loss", "learning rate"} <= set(outcome.compared)
