"""More than one loader, as public reports have them: an evaluation that changes the training, a second stream."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, random_split

from tests.trainhooks.situations.runs import TOTAL, Made, plain, run, whole_and_cut
from trainhooks import TrainingProgressContext, training_progress_context
from trainhooks.errors import DriftBlocked

ROWS = [torch.tensor([float(each)]) for each in range(13)]
VAL = [torch.tensor([100.0 + each]) for each in range(5)]
MORE = [torch.tensor([200.0 + each]) for each in range(5)]


class Noisy(Dataset[Any]):
    """Its samples hold random numbers."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return torch.rand(1)


Evaluate = Callable[[TrainingProgressContext, Any], Any]


def evaluated(source: Callable[[], Any], evaluate: Evaluate, **options: Any) -> Callable[[], Made]:
    """A training with dropout that evaluates in every third step."""

    def make() -> Made:
        held: list[Any] = []

        def opened(progress: TrainingProgressContext) -> None:
            held.append(progress.loader(source(), evaluates=True, **options))

        def body(progress: TrainingProgressContext, step: int, batch: Any) -> Any:
            drawn = torch.rand(1)
            return drawn, evaluate(progress, held[0]) if step % 3 == 1 else None

        return Made(DataLoader(ROWS, batch_size=3, shuffle=True), body=body, opened=opened)

    return make


def whole_pass(progress: TrainingProgressContext, val: Any) -> Any:
    return [plain(part) for part in val]


def cut_pass(progress: TrainingProgressContext, val: Any) -> Any:
    return [plain(part) for part in itertools.islice(val, 2)]


def timed(progress: TrainingProgressContext, val: Any) -> Any:
    with progress.evaluating():
        return [plain(part) for part in val], torch.rand(2)


def own_loader(progress: TrainingProgressContext, val: Any) -> Any:
    """A plain DataLoader draws a seed from the global generator each time it is iterated."""
    with progress.evaluating():
        return [plain(part) for part in DataLoader(VAL, batch_size=2, shuffle=True)]


EVALUATIONS = {
    "whole": evaluated(lambda: VAL, whole_pass, batch_size=2),
    "cut short": evaluated(lambda: VAL, cut_pass, batch_size=2),
    "shuffled": evaluated(lambda: VAL, whole_pass, batch_size=2, shuffle=True),
    "noisy": evaluated(Noisy, whole_pass, batch_size=2),
    "timed": evaluated(Noisy, timed, batch_size=2),
    "a loader of torch": evaluated(lambda: DataLoader(Noisy(), batch_size=2, shuffle=True), whole_pass),
    "a loader beside the session": evaluated(lambda: VAL, own_loader, batch_size=2),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_changes_nothing_and_comes_out_alike_after_resumes(tmp_path: Path, name: str) -> None:
    """A loader of validation data that is iterated changed the order and the dropout of the training."""
    whole, cut = whole_and_cut(tmp_path, EVALUATIONS[name])
    assert cut == whole
    never = run(tmp_path / "never", evaluated(lambda: VAL, lambda *_: None, batch_size=2))
    assert [(step, batch, body[0]) for step, batch, body in never[:-1]] == [
        (step, batch, body[0]) for step, batch, body in whole[:-1]
    ]


def begun_anew(stream: Any) -> Iterator[Any]:
    while True:
        yield from stream


def two_streams(passes: Callable[[Any], Iterator[Any]], *, shuffle: bool = True) -> Callable[[], Made]:
    def make() -> Made:
        held: list[Iterator[Any]] = []

        def opened(progress: TrainingProgressContext) -> None:
            held.append(passes(progress.loader(MORE, name="more", batch_size=2, shuffle=shuffle)))

        return Made(ROWS, {"batch_size": 3}, body=lambda progress, step, batch: next(held[0]), opened=opened)

    return make


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_shorter_stream_begins_anew_and_goes_on_at_its_place(tmp_path: Path, shuffle: bool) -> None:
    whole, cut = whole_and_cut(tmp_path, two_streams(begun_anew, shuffle=shuffle))
    assert cut == whole


def test_a_stream_that_is_repeated_from_memory_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """itertools.cycle never asks the loader again, so a resume gives other batches than the run without one."""
    model = nn.Linear(1, 1)
    with training_progress_context({}, tmp_path / "many", TOTAL, state={"model": model}, database=False) as progress:
        progress.loader(ROWS, batch_size=2)
        more = itertools.cycle(progress.loader(MORE, name="more", batch_size=2))
        for _ in progress.steps():
            next(more)
            progress.save_checkpoint()
    said = [each for each in caplog.messages if "has given no batch since the last checkpoint" in each]
    assert len(said) == 1


def test_streams_that_move_on_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(1, 1)
    with training_progress_context({}, tmp_path, TOTAL, state={"model": model}, database=False) as progress:
        progress.loader(ROWS, batch_size=2)
        more = begun_anew(progress.loader(MORE, name="more", batch_size=2))
        for _ in progress.steps():
            next(more)
            progress.save_checkpoint()
        progress.save_checkpoint()
    assert "has given no batch" not in caplog.text


def test_another_split_in_each_start_is_refused(tmp_path: Path) -> None:
    """Split without a seed, the rows of the validation came into the training after a restart."""

    def start(seed: int) -> None:
        parts = random_split(TensorDataset(torch.arange(40.0)[:, None]), [30, 10], torch.Generator().manual_seed(seed))
        with training_progress_context({}, tmp_path, 4, state={"model": nn.Linear(1, 1)}, database=False) as progress:
            progress.loader(parts[0], batch_size=2)
            progress.loader(parts[1], evaluates=True)
            for step, _ in progress.steps():
                if step == 1:
                    progress.stop()

    start(1)
    with pytest.raises(DriftBlocked, match=r"data\.record"):
        start(2)


def test_a_loader_for_each_epoch_continues_in_its_own(tmp_path: Path) -> None:
    """Scripts that make the loader anew in each epoch began the epoch anew after a resume."""

    def train(until: int) -> list[Any]:
        seen = []
        with training_progress_context({}, tmp_path / str(until), 9, state={"model": nn.Linear(1, 1)}) as progress:
            while progress.current_step < progress.total_steps and seen[-1:] != ["left"]:
                loader: Any = progress.loader(Subset(ROWS, range(9)), batch_size=3)  # type: ignore[arg-type]
                for step, batch in itertools.islice(progress.steps(), len(loader)):
                    seen.append((step, plain(batch)))
                    if step == until:
                        progress.stop()
                        seen.append("left")
        return [each for each in seen if each != "left"]

    assert train(4) + train(4) == train(9)
