"""Loops, restarts and records as public reports describe them: a step counts once, nothing is lost in silence."""

import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tqdm import tqdm

from trainhooks import CheckpointPolicy, TrainingProgressContext, read_metrics, training_progress_context
from trainhooks.errors import ConfigInvalid, SessionBusy
from trainhooks.storage.checkpoints import CHECKPOINTS, published

ROWS = [torch.linspace(-1, 1, 4) * row / 20 for row in range(1, 14)]
TOTAL = 11


def train(
    out: Path,
    loop: Callable[[TrainingProgressContext, Callable[[int, Any], None]], object],
    *,
    total: int = TOTAL,
    every: int | None = None,
    **options: Any,
) -> tuple[list[int], list[float]]:
    """Train by a loop that calls what it is given for each step; returns the steps that were trained, and weights."""
    torch.manual_seed(2)
    model, done = nn.Linear(4, 1), list[int]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    policy = CheckpointPolicy(every_steps=every, max_overhead=None)
    state = {"model": model, "optimizer": optimizer}
    with training_progress_context(
        {"seed": 1}, out, total, state=state, checkpoints=policy, database=False, **options
    ) as progress:
        progress.loader(ROWS, batch_size=2)

        def body(step: int, batch: Any) -> None:
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            done.append(step)
            progress.update_metrics(step, loss)

        loop(progress, body)
    return done, model.weight.flatten().tolist()


def simply(progress: TrainingProgressContext, body: Any) -> None:
    for step, batch in progress.steps():
        body(step, batch)


def epochs_around_it(progress: TrainingProgressContext, body: Any) -> None:
    for _ in range(3):
        for step, batch in progress.steps():
            body(step, batch)


def one_step_a_loop(progress: TrainingProgressContext, body: Any) -> None:
    while progress.current_step < progress.total_steps:
        for step, batch in progress.steps():
            body(step, batch)
            break


def an_epoch_a_loop(progress: TrainingProgressContext, body: Any) -> None:
    while progress.current_step < progress.total_steps:
        for step, batch in itertools.islice(progress.steps(), 7):
            body(step, batch)


def a_bar_that_begins_where_the_run_is(progress: TrainingProgressContext, body: Any) -> None:
    with tqdm(total=progress.total_steps, initial=progress.current_step, disable=True) as bar:
        for number, (step, batch) in enumerate(progress.steps(), start=progress.current_step):
            assert number == step
            body(step, batch)
            bar.update()


def beside_a_cycle(progress: TrainingProgressContext, body: Any) -> None:
    for _, (step, batch) in zip(itertools.cycle(range(3)), progress.steps(), strict=False):
        body(step, batch)


def chained(progress: TrainingProgressContext, body: Any) -> None:
    for step, batch in itertools.chain(progress.steps(), ()):
        body(step, batch)


def through_a_generator(progress: TrainingProgressContext, body: Any) -> None:
    def steps() -> Iterator[int]:
        for step, batch in progress.steps():
            body(step, batch)
            yield step

    assert list(steps())[-1:] in ([TOTAL - 1], [])


def through_a_function(progress: TrainingProgressContext, body: Any) -> None:
    def one(pair: Any) -> None:
        body(*pair)

    for pair in progress.steps():
        one(pair)


LOOPS = [
    epochs_around_it,
    one_step_a_loop,
    an_epoch_a_loop,
    a_bar_that_begins_where_the_run_is,
    beside_a_cycle,
    chained,
    through_a_generator,
    through_a_function,
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_each_step_is_trained_once_and_left_and_resumed_anywhere_it_is_the_same(tmp_path: Path, loop: Any) -> None:
    steps, weights = train(tmp_path / "whole", simply)
    assert steps == [*range(TOTAL)]
    assert train(tmp_path / "loop", loop) == (steps, weights)

    def stops(progress: TrainingProgressContext, body: Any) -> None:
        def asks(step: int, batch: Any) -> None:
            body(step, batch)
            if step == 4:
                progress.save_checkpoint()
                sys.exit()  # as a job's time limit is kept by hand

        loop(progress, asks)

    with pytest.raises(SystemExit):
        train(tmp_path / "cut", stops, every=3)
    rest = train(tmp_path / "cut", loop)
    assert rest == ([*range(3, TOTAL)], weights)
    assert [row["step"] for row in read_metrics(tmp_path / "cut")] == [*range(TOTAL)]


def joined(progress: TrainingProgressContext, body: Any) -> None:
    steps = progress.steps()
    while chunk := list(itertools.islice(steps, 4)):
        for step, batch in chunk:
            body(step, batch)


def all_at_once(progress: TrainingProgressContext, body: Any) -> None:
    for step, batch in list(progress.steps()):
        body(step, batch)


@pytest.mark.parametrize("loop", [joined, all_at_once], ids=lambda loop: loop.__name__)
def test_steps_that_are_read_ahead_are_refused(tmp_path: Path, loop: Any) -> None:
    """Those in the chunk counted as finished before they were trained: a checkpoint between left them out."""
    with pytest.raises(ConfigInvalid, match=r"steps\(\) was read ahead"):
        train(tmp_path, loop, every=1)


def test_a_finished_run_that_is_started_again_trains_nothing_more(tmp_path: Path) -> None:
    """A restart trained one more step each time."""
    _, weights = train(tmp_path, simply)
    before = [each.path.name for each in published(tmp_path / CHECKPOINTS)]
    for _ in range(3):
        assert train(tmp_path, simply) == ([], weights)
    assert [each.path.name for each in published(tmp_path / CHECKPOINTS)] == before


def test_fewer_steps_than_are_done_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train(tmp_path, simply)
    assert train(tmp_path, simply, total=5, drift={"total_steps": "allow"})[0] == []
    assert "already complete: 11 of 5 steps" in caplog.text


def test_the_last_steps_are_saved_though_no_checkpoint_was_due(tmp_path: Path) -> None:
    """199 epochs with one every five: the last four were in none."""
    train(tmp_path, simply, every=4)
    assert published(tmp_path / CHECKPOINTS)[-1].manifest.step == TOTAL


def test_four_stops_leave_one_row_a_step(tmp_path: Path) -> None:
    """A row was lost each time a run was stopped and continued."""

    def until(last: int) -> Any:
        def loop(progress: TrainingProgressContext, body: Any) -> None:
            for step, batch in progress.steps():
                body(step, batch)
                if step == last:
                    progress.stop()

        return loop

    for last in (1, 2, 6, 9, TOTAL):
        train(tmp_path, until(last))
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [*range(TOTAL)]
    assert all("loss" in row for row in rows)


def test_a_directory_that_is_removed_beneath_a_running_training_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As scripts do that clear their output directory late."""
    out = tmp_path / "run"

    def loop(progress: TrainingProgressContext, body: Any) -> None:
        for step, batch in progress.steps():
            body(step, batch)
            if step == 2:
                progress.flush()
                shutil.rmtree(out)
                out.mkdir()

    train(out, loop)
    assert "metrics.jsonl was removed while the training runs, with all rows so far" in caplog.text
    assert "bytes of metrics are lost" in caplog.text
    assert "nothing was lost" not in caplog.text


def test_a_second_session_of_one_process_says_which_holds_the_run(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 4, database=False) as progress:
        progress.update_metrics(0, 1.0)
        with pytest.raises(SessionBusy, match="Hint"), training_progress_context({}, tmp_path, 4, database=False):
            pass
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0]


def test_an_evaluation_beside_a_step_goes_into_its_row(tmp_path: Path) -> None:
    def loop(progress: TrainingProgressContext, body: Any) -> None:
        for step, batch in progress.steps():
            body(step, batch)
            if step % 5 == 4:
                progress.update_metrics(step, val_loss=float("nan"))

    train(tmp_path, loop)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows if "val_loss" in row] == [4, 9]
    assert all(row["loss"] > 0 for row in rows)
    assert json.loads((tmp_path / "progress" / "progress.json").read_bytes())
