"""Lightning's callback in real trainings: records without gap, damaged checkpoints passed over, nothing changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainhooks import newest_good_checkpoint, read_lineage, read_metrics
from trainhooks.storage.inspection import status

JOB = Path(__file__).with_name("job_lightning.py")


def run(zygote: Any, out: Path, kind: str = "callback", *, kill_at: str = "never") -> str:
    """Run the job to its end, or to its kill or signal; returns what it said."""
    job = zygote.run(JOB, out, kill_at, kind, output=out.with_name(f"{out.name}-{kill_at}.log"))
    assert job.wait() == (0 if kill_at == "never" else 75 if kill_at.startswith("term") else -9), job.said()
    said: str = job.said()
    return said


def test_a_killed_training_continues_from_what_is_whole_to_the_same_weights(trainers: Any, tmp_path: Path) -> None:
    bare, whole, killed = tmp_path / "bare", tmp_path / "whole", tmp_path / "killed"
    run(trainers, bare, "plain")
    run(trainers, whole)
    run(trainers, killed, kill_at="23")
    newest = killed / "checkpoints" / "step=20.ckpt"
    assert newest_good_checkpoint(killed) == str(newest)
    newest.write_bytes(newest.read_bytes()[:-1])
    said = run(trainers, killed)
    assert f"from {killed / 'checkpoints' / 'step=10.ckpt'}\n" in said
    assert "step=20.ckpt is damaged" in said
    assert "resumed at step 10: exact (13 of 13 recorded steps compared, by loss and learning rate alone)\n" in said
    final = [json.loads((out / "final.json").read_bytes()) for out in (bare, whole, killed)]
    assert final[0] == final[1] == final[2]
    assert newest_good_checkpoint(killed) == str(killed / "checkpoints" / "step=26.ckpt")

    rows, expected = read_metrics(killed), read_metrics(whole)
    assert [row["step"] for row in rows] == [row["step"] for row in expected] == list(range(26))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    assert [row["loss"] for row in rows] == [row["train_loss"] for row in rows]
    assert [row["step"] for row in rows if "val_loss" in row] == [9, 19]
    assert [row["attempt"] for row in rows] == [1] * 10 + [2] * 16
    session = json.loads((killed / "progress" / "session.json").read_bytes())
    assert session["config"] == {"width": 8, "experiment": "tiny"}
    assert session["attempts"][1]["seconds"]["evaluation"] > 0


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_signal_lets_the_trainer_save_and_leave_with_the_code_that_asks_for_another_go(
    trainers: Any, tmp_path: Path, when: str
) -> None:
    told = tmp_path / "told"
    run(trainers, told, kill_at=f"term-{when}-13")
    assert not (told / "final.json").exists()
    found = told / "checkpoints" / "preempted.ckpt"
    assert newest_good_checkpoint(told) == str(found)
    assert f"from {found}\n" in run(trainers, told)
    assert [row["step"] for row in read_metrics(told)] == list(range(26))


def test_batches_that_name_their_samples_and_keys_are_recorded_over_a_kill(trainers: Any, tmp_path: Path) -> None:
    out = tmp_path / "keyed"
    run(trainers, out, "keyed", kill_at="13")
    run(trainers, out, "keyed")
    steps = read_lineage(out).steps
    assert list(steps) == list(range(26))
    for step, found in steps.items():
        numbers = [4 * (step % 10) + place for place in range(4)]  # two batches of two: the window of one step
        assert found.ids == tuple(f"s{number}" for number in numbers)
        assert found.keys == tuple(((f"{number:064x}", number % 2),) for number in numbers)
        assert found.epoch == step // 10


@pytest.mark.parametrize(("kind", "steps"), [("manual", 20), ("manual-steps", 26)])
def test_a_batch_that_steps_two_optimizers_by_hand_is_one_step(
    trainers: Any, tmp_path: Path, kind: str, steps: int
) -> None:
    out = tmp_path / "run"
    run(trainers, out, kind)
    last = json.loads((out / "progress" / "progress.json").read_bytes())
    assert (last["step"], last["total_steps"], last["percent"]) == (steps, steps, 100.0)
    assert [row["step"] for row in read_metrics(out)] == list(range(steps))
    assert status(out)["newest_checkpoint"]["step"] == steps
