"""How a training ends: finished early, stopped, complete already, or without its last checkpoint."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from trainhooks import CheckpointPolicy, TrainingProgressContext, training_progress_context
from trainhooks.errors import CheckpointFailed, TrainhooksError
from trainhooks.storage import atomic, inspection

TOTAL = 20


def opened(out: Path, **options: Any) -> Any:
    return training_progress_context({"seed": 1}, out, TOTAL, state={"model": nn.Linear(1, 1)}, **options)


def train(out: Path, *, leave: Any = lambda progress, step: None) -> tuple[list[int], float]:
    done = []
    with opened(out) as progress:
        progress.loader([1.0, 2.0, 3.0])
        for step, _ in progress.steps():
            done.append(step)
            progress.update_metrics(step, loss=1.0)
            leave(progress, step)
        percent = progress.summary().percent
    return done, percent


def test_a_training_that_is_finished_early_trains_no_further(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def early(progress: TrainingProgressContext, step: int) -> None:
        if step == 7:
            progress.finish("no better for 3 evaluations")

    caplog.set_level(logging.INFO)
    assert train(tmp_path, leave=early) == ([*range(8)], 100.0)
    assert train(tmp_path) == ([], 100.0)
    assert "already complete: 8 of 20 steps (no better for 3 evaluations" in caplog.text
    newest = inspection.status(tmp_path)["newest_checkpoint"]
    assert (newest["step"], newest["tags"]) == (8, ("finished",))


def test_finishing_may_be_undone(tmp_path: Path) -> None:
    train(tmp_path, leave=lambda progress, step: progress.finish() if step == 7 else None)
    with opened(tmp_path) as progress:
        progress.loader([1.0, 2.0, 3.0])
        progress.finish(False)
        assert progress.summary().percent == 40.0
        assert [step for step, _ in progress.steps()] == [*range(8, TOTAL)]
    assert train(tmp_path) == ([], 100.0)


def test_finishing_between_loops_saves_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as progress:
        progress.loader([1.0, 2.0, 3.0])
        for step, _ in progress.steps():
            if step == 3:
                progress.save_checkpoint()
                break
        progress.finish("enough")
    assert train(tmp_path) == ([], 100.0)


def test_stop_saves_and_leaves(tmp_path: Path) -> None:
    assert train(tmp_path, leave=lambda progress, step: progress.stop() if step == 4 else None)[0] == [*range(5)]
    assert train(tmp_path)[0] == [*range(5, TOTAL)]


def test_a_complete_training_that_is_started_again_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(tmp_path)
    assert train(tmp_path) == ([], 100.0)
    assert "already complete: 20 of 20 steps" in caplog.text


def refuse(path: Path) -> None:
    raise OSError(28, "No space left on device")


def train_to_a_full_disk(out: Path, patch: pytest.MonkeyPatch, afterwards: Any) -> None:
    """Train to the end, whose checkpoint cannot be written; then run the user's own code."""
    with opened(out) as progress:
        progress.loader([1.0, 2.0, 3.0])
        for step, _ in progress.steps():
            if step == TOTAL - 1:
                patch.setattr(atomic, "sync_directory", refuse)
        patch.undo()
        afterwards()


def test_a_last_checkpoint_that_fails_is_raised_after_the_users_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    with pytest.raises(CheckpointFailed, match="step 20"):
        train_to_a_full_disk(tmp_path, monkeypatch, lambda: called.append(1))
    assert called
    attempt = json.loads((tmp_path / "progress" / "session.json").read_bytes())["attempts"][-1]
    assert attempt["end"] == "closed without its last checkpoint"


def test_it_never_hides_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        train_to_a_full_disk(tmp_path, monkeypatch, lambda: 1 / 0)


def test_a_later_checkpoint_makes_up_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, checkpoints=CheckpointPolicy(asynchronous=False)) as progress:
        progress.loader([1.0, 2.0, 3.0])
        for step, _ in progress.steps():
            if step == TOTAL - 1:
                monkeypatch.setattr(atomic, "sync_directory", refuse)
        monkeypatch.undo()
        progress.save_checkpoint()


def everything(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out.parent)): path.read_bytes()
        for path in sorted(out.parent.rglob("*"))
        if path.is_file() and path.name != "lock" and not path.name.startswith("experiments.db")
    }


@pytest.mark.parametrize("refused_by", ["state", "drift", "loader"])
def test_a_start_that_is_refused_changes_nothing(tmp_path: Path, refused_by: str) -> None:
    out = tmp_path / "run"
    train(out, leave=lambda progress, step: progress.stop() if step in (4, 9) else None)
    train(out, leave=lambda progress, step: progress.stop() if step in (4, 9) else None)
    newest = max((out / "checkpoints").glob("step-*"))
    (newest / "state.json").write_bytes(b"damaged")
    metrics = out / "progress" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes() + b'{"v": 1, "torn')
    before = everything(out)
    state = {"model": nn.Linear(2, 1) if refused_by == "state" else nn.Linear(1, 1)}
    config = {"seed": 2 if refused_by == "drift" else 1}
    data = [1.0] if refused_by == "loader" else [1.0, 2.0, 3.0]
    with pytest.raises(TrainhooksError), training_progress_context(config, out, TOTAL, state=state) as progress:
        progress.loader(data)
    assert everything(out) == before
    assert train(out)[0] == [*range(5, TOTAL)]
    assert any(path.startswith("run/checkpoints/quarantine/") for path in everything(out))


def test_a_run_that_is_only_looked_at_has_no_new_attempt(tmp_path: Path) -> None:
    train(tmp_path / "run")
    before = everything(tmp_path / "run")
    with opened(tmp_path / "run") as progress:
        assert progress.summary().percent == 100.0
    assert everything(tmp_path / "run") == before


def test_verify_notices_rows_that_were_cut_off(tmp_path: Path) -> None:
    train(tmp_path)
    assert not [problem for _, problems in inspection.verify(tmp_path) for problem in problems]
    metrics = tmp_path / "progress" / "metrics.jsonl"
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:-6]))
    problems = [problem.what for _, problems in inspection.verify(tmp_path) for problem in problems]
    assert any("rows were cut off" in what for what in problems)
