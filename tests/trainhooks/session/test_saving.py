"""Checkpoints that the user asks for, wherever he asks, and the one at the end: what is resumed is what was meant."""

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainhooks import CheckpointPolicy, TrainingProgressContext, read_metrics, training_progress_context
from trainhooks.errors import CheckpointFailed, ConfigInvalid, DirectoryUnusable, DriftBlocked
from trainhooks.storage import atomic
from trainhooks.storage.checkpoints import CHECKPOINTS, published

TOTAL = 8
ASKED = 3
"""The step in which a checkpoint is asked for or the loop is left."""
ROWS = [torch.linspace(-1, 1, 4) * row for row in range(1, 13)]

Moment = Callable[[TrainingProgressContext, int], bool]
"""What the loop does at a place in its body: whether it breaks there."""


def nothing(progress: TrainingProgressContext, step: int) -> bool:
    return False


def save(progress: TrainingProgressContext, step: int) -> bool:
    if step == ASKED:
        assert progress.save_checkpoint(tags=("asked",), metrics={"score": 2.0}) is None
    return False


def leave(progress: TrainingProgressContext, step: int) -> bool:
    return step == ASKED


def save_and_leave(progress: TrainingProgressContext, step: int) -> bool:
    return save(progress, step) or step == ASKED


def train(
    out: Path,
    *,
    total: int = TOTAL,
    before: Moment = nothing,
    after: Moment = nothing,
    at_end: Callable[[TrainingProgressContext], object] = lambda _: None,
    drift: Mapping[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """Train from where the directory's run stands; `before` and `after` run around the step's update."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    state = {"model": model, "optimizer": torch.optim.Adam(model.parameters())}
    with training_progress_context(
        {"seed": 1}, out, total, state=state, drift={"total_steps": "allow", **(drift or {})}
    ) as progress:
        progress.loader(ROWS, batch_size=2)
        for step, x in progress.steps():
            if before(progress, step):
                break
            loss = model(x).square().mean()
            loss.backward()
            state["optimizer"].step()
            state["optimizer"].zero_grad()
            progress.update_metrics(step, loss)
            if after(progress, step):
                break
        at_end(progress)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert {name: tensor.tolist() for name, tensor in one.items()} == {name: t.tolist() for name, t in other.items()}


@pytest.mark.parametrize(("before", "after"), [(save, nothing), (nothing, save)], ids=["first", "last"])
def test_asked_for_within_a_step_it_is_taken_when_the_step_ends(tmp_path: Path, before: Moment, after: Moment) -> None:
    whole = train(tmp_path / "whole")

    def crash(progress: TrainingProgressContext, step: int) -> bool:
        if step == ASKED + 2:
            raise RuntimeError("as a crash would")
        return before(progress, step)

    with pytest.raises(RuntimeError):
        train(tmp_path / "cut", before=crash, after=after)
    (checkpoint,) = published(tmp_path / "cut" / CHECKPOINTS)
    assert (checkpoint.manifest.step, checkpoint.manifest.tags) == (ASKED + 1, ("asked",))
    assert checkpoint.manifest.metrics["score"] == 2.0
    assert_same(train(tmp_path / "cut"), whole)


@pytest.mark.parametrize(
    ("after", "at_end"),
    [(save_and_leave, lambda _: None), (leave, lambda progress: progress.save_checkpoint())],
    ids=["before the break", "after it"],
)
def test_a_loop_that_saves_and_is_left_continues_exactly(
    tmp_path: Path, after: Moment, at_end: Callable[[TrainingProgressContext], object]
) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", after=after, at_end=at_end)
    (checkpoint,) = published(tmp_path / "cut" / CHECKPOINTS)
    assert checkpoint.manifest.step == ASKED + 1
    assert_same(train(tmp_path / "cut"), whole)


def test_the_end_is_saved(tmp_path: Path) -> None:
    """So a finished training is not done again, and a longer one goes on from it."""
    whole = train(tmp_path / "whole", total=TOTAL + 4)
    short = train(tmp_path / "run")
    (checkpoint,) = published(tmp_path / "run" / CHECKPOINTS)
    assert checkpoint.manifest.step == TOTAL
    steps: list[int] = []

    def count(progress: TrainingProgressContext, step: int) -> bool:
        steps.append(step)
        return False

    assert_same(train(tmp_path / "run", before=count), short)
    assert steps == []
    assert_same(train(tmp_path / "run", total=TOTAL + 4, before=count), whole)
    assert steps == list(range(TOTAL, TOTAL + 4))


def test_a_loop_that_is_left_unsaved_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, after=leave)
    assert published(tmp_path / CHECKPOINTS) == []
    assert "left in step 3" in caplog.text
    assert "save_checkpoint() before the break" in caplog.text
    caplog.clear()
    train(tmp_path)
    assert "left in step" not in caplog.text


def test_one_loop_may_follow_another(tmp_path: Path) -> None:
    """Left and entered again, it goes on with the next batch and the next step."""
    whole = train(tmp_path / "whole")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    state = {"model": model, "optimizer": torch.optim.Adam(model.parameters())}
    seen = []
    with training_progress_context({"seed": 1}, tmp_path / "run", TOTAL, state=state) as progress:
        progress.loader(ROWS, batch_size=2)
        while progress.current_step < TOTAL:
            for step, x in progress.steps():
                seen.append(step)
                model(x).square().mean().backward()
                state["optimizer"].step()
                state["optimizer"].zero_grad()
                if step % 3 == 2:
                    break
    assert seen == list(range(TOTAL))
    assert_same(model.state_dict(), whole)


def test_what_was_asked_for_and_fails_is_raised_where_the_step_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(28, "No space left on device")

    def save_without_room(progress: TrainingProgressContext, step: int) -> bool:
        monkeypatch.setattr(atomic, "sync_directory", refuse)
        return save(progress, step)

    with pytest.raises(CheckpointFailed, match="step 4"):
        train(tmp_path, after=save_without_room)


def test_a_loop_without_steps_is_shown_what_it_does_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {"model": nn.Linear(4, 1)}
    with training_progress_context({"seed": 1}, tmp_path, 6, state=state) as progress:
        with progress.evaluating():
            progress.record_connection_failure("an event is no row")
        for step, _ in enumerate(progress.loader(ROWS, batch_size=2)):
            progress.update_metrics(step, 1.0)
    assert caplog.text.count("steps() does not drive this loop") == 1


def test_a_run_whose_checkpoints_are_gone_begins_anew_only_if_that_is_meant(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, after=save_and_leave)
    shutil.rmtree(tmp_path / CHECKPOINTS)
    for _ in range(2):
        with pytest.raises(DriftBlocked, match=r"checkpoints was '1, the newest .*' and is 'gone'") as refused:
            train(tmp_path)
    assert "drift={'checkpoints': 'allow'}" in refused.value.hint
    caplog.clear()
    train(tmp_path, drift={"checkpoints": "allow"})
    assert "earlier attempts did 4 steps and there is no checkpoint" in caplog.text


def test_the_directory_of_checkpoints_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS).touch()
    with pytest.raises(DirectoryUnusable, match="is a file"):
        train(tmp_path)


def test_a_loop_may_change_its_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def change(progress: TrainingProgressContext, step: int) -> bool:
        monkeypatch.chdir(tmp_path / "elsewhere")
        return save(progress, step)

    train(Path("run"), after=change)
    assert [each.manifest.step for each in published(tmp_path / "run" / CHECKPOINTS)] == [ASKED + 1, TOTAL]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert json.loads((tmp_path / "run" / "progress" / "session.json").read_bytes())["attempts"][0]["end"] == "closed"


def test_after_the_last_step_ctrl_c_acts_at_once(tmp_path: Path) -> None:
    """Nothing serves it there: it would be heard of when all is over."""

    def evaluate(progress: TrainingProgressContext) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it goes on")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, at_end=evaluate)
    assert [each.manifest.step for each in published(tmp_path / CHECKPOINTS)] == [TOTAL]


def test_a_loop_that_asks_and_breaks_saves_behind_the_break(tmp_path: Path) -> None:
    """`if progress.should_stop: break`, and then what the user has to say: the signal waits for that."""

    def ask(progress: TrainingProgressContext, step: int) -> bool:
        if step == ASKED:
            signal.raise_signal(signal.SIGINT)
        return progress.should_stop

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, after=ask, at_end=lambda progress: progress.save_checkpoint())
    assert [each.manifest.step for each in published(tmp_path / CHECKPOINTS)] == [ASKED + 1]


def record(out: Path, interrupted_before: int) -> list[int]:
    """Record six rows without `steps()`, with Ctrl-C before one of them (-1: before the loop); returns which were."""
    done = []
    with training_progress_context({"seed": 1}, out, 6, state={"model": nn.Linear(4, 1)}) as progress:
        try:
            if interrupted_before < 0:
                signal.raise_signal(signal.SIGINT)
            for step in range(6):
                if step == interrupted_before:
                    signal.raise_signal(signal.SIGINT)
                progress.update_metrics(step, 1.0)
                done.append(step)
        except KeyboardInterrupt:
            pass
    return done


def test_without_steps_signals_are_not_kept(tmp_path: Path) -> None:
    """One that came while the training was set up acts with the first row, a later one at once."""
    assert record(tmp_path / "before", -1) == []
    assert record(tmp_path / "within", 2) == [0, 1]


def test_an_error_before_the_step_is_recorded_leaves_no_row_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was known of its batch was put beside the step before it, and the next start said that it differed."""

    def fail(progress: TrainingProgressContext, step: int) -> bool:
        if step == ASKED + 2:
            raise RuntimeError("as a crash would")
        return save(progress, step)

    with pytest.raises(RuntimeError):
        train(tmp_path, before=fail)
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(ASKED + 2))
    train(tmp_path)
    assert "diverged" not in caplog.text
    attempts = json.loads((tmp_path / "progress" / "session.json").read_bytes())["attempts"]
    assert attempts[1]["certificate"]["verdict"] == "exact"


def test_what_is_recorded_before_the_loop_is_no_step_of_it(tmp_path: Path) -> None:
    def steps(until: int) -> list[int]:
        model = nn.Linear(4, 1)
        state = {"model": model, "optimizer": torch.optim.SGD(model.parameters())}
        seen = []
        with training_progress_context({}, tmp_path, TOTAL, state=state) as progress:
            progress.loader(ROWS, batch_size=2)
            progress.update_metrics(step=progress.current_step, val_loss=3.0)
            for step, _ in progress.steps():
                seen.append(step)
                if step == until:
                    progress.save_checkpoint()
                    break
        return seen

    assert steps(ASKED) == [0, 1, 2, 3]
    assert steps(TOTAL) == [4, 5, 6, 7]


def test_a_loader_that_is_made_again_continues_where_the_loop_was_left(tmp_path: Path) -> None:
    """As when a notebook's cell is run once more, with other options perhaps."""
    seen = []
    with training_progress_context({}, tmp_path, TOTAL) as progress:
        progress.loader(list(range(100)), batch_size=2, shuffle=False)
        progress.loader(list(range(100)), batch_size=4, shuffle=False)  # nothing was read yet: nothing to go on with
        for step, batch in progress.steps():
            seen.append(batch.tolist())
            if step == 1:
                break
        progress.loader(list(range(100)), batch_size=2, shuffle=False)
        seen += [batch.tolist() for _, batch in progress.steps()]
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], *([at, at + 1] for at in range(8, 20, 2))]


def test_a_step_that_asks_and_is_broken_off_by_an_error_is_not_saved(tmp_path: Path) -> None:
    """Half of it would be in the checkpoint, as a whole one; with several ranks, on some of them."""
    whole = train(tmp_path / "whole")

    def fail(progress: TrainingProgressContext, step: int) -> bool:
        if step == ASKED:
            raise RuntimeError("as out of memory would")
        return False

    with pytest.raises(RuntimeError):
        train(tmp_path / "cut", before=save, after=lambda progress, step: step == ASKED and fail(progress, step))
    assert published(tmp_path / "cut" / CHECKPOINTS) == []
    assert_same(train(tmp_path / "cut"), whole)


def test_a_save_behind_an_error_does_not_count_the_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with training_progress_context({}, tmp_path, TOTAL, state={"model": nn.Linear(4, 1)}) as progress:
        progress.loader(ROWS, batch_size=2)
        try:
            for step, _ in progress.steps():
                if step == ASKED:
                    raise RuntimeError("as a crash would")
        except RuntimeError:
            progress.save_checkpoint()
    assert "broke off step 3 before an optimizer stepped: it does not count" in caplog.text
    assert [each.manifest.step for each in published(tmp_path / CHECKPOINTS)] == [ASKED]
    caplog.clear()
    train(tmp_path / "left", after=leave, at_end=lambda progress: progress.save_checkpoint())
    assert "broke off" not in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoints": CheckpointPolicy(), "checkpoint_every_steps": 5, "state": {"model": nn.Linear(2, 1)}},
        {"checkpoints": CheckpointPolicy()},
        {"checkpoint_every_steps": 5},
    ],
    ids=["both", "a policy without state", "a number without state"],
)
def test_what_would_silently_not_be_saved_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        TrainingProgressContext({}, tmp_path / "run", TOTAL, **options)
    assert not (tmp_path / "run").exists()
