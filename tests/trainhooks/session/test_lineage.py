"""What a session records of where its batches came from, for each kind of data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from trainhooks import lineage, read_lineage, training_progress_context
from trainhooks.core.lineage import StepLineage
from trainhooks.errors import ConfigInvalid
from trainhooks.session.feed import Feed

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 with torch 2.13

SAMPLES, STEPS = 10, 6


def key(number: int) -> str:
    return f"{number:064x}"


def rows() -> list[dict[str, Any]]:
    """As `kdproxy export --format chat` has them, and a sample that no teacher had a part in."""
    told = [{"id": f"s{number}", "key": key(number), "ordinal": number % 2} for number in range(SAMPLES)]
    return [*told[:-1], {**told[-1], "key": ""}]


def expected(number: int) -> Any:
    return () if number == SAMPLES - 1 else ((key(number), number % 2),)


class Shards(IterableDataset[Any]):
    """Rows, shared out to the workers."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        return iter(rows()[0 if info is None else info.id :: 1 if info is None else info.num_workers])


def recorded(out: Path, source: Any, **options: Any) -> tuple[list[StepLineage], list[Any]]:
    """Train over the data; returns what the steps' lineage says, and the batches that the loop got."""
    batches = []
    with training_progress_context({}, out, STEPS) as progress:
        progress.loader(source, **options)
        for step, batch in progress.steps():
            batches.append(batch)
            if step % 2:
                progress.update_metrics(step, loss=0.5)
    return list(read_lineage(out).steps.values()), batches


class OneOfTheUsers:
    """A loader with a state of its own, which is used as it is."""

    def __init__(self, data: Any, **options: Any) -> None:
        self.inner = StatefulDataLoader(data, **options)
        self.state_dict, self.load_state_dict = self.inner.state_dict, self.inner.load_state_dict

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["map", "loader", "iterable", "stateful"])
def test_each_samples_own_key_and_ordinal(tmp_path: Path, kind: str, workers: int) -> None:
    options: Any = {"batch_size": 4, "num_workers": workers}
    match kind:
        case "map":
            steps, batches = recorded(tmp_path, rows(), **options)
        case "loader":
            steps, batches = recorded(tmp_path, DataLoader(rows(), shuffle=True, **options))  # type: ignore[arg-type]
        case "iterable":
            steps, batches = recorded(tmp_path, Shards(), **options)
        case _:
            steps, batches = recorded(tmp_path, OneOfTheUsers(rows(), shuffle=True, **options))
    assert len(steps) == len(batches) == STEPS
    for found, batch in zip(steps, batches, strict=True):
        numbers = [int(each[1:]) for each in batch["id"]]
        assert (found.keys or ((),)) == tuple(map(expected, numbers)), "None where no sample of the batch has any"
        match kind:
            case "iterable":
                assert found.worker is not None
                mine = range(found.worker, SAMPLES, max(1, workers))
                assert [mine[each] for each in found.ids or () if isinstance(each, int)] == numbers
            case "stateful":
                assert found.ids == tuple(batch["id"])
            case _:
                assert found.ids == tuple(numbers)
    assert {found.epoch for found in steps} == {0, 1}


def test_what_the_data_does_not_name_is_unknown(tmp_path: Path) -> None:
    steps, batches = recorded(tmp_path / "map", list(range(SAMPLES)), batch_size=4)
    assert [found.ids for found in steps] == [tuple(batch.tolist()) for batch in batches]
    assert [found.keys for found in steps] == [None] * STEPS
    steps, _ = recorded(tmp_path / "foreign", OneOfTheUsers(list(range(SAMPLES)), batch_size=4))
    assert [(found.ids, found.keys) for found in steps] == [(None, None)] * STEPS
    text = (tmp_path / "foreign" / "progress" / "metrics.jsonl").read_text()
    assert text.count('"lineage":{"epoch":0,"ids":"unknown","keys":"unknown"}') == 3


def test_the_row_says_that_other_ranks_had_samples_too() -> None:
    feed = Feed(1)
    feed.open(feed.describe(list(range(SAMPLES))), batch_size=2, shuffle=False, rank=0, world=2)
    given = feed.batches()
    for first in (0, 4):
        batch = next(given)
        assert feed.made_of() == {"lineage": {"epoch": 0, "ids": (first, first + 1), "keys": "unknown", "ranks": 2}}
        assert batch.tolist() == [first, first + 1]


def test_a_loop_with_a_loader_of_its_own_says_it_itself(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, STEPS) as progress:
        progress.record_lineage(["a", "b"], [[lineage.TeacherKey(key(1), None)], []], epoch=3)
        progress.update_metrics(0, loss=0.5)
        progress.record_lineage(None, [[(key(2), 0)]])
        progress.update_metrics(1, loss=0.5)
        progress.record_lineage(["a"])
        progress.update_metrics(2, loss=0.5)
        progress.update_metrics(3, loss=0.5)
    steps = read_lineage(tmp_path).steps
    assert steps[0] == StepLineage(step=0, epoch=3, ids=("a", "b"), keys=(((key(1), None),), ()))
    assert steps[1] == StepLineage(step=1, keys=(((key(2), 0),),))
    assert steps[2] == StepLineage(step=2, ids=("a",))
    assert steps[3] == StepLineage(step=3)


def test_what_is_no_key_or_of_another_length_is_refused(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, STEPS) as progress:
        with pytest.raises(ConfigInvalid, match="'nonsense' is no key"):
            progress.record_lineage([1], [[("nonsense", 0)]])
        with pytest.raises(ConfigInvalid, match="2 ids and keys for 1 samples"):
            progress.record_lineage([1, 2], [[(key(1), 0)]])
        for name in ("lineage", "replay"):
            with pytest.raises(ConfigInvalid, match=f"cannot be called {name}"):
                progress.update_metrics(0, **{name: 0.5})


def test_a_loop_that_goes_back_in_one_attempt_keeps_what_the_superseded_rows_recorded(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, STEPS) as progress:
        for step, sample in ((0, 7), (1, 8), (2, 9)):
            progress.record_lineage([sample], [[(key(sample), 0)]])
            progress.update_metrics(step, loss=0.5)
        progress.resume_at(1)
        progress.record_lineage([9], [[(key(9), 0)]])
        progress.update_metrics(1, loss=0.5)
    found = read_lineage(tmp_path)
    assert [step.keys for step in found.steps.values()] == [(((key(7), 0),),), (((key(9), 0),),)]
    assert found.steps_of_key(key(9)) == [1]


def test_a_late_row_does_not_take_what_the_running_step_is_made_of(tmp_path: Path) -> None:
    """Such as an evaluation's that a thread has finished meanwhile."""
    with training_progress_context({}, tmp_path, 3) as progress:
        progress.loader(rows(), batch_size=2, shuffle=False, collate_fn=list)
        for step, _ in progress.steps():
            if step == 2:
                progress.update_metrics(1, val_loss=0.5)
            progress.update_metrics(step, loss=0.5)
    assert [found.ids for found in read_lineage(tmp_path).steps.values()] == [(0, 1), (2, 3), (4, 5)]
