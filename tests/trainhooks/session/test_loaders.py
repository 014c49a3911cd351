"""Several loaders in one training: none is taken for another, and each goes on where it was."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler, random_split

from trainhooks import TrainingProgressContext, read_metrics, training_progress_context
from trainhooks.errors import ConfigInvalid, DriftBlocked, PositionInvalid

TOTAL = 12
TRAIN = [torch.full((2,), float(row)) for row in range(10)]
VAL = [torch.full((2,), 100.0 + row) for row in range(7)]
EXTRA = [torch.full((2,), 200.0 + row) for row in range(9)]


def opened(out: Path, total: int = TOTAL) -> Any:
    model = nn.Linear(2, 1)
    return training_progress_context({"seed": 3}, out, total, state={"model": model}, database=False)


def seen(batch: torch.Tensor) -> list[int]:
    return [int(row[0]) for row in batch]


class Numbers(IterableDataset[int]):
    """Of no length, no revision: nothing tells one from another."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.first + 8))


def test_a_second_source_without_a_declaration_is_refused_with_every_spelling(tmp_path: Path) -> None:
    with opened(tmp_path) as progress:
        progress.loader(TRAIN, batch_size=2)
        with pytest.raises(ConfigInvalid, match="nothing says what") as refused:
            progress.loader(VAL, batch_size=2)
        for spelling in ("evaluates=True", "name=", "replaces=True"):
            assert spelling in refused.value.hint
        assert [seen(batch)[0] < 100 for _, batch in progress.steps()] == [True] * TOTAL


@pytest.mark.parametrize("first", ["train", "val"])
def test_an_evaluation_beside_the_training_is_not_trained_on(tmp_path: Path, first: str) -> None:
    with opened(tmp_path) as progress:
        if first == "train":
            progress.loader(TRAIN, batch_size=2)
        val = progress.loader(VAL, evaluates=True, batch_size=3)
        if first == "val":
            progress.loader(TRAIN, batch_size=2)
        for step, batch in progress.steps():
            assert all(row < 100 for row in seen(batch))
            if step % 4 == 3:
                with progress.evaluating():
                    assert [row for part in val for row in seen(part)] == [100 + row for row in range(7)]
        assert len(val) == 3


def test_an_evaluation_that_is_cut_short_begins_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as progress:
        val = progress.loader(VAL, evaluates=True, batch_size=3)
        assert seen(next(iter(val))) == [100, 101, 102]
        assert [seen(part) for part in val] == [[100, 101, 102], [103, 104, 105], [106]]


def test_within_evaluating_no_loader_becomes_the_trainings(tmp_path: Path) -> None:
    with opened(tmp_path) as progress:
        progress.loader(TRAIN, batch_size=2)
        for step, batch in progress.steps():
            assert seen(batch)[0] < 100
            if step == 1:
                with progress.evaluating():
                    assert len([*progress.loader(VAL)]) == 7
                    assert len([*progress.loader(EXTRA)]) == 9


class Noisy(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(1) + index


def evaluations(out: Path, *, stop_after: int | None, source: Any) -> list[Any]:
    """Evaluate after every second step; return what each evaluation saw, and what the training drew beside it."""
    found = []
    torch.manual_seed(5)
    with opened(out) as progress:
        progress.loader(TRAIN, batch_size=2)
        val = progress.loader(
            source(), evaluates=True, **({} if isinstance(source(), DataLoader) else {"batch_size": 2})
        )
        for step, _ in progress.steps():
            drawn = float(torch.rand(1))
            if step % 2:
                found.append((step, drawn, [part.tolist() for part in val]))
            if stop_after is not None and step == stop_after:
                progress.save_checkpoint()
                break
    return found


def weighted() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=2, sampler=WeightedRandomSampler([1.0, 2, 3, 4, 5, 6], 6))


@pytest.mark.parametrize("source", [Noisy, weighted])
def test_a_resumed_training_evaluates_on_what_an_uninterrupted_one_does(tmp_path: Path, source: Any) -> None:
    whole = evaluations(tmp_path / "whole", stop_after=None, source=source)
    cut = evaluations(tmp_path / "cut", stop_after=5, source=source)
    rest = evaluations(tmp_path / "cut", stop_after=None, source=source)
    assert cut + rest == whole
    assert len({str(each[2]) for each in whole}) == len(whole)  # each pass has noise of its own


def two_streams(out: Path, stop_after: int | None) -> list[tuple[list[int], list[int]]]:
    found = []
    with opened(out) as progress:
        labelled = progress.loader(TRAIN, batch_size=2, name="labelled")
        unlabelled = progress.loader(EXTRA, batch_size=2, name="unlabelled")
        with pytest.raises(ConfigInvalid, match="2 streams"):
            next(progress.steps())
        more = iter(unlabelled)
        for step, batch in progress.steps(labelled):
            other = next(more, None)
            if other is None:
                more = iter(unlabelled)
                other = next(more)
            found.append((seen(batch), seen(other)))
            if step == stop_after:
                progress.save_checkpoint()
                break
    return found


@pytest.mark.parametrize("stop_after", [0, 4, 7])
def test_each_of_two_streams_continues_at_its_own_place(tmp_path: Path, stop_after: int) -> None:
    whole = two_streams(tmp_path / "whole", None)
    assert {row for _, other in whole for row in other} <= {200 + row for row in range(9)}
    assert two_streams(tmp_path / "cut", stop_after) + two_streams(tmp_path / "cut", None) == whole


def staged(out: Path, stop_after: int | None) -> list[list[int]]:
    """Train on one set for 5 steps and on another from there on."""
    found = []

    def loop(progress: TrainingProgressContext, until: int) -> bool:
        for step, batch in progress.steps():
            found.append(seen(batch))
            if step == stop_after:
                progress.save_checkpoint()
                return True
            if step + 1 == until:
                progress.save_checkpoint()
                return False
        return False

    with opened(out) as progress:
        if progress.current_step < 5:
            progress.loader(TRAIN, batch_size=2)
            if loop(progress, 5):
                return found
        progress.loader(EXTRA, batch_size=2, replaces=True)
        loop(progress, TOTAL)
    return found


@pytest.mark.parametrize("stop_after", [2, 4, 5, 8])
def test_staged_data_continues_in_its_stage(tmp_path: Path, stop_after: int) -> None:
    whole = staged(tmp_path / "whole", None)
    assert [batch[0] >= 200 for batch in whole] == [False] * 5 + [True] * (TOTAL - 5)
    assert staged(tmp_path / "cut", stop_after) + staged(tmp_path / "cut", None) == whole


def test_data_of_an_earlier_stage_is_refused(tmp_path: Path) -> None:
    same_length = [row + 50 for row in TRAIN]
    with opened(tmp_path) as progress:
        progress.loader(TRAIN, batch_size=2)
        progress.loader(same_length, batch_size=2, replaces=True)
        for step, _ in progress.steps():
            if step == 3:
                progress.save_checkpoint()
                break
    with opened(tmp_path) as progress, pytest.raises(PositionInvalid, match="replaced"):
        progress.loader(TRAIN, batch_size=2)


def test_streams_that_nothing_distinguishes_need_names(tmp_path: Path) -> None:
    with opened(tmp_path) as progress:
        progress.loader(Numbers(0), batch_size=2)
        with pytest.raises(ConfigInvalid, match="nothing says what"):
            progress.loader(Numbers(8), batch_size=2)
        with pytest.raises(ConfigInvalid, match="could not be distinguished") as refused:
            progress.loader(Numbers(8), batch_size=2, replaces=True)
        assert "name=" in refused.value.hint


@pytest.mark.parametrize("again", [lambda: TRAIN, lambda: [row.clone() for row in TRAIN], lambda: DataLoader(TRAIN)])
def test_a_cell_that_is_run_again_replaces_and_continues(tmp_path: Path, again: Any) -> None:
    given = []
    with opened(tmp_path) as progress:
        for _ in range(3):
            progress.loader(again(), **({} if isinstance(again(), DataLoader) else {"shuffle": False}))
            for step, batch in progress.steps():
                given += seen(batch)
                if step % 4 == 3:
                    progress.save_checkpoint()
                    break
    assert given == [*range(10), 0, 1]


def test_two_halves_of_one_split_are_two_sources(tmp_path: Path) -> None:
    train, val = random_split(TRAIN, [5, 5])  # type: ignore[arg-type]
    with opened(tmp_path) as progress:
        progress.loader(train, batch_size=2)
        with pytest.raises(ConfigInvalid, match="nothing says what"):
            progress.loader(val, batch_size=2)


def test_steps_takes_a_loader_of_the_training_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as progress:
        val = progress.loader(VAL, evaluates=True)
        with pytest.raises(ConfigInvalid, match="no data but that of an evaluation"):
            next(progress.steps())
        progress.loader(TRAIN)
        for wrong in (val, DataLoader(TRAIN)):
            with pytest.raises(ConfigInvalid, match="does not feed"):
                next(progress.steps(wrong))  # type: ignore[arg-type]


def test_another_evaluation_set_is_warned_of_and_another_training_set_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def attempt(train: Any, val: Any, until: int) -> None:
        with opened(tmp_path) as progress:
            progress.loader(val, evaluates=True)
            progress.loader(train, batch_size=2)
            for step, _ in progress.steps():
                if step == until:
                    progress.save_checkpoint()
                    break

    attempt(TRAIN, VAL, 2)
    attempt(TRAIN, VAL[:5], 4)
    assert "evaluation.evaluation.length was 7 and is 5" in caplog.text
    with pytest.raises(DriftBlocked, match=r"data\.length was 10 and is 9"):
        attempt(TRAIN[:9], VAL, 6)
    assert len([*read_metrics(tmp_path)]) > 0


def test_a_checkpoint_of_a_release_with_one_stream_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainhooks.session.feed import Feed

    state = Feed.state

    def train(until: int) -> list[int]:
        given = []
        with opened(tmp_path) as progress:
            progress.loader(TRAIN, batch_size=2)
            for step, batch in progress.steps():
                given += seen(batch)
                if step == until:
                    progress.save_checkpoint()
                    break
        return given

    monkeypatch.setattr(Feed, "state", lambda self: {"loader": state(self)["loader"]})
    first = train(1)
    monkeypatch.undo()
    assert sorted(first + train(4)) == [*range(10)]


def test_a_closed_session_keeps_no_loader(tmp_path: Path) -> None:
    """Left to the garbage collector, a loader whose workers persist stood still for 5 seconds a worker."""

    def train() -> tuple[Any, list[weakref.ref[Any]]]:
        with opened(tmp_path) as progress:
            loaders = [progress.loader(TRAIN, batch_size=2), progress.loader(VAL, evaluates=True)]
            assert [*loaders[1]]
            for step, _ in progress.steps():
                if step == 3:
                    break
        return progress, [weakref.ref(each) for each in loaders]

    gc.disable()
    try:
        _, loaders = train()
        assert [each() for each in loaders] == [None, None]
    finally:
        gc.enable()
