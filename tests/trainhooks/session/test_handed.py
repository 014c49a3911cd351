"""A batch that a wrapper took and no loop saw is no step: it is not counted, and comes again."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from trainhooks import training_progress_context
from trainhooks.errors import CheckpointFailed

ROWS = [torch.tensor([float(each)]) for each in range(20)]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(ROWS)


class Foreign:
    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[Any]:
        while self.at < len(ROWS):
            self.at += 1
            yield ROWS[self.at - 1]
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def sampled() -> DataLoader[Any]:
    return DataLoader(ROWS, sampler=WeightedRandomSampler([1.0] * 20, 6), batch_size=1)  # type: ignore[arg-type]


SOURCES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "map": lambda: (ROWS, {"batch_size": 3}),
    "sampled": lambda: (sampled(), {}),
    "iterable": lambda: (Stream(), {"batch_size": 2}),
    "workers": lambda: (Stream(), {"batch_size": 2, "num_workers": 2}),
}


def run(out: Path, source: str, loop: Callable[[Any, list[Any]], None]) -> list[Any]:
    """One attempt; returns what its loop saw."""
    seen: list[Any] = []
    data, options = SOURCES[source]()
    with training_progress_context({}, out, 9, state={"model": nn.Linear(1, 1)}, database=False) as progress:
        progress.loader(data, **options)
        loop(progress, seen)
    return seen


def whole(progress: Any, seen: list[Any]) -> None:
    for step, batch in progress.steps():
        seen.append((step, batch.flatten().tolist()))


def zipped(progress: Any, seen: list[Any]) -> None:
    for (step, batch), _ in zip(progress.steps(), range(3)):  # noqa: B905
        seen.append((step, batch.flatten().tolist()))
    progress.save_checkpoint()


def held(progress: Any, seen: list[Any]) -> None:
    steps = progress.steps()
    for (step, batch), _ in zip(steps, range(3)):  # noqa: B905
        seen.append((step, batch.flatten().tolist()))
    progress.save_checkpoint()


def asked(progress: Any, seen: list[Any]) -> None:
    """Saves in the last step that it sees, which ends when zip asks for one more."""
    for (step, batch), number in zip(progress.steps(), range(3)):  # noqa: B905
        seen.append((step, batch.flatten().tolist()))
        if number == 2:
            progress.save_checkpoint()


def sliced(progress: Any, seen: list[Any]) -> None:
    for step, batch in itertools.islice(progress.steps(), 3):
        seen.append((step, batch.flatten().tolist()))
    progress.save_checkpoint()


def by_place(progress: Any, seen: list[Any]) -> None:
    for pair in itertools.islice(progress.steps(), 3):
        number, batch = pair[0], pair[1]
        seen.append((number, batch.flatten().tolist()))
    progress.save_checkpoint()


@pytest.mark.parametrize("loop", [zipped, held, asked, sliced, by_place], ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("source", SOURCES)
def test_a_batch_that_no_loop_saw_comes_again(tmp_path: Path, source: str, loop: Any) -> None:
    expected = run(tmp_path / "whole", source, whole)
    seen = run(tmp_path / "run", source, loop)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert seen + run(tmp_path / "run", source, whole) == expected


@pytest.mark.parametrize("source", SOURCES)
def test_it_comes_again_in_the_same_process_too(tmp_path: Path, source: str) -> None:
    def twice(progress: Any, seen: list[Any]) -> None:
        zipped(progress, seen)
        zipped(progress, seen)
        whole(progress, seen)

    assert run(tmp_path / "run", source, twice) == run(tmp_path / "whole", source, whole)


def recorded(progress: Any, seen: list[Any]) -> None:
    """What is recorded behind the loop, under the number of finished steps, is no sign that the batch was used."""
    zipped_alone(progress, seen)
    progress.update_metrics(3, val_loss=1.0)
    progress.save_checkpoint()


def flushed(progress: Any, seen: list[Any]) -> None:
    """A last optimizer step behind the loop, for what its accumulation window had gathered, is none either."""
    zipped_alone(progress, seen)
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], lr=0.1).step()
    progress.save_checkpoint()


def zipped_alone(progress: Any, seen: list[Any]) -> None:
    for (step, batch), _ in zip(progress.steps(), range(3)):  # noqa: B905
        seen.append((step, batch.flatten().tolist()))


@pytest.mark.parametrize("loop", [recorded, flushed], ids=lambda loop: loop.__name__)
def test_what_is_done_behind_the_loop_does_not_make_it_a_step(tmp_path: Path, loop: Any) -> None:
    expected = run(tmp_path / "whole", "map", whole)
    seen = run(tmp_path / "run", "map", loop)
    assert seen + run(tmp_path / "run", "map", whole) == expected


def test_a_batch_that_was_dropped_comes_again_in_its_own_stream(tmp_path: Path) -> None:
    """It was given as a batch of the stream that the next `steps()` names."""

    def streams(out: Path, *, is_cut: bool) -> list[list[float]]:
        seen = []
        with training_progress_context({}, out, 9, state={"model": nn.Linear(1, 1)}, database=False) as progress:
            some = progress.loader(ROWS, name="some", batch_size=2, shuffle=False)
            more = progress.loader([row + 100 for row in ROWS], name="more", batch_size=2, shuffle=False)
            parts = [(some, 3), (more, 3), (some, 3)] if progress.current_step == 0 else [(some, 3)]
            for loader, count in parts[: 2 if is_cut else 3]:
                for (_, batch), _ in zip(progress.steps(loader), range(count)):  # noqa: B905
                    seen.append(batch.flatten().tolist())
            progress.save_checkpoint()
        return seen

    expected = streams(tmp_path / "whole", is_cut=False)
    assert expected == [[at, at + 1] for at in (0.0, 2.0, 4.0, 100.0, 102.0, 104.0, 6.0, 8.0, 10.0)]
    assert streams(tmp_path / "cut", is_cut=True) + streams(tmp_path / "cut", is_cut=False) == expected


def test_where_the_loader_cannot_go_back_no_checkpoint_leaves_the_batch_out(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 9, state={"model": nn.Linear(1, 1)}, database=False) as progress:
        progress.loader(Foreign())
        seen: list[Any] = []
        with pytest.raises(CheckpointFailed, match="Put steps"):
            zipped(progress, seen)
        whole(progress, seen)
    assert [batch for _, batch in seen] == [[float(each)] for each in range(9)]


def test_what_the_loop_gets_is_a_pair() -> None:
    from trainhooks.session.handed import Handed

    pair = Handed(3, "batch")
    assert (isinstance(pair, tuple), pair.is_seen) == (True, False)
    assert pair == (3, "batch")
    assert not pair.is_seen
    for look in (
        tuple,
        list,
        lambda pair: pair[0],
        lambda pair: pair[-1],
        lambda pair: [*pair],
        lambda pair: next(iter(pair)),
    ):
        pair = Handed(3, "batch")
        look(pair)
        assert pair.is_seen
