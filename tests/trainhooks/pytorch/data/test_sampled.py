"""Loaders in the order of the user's own sampler: interrupted anywhere, they give what they would have given."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset as HubDataset
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler  # type: ignore[import-untyped]

from tests.trainhooks.pytorch.datasets import Counting, Noisy, Stream, noise, plain
from tests.trainhooks.pytorch.samplers import (
    Buckets,
    ByEpoch,
    ByPair,
    Counted,
    Endless,
    ForgetfulState,
    OfRank,
    Pairs,
    Restless,
    TokenBudget,
)
from trainhooks.errors import ConfigInvalid, PositionInvalid
from trainhooks.pytorch.data.evaluation import EvaluationLoader
from trainhooks.pytorch.data.sampled import SampledLoader
from trainhooks.pytorch.data.source import Loader, make_loader

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 with torch 2.13

LENGTH = 23
DATA = Noisy(LENGTH)
WEIGHTS = [float(index % 3) + 0.1 for index in range(LENGTH)]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


SAMPLERS: dict[str, Callable[[], dict[str, Any]]] = {
    "weighted": lambda: {"sampler": WeightedRandomSampler(WEIGHTS, LENGTH), "batch_size": 4},
    "weighted-own-generator": lambda: {
        "sampler": WeightedRandomSampler(WEIGHTS, LENGTH, generator=seeded()),
        "batch_size": 4,
    },
    "subset": lambda: {"sampler": SubsetRandomSampler(range(5, 20)), "batch_size": 4},
    "subset-own-generator": lambda: {"sampler": SubsetRandomSampler(range(5, 20), seeded()), "batch_size": 4},
    "replacement": lambda: {"sampler": RandomSampler(DATA, replacement=True), "batch_size": 4, "drop_last": True},
    "num-samples": lambda: {"sampler": RandomSampler(DATA, num_samples=9), "batch_size": 4},
    "more-than-there-are": lambda: {"sampler": RandomSampler(DATA, num_samples=40), "batch_size": 4},
    "without-batches": lambda: {"sampler": RandomSampler(DATA, num_samples=9), "batch_size": None},
    "bulk": lambda: {"sampler": BatchSampler(Endless(LENGTH), 4, False), "batch_size": None},
    "a-part-in-order": lambda: {"sampler": SequentialSampler(range(9)), "batch_size": 4},
    "batches-of-a-sampler": lambda: {"batch_sampler": BatchSampler(SubsetRandomSampler(range(9)), 4, False)},
    "list": lambda: {"batch_sampler": [[3, 1], [2], [1, 1, 1]]},
    "buckets": lambda: {"batch_sampler": Buckets(LENGTH)},
    "by-epoch": lambda: {"batch_sampler": ByEpoch(LENGTH)},
    "token-budget": lambda: {"batch_sampler": TokenBudget(LENGTH)},
    "endless": lambda: {"sampler": Endless(LENGTH), "batch_size": 4},
    "counted": lambda: {"sampler": Counted(LENGTH), "batch_size": 4},
    "forgetful-state": lambda: {"sampler": ForgetfulState(LENGTH), "batch_size": 4},
    "torchdata": lambda: {"sampler": TorchdataPart(DATA, 1, 0), "batch_size": 4},
}


class TorchdataPart(StatefulDistributedSampler):  # type: ignore[misc]
    """A subclass with an order of its own; its state says, at an epoch's start, that all of it has been given."""

    def __iter__(self) -> Any:
        return iter([index for index in super().__iter__() if index % 2])


class Bulk(Noisy):
    """Takes many indices at once."""

    def __getitem__(self, index: Any) -> Any:
        return (index, noise()) if isinstance(index, list) else super().__getitem__(index)


def data_for(name: str) -> Any:
    return Bulk(LENGTH) if name == "bulk" else Noisy(LENGTH)


def made(name: str, workers: int = 0) -> Loader:
    return make_loader(DataLoader(data_for(name), num_workers=workers, **SAMPLERS[name]()), seed=1)


def take(loader: Loader, count: int) -> list[Any]:
    """Return the next batches, over the ends of epochs, as a session's loop takes them."""
    batches: list[Any] = []
    while len(batches) < count:
        for batch in loader:
            batches.append(plain(batch))
            if len(batches) == count:
                break
    return batches


def epoch_length(name: str) -> int:
    loader = made(name)
    return 5 if name in ("endless", "bulk") else sum(1 for _ in loader)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("name", SAMPLERS)
def test_three_resumes_equal_none(name: str) -> None:
    length = epoch_length(name)
    total = 3 * length + 2
    expected = take(made(name), total)
    for first in (1, length - 1, length, length + 1, 2 * length):
        got, state = list[Any](), None
        for number, count in enumerate((first, 1, 1, total - first - 2)):
            seed_everything(number)  # whatever the process has drawn
            loader = made(name)
            assert isinstance(loader, SampledLoader)
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
            got += take(loader, count)
            state = loader.state_dict()
        assert got == expected, first


@pytest.mark.parametrize("name", ["weighted", "buckets", "endless", "without-batches", "torchdata"])
def test_workers_change_nothing_and_what_they_are_asked_ahead_does_not_count(name: str) -> None:
    length = epoch_length(name)
    total = 2 * length + 1
    expected = take(made(name), total)
    got, state = list[Any](), None
    for count in (1, length, length):
        loader = made(name, workers=2)
        if state is not None:
            loader.load_state_dict(state)
        got += take(loader, count)
        state = loader.state_dict()
    assert got == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iteration_that_is_left_is_continued_by_the_next(workers: int) -> None:
    expected = take(made("buckets"), 20)
    loader = made("buckets", workers)
    assert [batch for count in (1, 5, 6, 8) for batch in take(loader, count)] == expected


@pytest.mark.parametrize("name", ["weighted", "buckets", "by-epoch", "counted", "forgetful-state"])
def test_one_loader_that_is_opened_again_in_one_process_continues(name: str) -> None:
    """As a notebook's cell does that is run twice: the sampler has been drawn from."""
    theirs = DataLoader(data_for(name), **SAMPLERS[name]())
    expected = take(made(name), 20)
    got, state = list[Any](), None
    for count in (3, 8, 1, 8):
        loader = make_loader(theirs, seed=1)
        if state is not None:
            loader.load_state_dict(state)
        got += take(loader, count)
        state = loader.state_dict()
    assert got == expected


@pytest.mark.parametrize("options", [{"persistent_workers": True}, {"prefetch_factor": 5}])
@pytest.mark.parametrize("name", ["buckets", "token-budget"])
def test_options_of_workers_change_nothing(name: str, options: dict[str, Any]) -> None:
    loader = make_loader(DataLoader(DATA, num_workers=2, **options, **SAMPLERS[name]()), seed=1)
    got = list[Any]()
    while len(got) < 20:
        for batch in loader:
            got.append(plain(batch))
            assert loader.origin is not None
            assert loader.origin.ids == tuple(got[-1][0])
            if len(got) in (2, 9, 20):
                break
    assert got == take(made(name), 20)


class Crop:
    """An index that is an object, as a set of cuts is."""

    def __init__(self, index: int, width: int) -> None:
        self.index, self.width = index, width


class Crops(Sampler[Crop]):
    def __init__(self) -> None:
        self.of_classes = {name: random.Random() for name in "ab"}

    def __iter__(self) -> Iterator[Crop]:
        for index in range(6):
            yield Crop(index, self.of_classes["ab"[index % 2]].randrange(100))


class OfCrops:
    def __getitem__(self, crop: Crop) -> tuple[int, int, float]:
        return crop.index, crop.width, noise()


def test_indices_may_be_objects_and_generators_may_be_in_a_dict() -> None:
    def make() -> Loader:
        return make_loader(OfCrops(), seed=1, sampler=Crops(), batch_size=None)

    expected = take(make(), 15)
    first, second = make(), make()
    take(first, 8)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert take(second, 7) == expected[8:]


def test_a_data_set_that_reads_many_at_once() -> None:
    rows = HubDataset.from_dict({"row": list(range(LENGTH))})

    def make() -> Loader:
        return make_loader(rows, seed=1, sampler=WeightedRandomSampler(WEIGHTS, 9), batch_size=4)

    expected = [batch["row"].tolist() for _ in range(2) for batch in make()]
    assert expected[:3] == expected[3:], "one epoch each"
    assert sum(len(batch) for batch in expected[:3]) == 9


def test_an_index_that_comes_twice_is_augmented_twice() -> None:
    loader = make_loader(Noisy(4), seed=1, batch_sampler=[[2, 2, 2], [2]])
    drawn = [value for ids, values in take(loader, 4) for value in values]
    assert len(set(drawn)) == len(drawn) == 8


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_training_s_own_generators_are_left_alone(name: str) -> None:
    options = SAMPLERS[name]()
    seed_everything(5)
    before = noise()
    loader = make_loader(DataLoader(data_for(name), **options), seed=1)
    seed_everything(5)
    held: Any = getattr(options.get("sampler"), "generator", None)
    state = None if held is None else held.get_state()
    take(loader, 3)
    assert noise() == before
    assert state is None or torch.equal(held.get_state(), state)


@pytest.mark.parametrize("name", ["weighted", "subset", "buckets", "counted"])
def test_as_options_beside_a_data_set_they_give_the_same(name: str) -> None:
    assert take(make_loader(Noisy(LENGTH), seed=1, **SAMPLERS[name]()), 9) == take(made(name), 9)


def test_indices_may_be_anything_that_the_data_takes() -> None:
    def make() -> Loader:
        return make_loader(ByPair(), seed=1, batch_sampler=Pairs(8), num_workers=0)

    expected = take(make(), 9)
    loader = make()
    take(loader, 5)
    state = json.loads(json.dumps(loader.state_dict()))
    other = make()
    other.load_state_dict(state)
    assert take(other, 4) == expected[5:]


def test_epochs_differ_and_seeds_do() -> None:
    ids = [batch[0] for batch in take(made("num-samples"), 6)]
    assert ids[:3] != ids[3:]
    assert ids != [batch[0] for batch in take(make_loader(DATA, seed=2, **SAMPLERS["num-samples"]()), 6)]


def test_going_to_a_place_loads_no_sample_and_draws_earlier_epochs_only_where_it_must() -> None:
    data, sampler = Counting(LENGTH), Counted(LENGTH)
    loader = make_loader(data, seed=1, sampler=sampler, batch_size=4)
    take(loader, 20)
    state = loader.state_dict()
    data, sampler = Counting(LENGTH), Counted(LENGTH)
    make_loader(data, seed=1, sampler=sampler, batch_size=4).load_state_dict(state)
    assert (data.asked, sampler.iterated) == (0, 1), "its own state says where the epoch begins"


def test_a_sampler_that_gives_something_else_is_refused_before_the_training() -> None:
    loader = make_loader(DATA, seed=1, sampler=Restless(LENGTH), batch_size=4)
    take(loader, 2)
    with pytest.raises(PositionInvalid, match="other batches") as refused:
        make_loader(DATA, seed=1, sampler=Restless(LENGTH), batch_size=4).load_state_dict(loader.state_dict())
    assert "set_epoch" in refused.value.hint


@pytest.mark.parametrize(
    "changed",
    [
        {"sampler": WeightedRandomSampler([1.0] * LENGTH, LENGTH), "batch_size": 4},
        {"sampler": WeightedRandomSampler(WEIGHTS, LENGTH), "batch_size": 5},
        {"batch_sampler": Buckets(LENGTH)},
    ],
)
def test_another_sampler_is_refused(changed: dict[str, Any]) -> None:
    loader = made("weighted")
    take(loader, 3)
    with pytest.raises(PositionInvalid, match="other batches"):
        make_loader(DATA, seed=1, **changed).load_state_dict(loader.state_dict())


@pytest.mark.parametrize("way", ["the data set itself", "set_epoch"])
def test_the_ways_that_the_refusal_names_are_exact(way: str) -> None:
    def make() -> Loader:
        if way == "set_epoch":
            return make_loader(Noisy(LENGTH), seed=1, batch_sampler=ByEpoch(LENGTH))
        return make_loader(Noisy(LENGTH), seed=1, batch_size=3)

    expected = take(make(), 20)
    first = make()
    take(first, 11)
    second = make()
    second.load_state_dict(first.state_dict())
    assert take(second, 9) == expected[11:]


# -- ranks ------------------------------------------------------------------------------------------------------


def test_a_sampler_that_knows_no_ranks_is_dealt_out_by_batch_and_continues_with_others() -> None:
    whole = take(make_loader(Noisy(LENGTH), seed=1, **SAMPLERS["buckets"]()), 12)

    def of_ranks(world: int, state: Any, count: int) -> tuple[list[Any], Any]:
        loaders = [
            make_loader(Noisy(LENGTH), seed=1, rank=rank, world=world, **SAMPLERS["buckets"]()) for rank in range(world)
        ]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
        steps = list(zip(*(take(loader, count) for loader in loaders), strict=True))
        assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1
        return [batch for step in steps for batch in step], loaders[0].state_dict()

    first, state = of_ranks(2, None, 2)
    second, state = of_ranks(1, state, 1)
    third, state = of_ranks(2, state, 1)  # batches 6 and, after the epoch's end, none: a rest that is too short
    assert first + second == whole[:5]
    assert third == whole[6:8]
    fourth, _ = of_ranks(3, state, 1)
    assert fourth == whole[8:11]


def test_a_sampler_that_knows_ranks_needs_as_many_again() -> None:
    def make(rank: int, world: int) -> Loader:
        return make_loader(
            Noisy(LENGTH), seed=1, rank=rank, world=world, sampler=OfRank(LENGTH, rank, world), batch_size=4
        )

    expected = [take(make(rank, 2), 8) for rank in range(2)]
    seen = [index for rank in range(2) for ids, _ in expected[rank][:3] for index in ids]
    assert sorted(seen) == list(range(LENGTH)), "each sample once"
    for rank in range(2):
        first, second = make(rank, 2), make(rank, 2)
        take(first, 4)
        second.load_state_dict(first.state_dict())
        assert take(second, 4) == expected[rank][4:]
        with pytest.raises(PositionInvalid, match="ranks was 2 and is"):
            make(0, 1).load_state_dict(first.state_dict())


# -- what is refused --------------------------------------------------------------------------------------------


def test_what_excludes_one_another_is_refused() -> None:
    both: tuple[dict[str, Any], ...] = (
        {"sampler": [0], "shuffle": True},
        {"sampler": [0], "batch_sampler": [[0]]},
        {"batch_sampler": [[0]], "batch_size": 4},
        {"batch_sampler": [[0]], "drop_last": True},
        {"sampler": [0], "in_order": False},
    )
    for options in both:
        with pytest.raises(ConfigInvalid):
            make_loader(DATA, seed=1, **options)
    with pytest.raises(ConfigInvalid, match="no sampler"):
        make_loader(Stream(3), seed=1, sampler=[0])


def test_a_sampler_that_can_be_read_once_only_ends_with_a_warning() -> None:
    loader = make_loader(DATA, seed=1, sampler=iter(range(8)), batch_size=4)
    with pytest.raises(PositionInvalid, match="no batch"):
        take(loader, 3)


def test_an_evaluation_takes_a_sampler_beside_its_data() -> None:
    passes = EvaluationLoader(DATA, seed=1, sampler=SequentialSampler(range(9)), batch_size=4)
    assert [index for batch in passes for index in plain(batch)[0]] == list(range(9))
    assert [index for batch in passes for index in plain(batch)[0]] == list(range(9))
