"""Loops as people write them: each step counts once, the checkpoint that was asked for is taken, no false warning."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tqdm import tqdm

from trainhooks import TrainingProgressContext, training_progress_context
from trainhooks.storage.checkpoints import CHECKPOINTS, published

TOTAL = 8
LAST = 3
"""The step in which a checkpoint is asked for and the loop is left."""
ROWS = [torch.linspace(-1, 1, 4) * row for row in range(1, 17)]

Body = Callable[[int, Any], None]


def for_tqdm(progress: TrainingProgressContext, body: Body) -> None:
    for step, batch in tqdm(progress.steps(), disable=None):
        body(step, batch)
        if step == LAST:
            progress.save_checkpoint()
            break


def with_tqdm(progress: TrainingProgressContext, body: Body) -> None:
    with tqdm(progress.steps(), disable=None) as bar:
        for step, batch in bar:
            body(step, batch)
            if step == LAST:
                progress.save_checkpoint()
                break


def with_tqdm_saved_after_it(progress: TrainingProgressContext, body: Body) -> None:
    bar = tqdm(progress.steps(), disable=None)
    for step, batch in bar:
        body(step, batch)
        if step == LAST:
            break
    progress.save_checkpoint()


def over_a_variable(progress: TrainingProgressContext, body: Body) -> None:
    steps = progress.steps()
    for step, batch in steps:
        body(step, batch)
        if step == LAST:
            progress.save_checkpoint()
            break


def over_a_variable_that_is_let_go_of(progress: TrainingProgressContext, body: Body) -> None:
    over_a_variable(progress, body)
    progress.flush()


def by_next(progress: TrainingProgressContext, body: Body) -> None:
    steps = progress.steps()
    for _ in range(LAST + 1):
        body(*next(steps))
    progress.save_checkpoint()


def by_next_in_the_step(progress: TrainingProgressContext, body: Body) -> None:
    steps = progress.steps()
    step = -1
    while step < LAST:
        step, batch = next(steps)
        body(step, batch)
        if step == LAST:
            progress.save_checkpoint()


def by_islice(progress: TrainingProgressContext, body: Body) -> None:
    for step, batch in itertools.islice(progress.steps(), LAST + 1):
        body(step, batch)
    progress.save_checkpoint()


def by_islice_in_the_step(progress: TrainingProgressContext, body: Body) -> None:
    for step, batch in itertools.islice(progress.steps(), LAST + 1):
        body(step, batch)
        if step == LAST:
            progress.save_checkpoint()


def by_zip(progress: TrainingProgressContext, body: Body) -> None:
    for _, (step, batch) in zip(range(LAST + 1), progress.steps(), strict=False):
        body(step, batch)
        if step == LAST:
            progress.save_checkpoint()


def by_zip_in_the_other_order(progress: TrainingProgressContext, body: Body) -> None:
    for (step, batch), _ in zip(progress.steps(), range(LAST + 1), strict=False):
        body(step, batch)
        if step == LAST:
            progress.save_checkpoint()


def by_enumerate(progress: TrainingProgressContext, body: Body) -> None:
    for number, (step, batch) in enumerate(progress.steps()):
        body(step, batch)
        if number == LAST:
            progress.save_checkpoint()
            return


def by_map(progress: TrainingProgressContext, body: Body) -> None:
    def one(pair: tuple[int, Any]) -> int:
        body(*pair)
        if pair[0] == LAST:
            progress.save_checkpoint()
        return pair[0]

    steps = map(one, progress.steps())
    while next(steps) < LAST:
        pass


def by_stop(progress: TrainingProgressContext, body: Body) -> None:
    with tqdm(progress.steps(), disable=None) as bar:
        for step, batch in bar:
            body(step, batch)
            if step == LAST:
                progress.stop()


LOOPS = [
    for_tqdm, with_tqdm, with_tqdm_saved_after_it, over_a_variable, over_a_variable_that_is_let_go_of, by_next,
    by_next_in_the_step, by_islice, by_islice_in_the_step, by_zip, by_zip_in_the_other_order, by_enumerate, by_map,
    by_stop,
]  # fmt: skip


def train(out: Path, loop: Callable[[TrainingProgressContext, Body], None] | None) -> tuple[list[int], list[float]]:
    """Train, and return the steps and the weights; without a loop to the end."""
    torch.manual_seed(1)
    model = nn.Linear(4, 1)
    state = {"model": model, "optimizer": torch.optim.Adam(model.parameters())}
    seen: list[int] = []
    with training_progress_context({"seed": 1}, out, TOTAL, state=state, database=False) as progress:
        progress.loader(ROWS, batch_size=2)

        def body(step: int, batch: torch.Tensor) -> None:
            seen.append(step)
            state["optimizer"].zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            state["optimizer"].step()
            progress.update_metrics(step, loss)

        if loop is None:
            for step, batch in progress.steps():
                body(step, batch)
        else:
            loop(progress, body)
    return seen, model.weight.flatten().tolist()


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_the_step_is_saved_and_counted_and_nothing_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loop: Callable[[TrainingProgressContext, Body], None]
) -> None:
    assert train(tmp_path / "cut", loop)[0] == [0, 1, 2, 3]
    assert [each.manifest.step for each in published(tmp_path / "cut" / CHECKPOINTS)] == [LAST + 1]
    assert [each.getMessage() for each in caplog.records if each.levelname != "INFO"] == []
    rest, weights = train(tmp_path / "cut", None)
    assert rest == [4, 5, 6, 7]
    assert weights == train(tmp_path / "whole", None)[1]


def fails(loop: Callable[[TrainingProgressContext, Body], None]) -> Callable[[TrainingProgressContext, Body], None]:
    def failing(progress: TrainingProgressContext, body: Body) -> None:
        def asks_and_fails(step: int, batch: Any) -> None:
            body(step, batch)
            if step == LAST:
                progress.save_checkpoint()
                raise RuntimeError("as out of memory would")

        loop(progress, asks_and_fails)

    return failing


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_step_that_an_error_broke_off_is_not_saved_and_that_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loop: Callable[[TrainingProgressContext, Body], None]
) -> None:
    with pytest.raises(RuntimeError):
        train(tmp_path / "cut", fails(loop))
    assert published(tmp_path / "cut" / CHECKPOINTS) == []
    assert "step 3 asked for a checkpoint and an error broke it off" in caplog.text
    rest, weights = train(tmp_path / "cut", None)
    assert rest == [*range(8)]
    assert weights == train(tmp_path / "whole", None)[1]


def test_an_explicit_close_serves_a_loop_over_a_variable(tmp_path: Path) -> None:
    progress = TrainingProgressContext({}, tmp_path, TOTAL, state={"model": nn.Linear(4, 1)}, database=False)
    progress.loader(ROWS, batch_size=2)
    with_tqdm(progress, lambda step, batch: None)
    progress.close()
    assert [each.manifest.step for each in published(tmp_path / CHECKPOINTS)] == [LAST + 1]


def test_a_close_behind_an_error_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    progress = TrainingProgressContext({}, tmp_path, TOTAL, state={"model": nn.Linear(4, 1)}, database=False)
    progress.loader(ROWS, batch_size=2)

    def closes_behind_it() -> None:
        try:
            fails(with_tqdm)(progress, lambda step, batch: None)
        finally:
            progress.close()

    with pytest.raises(RuntimeError):
        closes_behind_it()
    assert published(tmp_path / CHECKPOINTS) == []
    assert "an error broke it off" in caplog.text
