"""Loaders that keep their own position: loaded before they begin, right at the second and third resume too."""

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset as HubDataset
from datasets import concatenate_datasets, interleave_datasets
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.trainhooks.pytorch.datasets import Stream, noise
from trainhooks.errors import PositionInvalid
from trainhooks.pytorch.data.foreign import ForeignLoader
from trainhooks.pytorch.data.iterable import IterableLoader
from trainhooks.pytorch.data.source import Loader, make_loader

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 with torch 2.13


def hub_stream() -> Any:
    rows = HubDataset.from_dict({"id": list(range(40))})
    return rows.to_iterable_dataset(num_shards=4)


def shuffled(number: int) -> Any:
    rows = HubDataset.from_dict({"id": list(range(40 * number, 40 * number + 40))})
    return rows.to_iterable_dataset(num_shards=4).shuffle(seed=3, buffer_size=10)


def renamed() -> Any:
    """Has other columns, to be joined with side by side."""
    rows = HubDataset.from_dict({"other": list(range(40))})
    return rows.to_iterable_dataset(num_shards=4).shuffle(seed=4, buffer_size=10)


JOINED: dict[str, Callable[[], Any]] = {
    "interleaved": lambda: interleave_datasets([shuffled(0), shuffled(1)]),
    "one-shuffled": lambda: interleave_datasets([hub_stream(), shuffled(1)]),
    "probabilities": lambda: interleave_datasets([shuffled(0), shuffled(1)], probabilities=[0.3, 0.7], seed=5),
    "all-exhausted": lambda: interleave_datasets([shuffled(0), hub_stream()], stopping_strategy="all_exhausted"),
    "concatenated": lambda: concatenate_datasets([shuffled(0), shuffled(1)]),
    "side-by-side": lambda: concatenate_datasets([shuffled(1), renamed()], axis=1),
    "nested": lambda: concatenate_datasets([interleave_datasets([hub_stream(), shuffled(1)]), hub_stream()]),
    "mapped": lambda: interleave_datasets([shuffled(0).map(as_it_is), hub_stream()]).filter(is_kept).take(50),
    "repeated": lambda: interleave_datasets([shuffled(0).repeat(2), hub_stream()]).skip(3),
    "joined-then-shuffled": lambda: interleave_datasets([hub_stream(), hub_stream()]).shuffle(seed=2, buffer_size=9),
}
"""Streams that are joined, of which one at least was shuffled through a buffer."""


def as_it_is(row: Any) -> Any:
    return row


def is_kept(row: Any) -> bool:
    return bool(row["id"] % 5)


def stateful_loader(workers: int = 0) -> Any:
    return StatefulDataLoader(list(range(40)), batch_size=3, shuffle=True, num_workers=workers)


# torchdata's loaders are taken over now; those that earlier checkpoints are of are used as they are.
SOURCES: dict[str, Callable[[], Loader]] = {
    "torchdata": lambda: ForeignLoader(stateful_loader(), seed=1),
    "torchdata-workers": lambda: ForeignLoader(stateful_loader(2), seed=1),
    "hub-stream": lambda: make_loader(hub_stream(), seed=1),
    "hub-stream-batched": lambda: make_loader(hub_stream().batch(3), seed=1),
    "hub-stream-loaded": lambda: make_loader(hub_stream(), seed=1, batch_size=3),
    "hub-stream-workers": lambda: make_loader(hub_stream(), seed=1, batch_size=3, num_workers=2),
    "hub-stream-shuffled": lambda: make_loader(
        hub_stream().shuffle(seed=3, buffer_size=10), seed=1, batch_size=3, replays=True
    ),
}


def take(loader: Loader, count: int) -> list[Any]:
    """Return the next batches, over the ends of epochs, as a session's loop takes them."""
    batches: list[Any] = []
    while len(batches) < count:
        for batch in loader:
            ids = batch["id"] if isinstance(batch, dict) else batch
            batches.append(ids.tolist() if isinstance(ids, torch.Tensor) else ids)
            if len(batches) == count:
                break
    return batches


def seed_everything() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


@pytest.mark.parametrize("source", SOURCES)
def test_three_resumes_equal_none(source: str) -> None:
    """datasets#8308 restarts at the second resume, prime-rl#3332 at the first, data#1437 loses an epoch at its end."""
    seed_everything()
    expected = take(SOURCES[source](), 60)
    length = next((at for at, batch in enumerate(expected) if batch == expected[0] and at), 14)
    for first in (1, 5, length - 1, length):
        got, state = list[Any](), None
        seed_everything()
        for count in (first, 4, 3, 60 - first - 7):
            loader = SOURCES[source]()
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)) if "torchdata" not in source else state)
            got += take(loader, count)
            state = loader.state_dict()
        assert got == expected, first


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("joined", JOINED)
def test_streams_joined_from_shuffled_ones_are_read_up_to_the_place(joined: str, workers: int) -> None:
    """datasets#7901: the state of the joined stream leaves the buffers out, so other samples came."""

    def make() -> Loader:
        return make_loader(JOINED[joined](), seed=1, batch_size=3, num_workers=workers)

    expected = take(make(), 30)
    for first in (1, 9):
        got, state = list[Any](), None
        for count in (first, 8, 21 - first):
            loader = make()
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
            got += take(loader, count)
            state = loader.state_dict()
        assert got == expected[: len(got)], first


@pytest.mark.parametrize("joined", JOINED)
def test_a_joined_stream_that_is_lossy_is_known_as_that(joined: str) -> None:
    assert isinstance(make_loader(JOINED[joined](), seed=1), IterableLoader)
    lossless = interleave_datasets([hub_stream(), hub_stream()])
    assert isinstance(make_loader(lossless, seed=1), ForeignLoader), "no buffer: its own state will do"


@pytest.mark.parametrize("workers", [0, 2])
def test_making_an_iterator_draws_nothing_from_the_training(workers: int) -> None:
    loader = ForeignLoader(stateful_loader(workers), seed=1)
    seed_everything()
    before = noise()
    seed_everything()
    take(loader, 2)
    assert noise() == before


def test_the_position_of_another_kind_of_loader_is_refused() -> None:
    state = ForeignLoader(stateful_loader(), seed=1).state_dict()
    with pytest.raises(PositionInvalid, match="StatefulDataLoader"):
        make_loader(hub_stream(), seed=1).load_state_dict(state)
    with pytest.raises(PositionInvalid, match="map"):
        make_loader(hub_stream(), seed=1).load_state_dict(make_loader([1], seed=1).state_dict())


def test_a_loader_that_gives_nothing_is_reported_and_not_waited_for() -> None:
    empty = StatefulDataLoader(Stream(0), batch_size=3)
    for loader in (make_loader(empty, seed=1), ForeignLoader(empty, seed=1)):
        with pytest.raises(PositionInvalid, match="no batch"):
            take(loader, 1)


@pytest.mark.parametrize("source", SOURCES)
def test_an_iteration_that_is_left_is_continued_by_the_next(source: str) -> None:
    seed_everything()
    expected = take(SOURCES[source](), 60)
    seed_everything()
    loader = SOURCES[source]()
    assert [batch for count in (5, 1, 14, 40) for batch in take(loader, count)] == expected
