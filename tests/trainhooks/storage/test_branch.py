"""What a later attempt rolled back is not the newest checkpoint."""

from pathlib import Path

import pytest

from trainhooks import Best, CheckpointPolicy, ProgressTracker, training_progress_context
from trainhooks.storage import inspection
from trainhooks.storage.checkpoints import CHECKPOINTS, published


def attempt(out: Path, *, resume_at: int | None, until: int, every: int = 250, tag: str = "") -> Path | None:
    """Train without `state=`, saving files of one's own; returns what there was to resume from."""
    tracker = ProgressTracker({}, out, 2_000, database=False)
    found = tracker.recovery_checkpoint()
    if resume_at is not None:
        tracker.resume_at(resume_at)
    for step in range(resume_at or 0, until):
        tracker.update_metrics(step, loss=1.0)
        if (step + 1) % every == 0:
            path = out / f"{tag}mine-{step + 1}.pt"
            path.write_bytes(b"weights")
            tracker.record_checkpoint(path, step=step + 1, tags=(tag,) if tag else ())
    tracker.close()
    return found


def test_the_newest_is_that_of_the_branch_which_continues(tmp_path: Path) -> None:
    assert attempt(tmp_path, resume_at=None, until=1_000, tag="a") is None
    assert attempt(tmp_path, resume_at=500, until=600, tag="b") == tmp_path / "amine-1000.pt"
    tracker = ProgressTracker({}, tmp_path, 2_000, database=False)
    assert tracker.recovery_checkpoint() == tmp_path / "amine-500.pt"
    assert tracker.recovery_checkpoint("a") == tmp_path / "amine-500.pt"
    tracker.resume_at(250)
    assert tracker.recovery_checkpoint() == tmp_path / "amine-250.pt"
    tracker.close()
    assert inspection.status(tmp_path)["newest_checkpoint"]["path"] == "amine-500.pt", "an attempt without a step"
    attempt(tmp_path, resume_at=250, until=260)
    assert inspection.status(tmp_path)["newest_checkpoint"]["path"] == "amine-250.pt"


def test_without_resume_at_the_first_row_says_where_an_attempt_continues(tmp_path: Path) -> None:
    attempt(tmp_path, resume_at=None, until=1_000, tag="a")
    tracker = ProgressTracker({}, tmp_path, 2_000, database=False)
    tracker.update_metrics(500, loss=1.0)
    assert tracker.recovery_checkpoint() == tmp_path / "amine-500.pt"
    tracker.close()


def test_a_tag_of_an_abandoned_branch_is_still_found(tmp_path: Path) -> None:
    attempt(tmp_path, resume_at=None, until=1_000, every=1_000, tag="a")
    attempt(tmp_path, resume_at=500, until=501, tag="b")
    tracker = ProgressTracker({}, tmp_path, 2_000, database=False)
    assert tracker.recovery_checkpoint() is None
    assert tracker.recovery_checkpoint("a") == tmp_path / "amine-1000.pt"
    tracker.close()


@pytest.mark.parametrize("metric", ["eval_loss", "eval/los"])
def test_a_metric_that_is_not_recorded_is_reported_and_keeps_every_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, metric: str
) -> None:
    from torch import nn

    policy = CheckpointPolicy(every_steps=1, every_seconds=None, keep_last=2, keep_best=Best(metric=metric))
    with training_progress_context({}, tmp_path, 6, state={"m": nn.Linear(1, 1)}, checkpoints=policy) as progress:
        progress.loader([1.0, 2.0])
        for step, _ in progress.steps():
            progress.update_metrics(step, val_loss=1.0, eval_lossy=2.0)
            progress.save_checkpoint()
    assert len(published(tmp_path / CHECKPOINTS)) == 6
    errors = [each.message for each in caplog.records if "keep_best" in each.message]
    assert len(errors) == 1
    assert ("val_loss" if metric == "eval_loss" else "eval_lossy") in errors[0]
