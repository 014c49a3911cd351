"""Iterable-style data: strict rounds over the workers, and a place that is gone back to again and again."""

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset as HubDataset
from torch.utils.data import IterableDataset

from tests.trainhooks.pytorch.datasets import StatefulStream, Stream, noise, plain
from trainhooks.errors import PositionInvalid
from trainhooks.pytorch.data.iterable import IterableLoader
from trainhooks.pytorch.data.stream import Begin, StreamFetcher, StreamTask

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4")  # this machine may have fewer cores

KINDS = pytest.mark.parametrize("kind", [Stream, StatefulStream])
WORKERS = pytest.mark.parametrize("workers", [0, 2, 4])


def loader(kind: type[Stream], workers: int, length: int = 23, **options: Any) -> IterableLoader:
    return IterableLoader(kind(length), batch_size=3, seed=1, num_workers=workers, **options)


def take(source: IterableLoader, count: int) -> list[Any]:
    """Return the next batches, over the ends of epochs, as a session's loop takes them."""
    batches: list[Any] = []
    while len(batches) < count:
        for batch in source:
            batches.append(plain(batch))
            if len(batches) == count:
                break
    return batches


@KINDS
@WORKERS
def test_continuing_anywhere_and_again_equals_never_stopping(kind: type[Stream], workers: int) -> None:
    expected = take(loader(kind, workers), 20)
    pairs = itertools.product((1, 2, 5, 8, 9, 10), (1, 4, 7)) if workers == 0 else [(1, 4), (8, 1), (9, 7)]
    for first, second in pairs:  # a worker costs a process start
        got, state = list[Any](), None
        for count in (first, second, 20 - first - second):
            each = loader(kind, workers)
            if state is not None:
                each.load_state_dict(json.loads(json.dumps(state)))
            got += take(each, count)
            state = each.state_dict()
        assert got == expected, (first, second)


def rows_of(samples: list[dict[str, int]]) -> list[int]:
    return [sample["row"] for sample in samples]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shuffle_buffer_of_the_hub_is_gone_back_to_by_reading(workers: int) -> None:
    """Its own state leaves the buffer out, and what goes on from there gives other samples."""

    def begin() -> IterableLoader:
        rows = HubDataset.from_dict({"row": list(range(60))}).to_iterable_dataset(num_shards=2)
        return IterableLoader(
            rows.shuffle(seed=1, buffer_size=10).map(dict),
            collate_fn=rows_of,
            batch_size=3,
            seed=1,
            num_workers=workers,
        )

    expected = take(begin(), 30)
    assert len({str(batch) for batch in expected[:20]}) == 20
    first, second = begin(), begin()
    got = take(first, 13)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert got + take(second, 17) == expected


def test_workers_do_not_share_the_epoch_of_a_stream() -> None:
    """`set_epoch` adds a difference in memory that all of them share: two at once would add it twice."""
    stream = HubDataset.from_dict({"row": [1, 2]}).to_iterable_dataset().shuffle(seed=1, buffer_size=2)
    shared = stream._epoch
    assert shared.is_shared(), "the library does otherwise by now: nothing is to be taken apart"
    fetcher = StreamFetcher(
        stream, seed=1, batch_size=1, drop_last=False, collate=rows_of, replays=False, first_stream=0
    )
    fetcher[StreamTask(Begin(3))]
    assert (stream.epoch, int(shared)) == (3, 0)


@KINDS
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_gives_every_sample_once(kind: type[Stream], workers: int) -> None:
    source = loader(kind, workers)
    for _ in range(2):
        assert sorted(number for batch in source for number in plain(batch)[0]) == list(range(23))


def test_epochs_are_the_same_with_workers_that_stay() -> None:
    expected = take(loader(StatefulStream, 2), 20)
    assert take(loader(StatefulStream, 2, persistent_workers=True), 20) == expected


def test_noise_is_new_in_each_epoch() -> None:
    source = loader(Stream, 0)
    first, second = ([plain(batch) for batch in source] for _ in range(2))
    assert [ids for ids, _ in first] == [ids for ids, _ in second]
    assert [noises for _, noises in first] != [noises for _, noises in second]


def test_a_source_with_a_state_is_not_read_again() -> None:
    source = loader(StatefulStream, 0, length=1_000)
    take(source, 100)
    data = StatefulStream(1_000)
    fresh = IterableLoader(data, batch_size=3, seed=1)
    fresh.load_state_dict(source.state_dict())
    take(fresh, 1)
    assert data.asked == 3


def test_a_lossy_source_can_be_read_again_instead() -> None:
    expected = take(loader(StatefulStream, 0), 7)
    source = loader(StatefulStream, 0, replays=True)
    take(source, 4)
    data = StatefulStream(23)
    fresh = IterableLoader(data, batch_size=3, seed=1, replays=True)
    fresh.load_state_dict(source.state_dict())
    assert take(fresh, 3) == expected[4:]
    assert data.asked == 7 * 3


def test_a_short_last_batch_is_kept_or_dropped_per_worker() -> None:
    assert [len(plain(batch)[0]) for batch in loader(Stream, 2)] == [3, 3, 3, 3, 3, 3, 3, 2]
    assert [len(plain(batch)[0]) for batch in loader(Stream, 2, drop_last=True)] == [3] * 7


@pytest.mark.parametrize("workers", [0, 2])
def test_the_trainings_own_generators_are_left_alone(workers: int) -> None:
    def draws(loads: bool) -> list[float]:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        source = loader(Stream, workers) if loads else range(8)
        return [noise(), *(noise() for _ in source)]

    assert draws(loads=True) == draws(loads=False)


class Shuffling(IterableDataset[Any]):
    """Shuffles in its own __iter__, from the global generator."""

    def __iter__(self) -> Iterator[int]:
        numbers = list(range(20))
        random.shuffle(numbers)
        yield from numbers


def test_shuffling_inside_a_source_without_a_state_is_gone_back_to() -> None:
    expected = [batch.tolist() for batch in IterableLoader(Shuffling(), batch_size=2, seed=1)]
    source = IterableLoader(Shuffling(), batch_size=2, seed=1)
    first = [batch.tolist() for _, batch in zip(range(4), source, strict=False)]
    fresh = IterableLoader(Shuffling(), batch_size=2, seed=1)
    fresh.load_state_dict(source.state_dict())
    assert first + [batch.tolist() for batch in fresh] == expected


@pytest.mark.parametrize(("workers", "seed", "name"), [(4, 1, "num_workers"), (2, 2, "seed")])
def test_other_workers_or_another_seed_are_refused(workers: int, seed: int, name: str) -> None:
    state = loader(Stream, 2).state_dict()
    other = IterableLoader(Stream(23), batch_size=3, seed=seed, num_workers=workers)
    with pytest.raises(PositionInvalid, match=name):
        other.load_state_dict(state)


def test_empty_data_is_reported_and_not_waited_for() -> None:
    with pytest.raises(PositionInvalid, match="no batch"):
        take(loader(Stream, 2, length=0), 1)


def test_a_place_after_the_last_batch_leads_to_the_next_epoch() -> None:
    source = loader(StatefulStream, 2)
    expected = take(loader(StatefulStream, 2), 9)
    take(source, 8)  # all of the first epoch; its end has not been met
    fresh = loader(StatefulStream, 2)
    fresh.load_state_dict(source.state_dict())
    assert take(fresh, 1) == expected[8:]
    assert fresh.epoch == 1


def test_the_origin_numbers_samples_in_their_workers_stream() -> None:
    source = loader(Stream, 2)
    for batch in source:
        origin = source.origin
        assert origin is not None
        assert origin.worker is not None
        assert [2 * number + origin.worker for number in origin.ids or ()] == plain(batch)[0]
