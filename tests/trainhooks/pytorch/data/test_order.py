"""Whose order a DataLoader's is: the session's, that of its sampler, or that of its generator's seed."""

import json
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset as HubDataset
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader  # type: ignore[import-untyped]

from tests.trainhooks.pytorch.datasets import Noisy, StatefulStream, Stream, noise, plain
from tests.trainhooks.pytorch.samplers import Buckets
from trainhooks.pytorch.data.foreign import ForeignLoader
from trainhooks.pytorch.data.loader import PositionedLoader
from trainhooks.pytorch.data.source import Loader, as_it_was, make_loader

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 with torch 2.13

LENGTH = 23
DATA = Noisy(LENGTH)
WEIGHTS = [float(index % 3) + 0.1 for index in range(LENGTH)]


def take(loader: Loader, count: int) -> list[Any]:
    """Return the next batches, over the ends of epochs, as a session's loop takes them."""
    batches: list[Any] = []
    while len(batches) < count:
        for batch in loader:
            batches.append(plain(batch.values() if isinstance(batch, dict) else batch))
            if len(batches) == count:
                break
    return batches


def test_batches_of_a_known_sampler_are_those_of_the_session_s_order() -> None:
    """Before, a batch_sampler that was a plain BatchSampler was taken for single samples in order."""
    theirs = DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 5, True))
    loader = make_loader(theirs, seed=1)
    assert isinstance(loader, PositionedLoader)
    assert loader.shuffle
    assert take(loader, 9) == take(make_loader(DATA, seed=1, batch_size=5, drop_last=True), 9)


def test_a_sampler_over_a_part_of_the_data_takes_that_part() -> None:
    """Before, all of it was trained on."""
    part: Any = DistributedSampler(TensorDataset(torch.arange(6)), num_replicas=1, rank=0)
    for sampler in (SequentialSampler(range(6)), RandomSampler(range(6)), part):
        ids = [index for ids, _ in take(make_loader(DataLoader(DATA, sampler=sampler), seed=1), 6) for index in ids]
        assert sorted(ids) == list(range(6))


def hub_rows(buffer: int) -> Any:
    rows = HubDataset.from_dict({"id": list(range(LENGTH))}).to_iterable_dataset(num_shards=4)
    return (rows.shuffle(seed=3, buffer_size=buffer) if buffer else rows).map(augmented)


def augmented(row: Any) -> Any:
    return {"id": row["id"], "noise": noise()}


STATEFUL: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "weighted": lambda: (Noisy(LENGTH), {"sampler": WeightedRandomSampler(WEIGHTS, LENGTH), "batch_size": 4}),
    "replacement": lambda: (Noisy(LENGTH), {"sampler": RandomSampler(DATA, replacement=True), "batch_size": 4}),
    "buckets": lambda: (Noisy(LENGTH), {"batch_sampler": Buckets(LENGTH)}),
    "shuffled": lambda: (Noisy(LENGTH), {"shuffle": True, "batch_size": 4}),
    "in-order": lambda: (Noisy(LENGTH), {"batch_size": 4}),
    "stream": lambda: (Stream(LENGTH), {"batch_size": 4}),
    "stream-with-state": lambda: (StatefulStream(LENGTH), {"batch_size": 4}),
    "hub": lambda: (hub_rows(0), {"batch_size": 4}),
    "hub-shuffled": lambda: (hub_rows(7), {"batch_size": 4}),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_stateful_loader_is_taken_over_and_exact_too(name: str, workers: int) -> None:
    """Its own state knows neither in-place shuffles and buffers nor the random numbers in its workers."""

    def make() -> Loader:
        data, options = STATEFUL[name]()
        return make_loader(StatefulDataLoader(data, num_workers=workers, **options), seed=1)

    expected = take(make(), 17)
    for at in (1, 6, 8):
        first, second = make(), make()
        random.seed(at)
        torch.manual_seed(at)
        take(first, at)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert take(second, 17 - at) == expected[at:]


def test_a_stateful_loader_continues_as_it_is_at_a_place_of_an_earlier_release() -> None:
    source = StatefulDataLoader(DATA, batch_size=4, shuffle=True)
    loader = make_loader(source, seed=1)
    assert isinstance(loader, PositionedLoader)
    place = ForeignLoader(source, seed=1).state_dict()
    assert isinstance(as_it_was(source, loader, place, seed=1, world=1), ForeignLoader)
    assert as_it_was(source, loader, loader.state_dict(), seed=1, world=1) is loader


def test_the_generator_of_a_loader_decides_its_order() -> None:
    def ids(seed: int | None) -> Any:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return [batch[0] for batch in take(make_loader(DataLoader(DATA, shuffle=True, generator=generator), seed=1), 9)]

    assert ids(3) == ids(3)
    assert len({json.dumps(each) for each in (ids(3), ids(4), ids(None))}) == 3


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": SubsetRandomSampler(range(20))}])
def test_a_run_keeps_its_order_where_the_generator_is_seeded_otherwise(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def make(seed: int) -> Loader:
        generator = torch.Generator().manual_seed(seed)
        given = dict(options)
        if "sampler" in given:
            given["sampler"] = SubsetRandomSampler(range(20), generator)
        return make_loader(DataLoader(DATA, batch_size=3, generator=generator, **given), seed=1)

    expected = take(make(3), 12)
    first, second = make(3), make(4)
    take(first, 5)
    with caplog.at_level(logging.WARNING, "trainhooks"):
        second.load_state_dict(first.state_dict())
    assert take(second, 7) == expected[5:]
    assert "keeps its own order" in caplog.text


def test_a_position_of_an_earlier_release_keeps_the_order_that_it_counts_in() -> None:
    plainly = make_loader(DATA, seed=1, batch_size=3)
    expected = take(plainly, 6)
    fresh = make_loader(DATA, seed=1, batch_size=3)
    take(fresh, 2)
    state = fresh.state_dict()
    del state["generator"]
    loader = make_loader(
        DataLoader(DATA, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(7)), seed=1
    )
    loader.load_state_dict(state)
    assert take(loader, 4) == expected[2:]
