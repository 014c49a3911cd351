"""An error that is caught behind a loop: the step that it broke off does not count, however the loop is written."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainhooks.session.test_leaving import LAST, LOOPS, ROWS, TOTAL, Body, train
from trainhooks import TrainingProgressContext, read_metrics, training_progress_context
from trainhooks.errors import ConfigInvalid
from trainhooks.storage.checkpoints import CHECKPOINTS, published

Loop = Callable[[TrainingProgressContext, Body], None]


def held_wrapper(progress: TrainingProgressContext, body: Body) -> None:
    """Nothing shows how this one ends: the variable keeps it open."""
    pairs = enumerate(progress.steps())
    for number, (step, batch) in pairs:
        body(step, batch)
        if number == LAST:
            progress.save_checkpoint()
            break
    progress.flush()


def held_generator(progress: TrainingProgressContext, body: Body) -> None:
    pairs = (pair for pair in progress.steps())
    for step, batch in pairs:
        body(step, batch)
        if step == LAST:
            progress.save_checkpoint()
            break
    progress.flush()


SHAPES = [*LOOPS, held_wrapper, held_generator]


def swallowed(loop: Loop, *, behind: Callable[[TrainingProgressContext], object], asks: bool) -> Loop:
    """The loop, with an error in one step before its update; what runs afterwards is `behind`."""

    def run(progress: TrainingProgressContext, body: Body) -> None:
        def fails_once(step: int, batch: Any) -> None:
            if step == LAST and not is_over:
                is_over.append(True)
                if asks:
                    progress.save_checkpoint()
                raise RuntimeError("as out of memory would")
            body(step, batch)

        is_over: list[bool] = []
        with contextlib.suppress(RuntimeError):
            loop(progress, fails_once)
        behind(progress)

    return run


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The weights of a training without an error."""
    return train(tmp_path_factory.mktemp("whole"), None)[1]


@pytest.mark.parametrize("loop", SHAPES, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("asks", [False, True], ids=["saved behind it", "asked for in the step"])
def test_the_step_does_not_count_in_a_checkpoint(tmp_path: Path, uninterrupted: Any, loop: Loop, asks: bool) -> None:
    """It was counted where a variable held the iterator: the batch was in no update and never came again."""
    behind: Any = (lambda progress: None) if asks else (lambda progress: progress.save_checkpoint())
    assert train(tmp_path / "cut", swallowed(loop, behind=behind, asks=asks))[0] == [0, 1, 2]
    assert {each.manifest.step for each in published(tmp_path / "cut" / CHECKPOINTS)} <= {LAST}
    rest, weights = train(tmp_path / "cut", None)
    assert weights == uninterrupted
    assert rest[-5:] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("loop", SHAPES, ids=lambda loop: loop.__name__)
def test_the_next_loop_gets_its_batch_again(tmp_path: Path, loop: Loop) -> None:
    def rest(progress: TrainingProgressContext) -> None:
        for step, batch in progress.steps():
            bodies[0](step, batch)

    def keeping(progress: TrainingProgressContext, body: Body) -> None:
        bodies.append(body)
        swallowed(loop, behind=rest, asks=False)(progress, body)

    bodies: list[Body] = []
    assert train(tmp_path / "cut", keeping) == train(tmp_path / "whole", None)
    assert [row["step"] for row in read_metrics(tmp_path / "cut")] == [*range(TOTAL)]


def opened(out: Path, model: nn.Module, **objects: Any) -> Any:
    return training_progress_context({"seed": 1}, out, TOTAL, state={"model": model, **objects}, database=False)


def test_an_error_behind_the_update_counts_and_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with opened(tmp_path, model, optimizer=optimizer) as progress:
        progress.loader(ROWS, batch_size=2)
        try:
            for step, batch in progress.steps():
                model(batch).sum().backward()
                optimizer.step()
                if step == LAST:
                    raise RuntimeError("as a failing evaluation would")
        except RuntimeError:
            progress.save_checkpoint()
    assert [each.manifest.step for each in published(tmp_path / CHECKPOINTS)] == [LAST + 1]
    assert "broke off step 3 after its optimizer had stepped: it counts" in caplog.text


def test_a_batch_that_always_fails_ends_the_training_with_a_warning(tmp_path: Path) -> None:
    """Else a loop that is begun anew after each error would never end."""
    tries = []

    def train_on_and_on(progress: TrainingProgressContext) -> None:
        while True:
            with contextlib.suppress(OSError):
                for step, _ in progress.steps():
                    if step == LAST:
                        tries.append(step)
                        raise OSError("this sample cannot be read")

    with opened(tmp_path, nn.Linear(4, 1)) as progress:
        progress.loader(ROWS, batch_size=2)
        with pytest.raises(ConfigInvalid, match=r"broke off step 3 twice .* within the loop's body"):
            train_on_and_on(progress)
    assert len(tries) == 2


def test_an_error_that_the_body_catches_counts(tmp_path: Path) -> None:
    seen = []
    with opened(tmp_path, nn.Linear(4, 1)) as progress:
        progress.loader(ROWS, batch_size=2)
        for step, _ in progress.steps():
            try:
                raise OSError("this sample cannot be read")
            except OSError:
                seen.append(step)
    assert seen == [*range(TOTAL)]


def test_a_smaller_batch_after_an_error_begins_with_the_sample_that_failed(tmp_path: Path) -> None:
    """As out of memory is often answered: by a new loader with half the batch size, and the loop once more."""
    rows, seen, size = [torch.tensor([float(each)]) for each in range(16)], list[float](), 4
    with opened(tmp_path, nn.Linear(1, 1)) as progress:
        while True:
            progress.loader(rows, batch_size=size, shuffle=False)
            try:
                for step, batch in progress.steps():
                    if step == 1 and size > 1:
                        raise MemoryError
                    seen += batch.flatten().tolist()
                break
            except MemoryError:
                size //= 2
    assert seen == [*range(11)]


def test_a_batch_that_is_only_looked_at_comes_again(tmp_path: Path) -> None:
    """To print a shape, or to build a model lazily: it was left out of the training."""
    with opened(tmp_path, nn.Linear(4, 1)) as progress:
        progress.loader(ROWS, batch_size=2)
        _, example = next(progress.steps())
        _, first = next(iter(progress.steps()))
        seen = [(step, batch) for step, batch in progress.steps()]
    assert [step for step, _ in seen] == [*range(TOTAL)]
    assert torch.equal(example, first)
    assert torch.equal(example, seen[0][1])


def test_a_second_loop_over_one_variable_continues(tmp_path: Path) -> None:
    seen = []
    with opened(tmp_path, nn.Linear(4, 1)) as progress:
        progress.loader(ROWS, batch_size=2)
        steps = progress.steps()
        for step, _ in steps:
            seen.append(step)
            progress.update_metrics(step, 1.0)
            if step == LAST:
                break
        seen.append(next(steps)[0])
        progress.update_metrics(LAST + 1, 1.0)
        seen += [step for step, _ in steps]
    assert seen == [*range(TOTAL)]
