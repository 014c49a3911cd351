"""What may be given to a session as its data, and what is refused with a hint."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from datasets import Dataset as HubDataset
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
    get_worker_info,
)

from tests.trainhooks.pytorch.datasets import Noisy, StatefulStream, Stream, plain
from trainhooks.errors import ConfigInvalid
from trainhooks.pytorch.data.foreign import ForeignLoader
from trainhooks.pytorch.data.iterable import IterableLoader
from trainhooks.pytorch.data.loader import PositionedLoader
from trainhooks.pytorch.data.source import make_loader

DATA = TensorDataset(torch.arange(20), torch.arange(20) * 2)


def double(samples: list[Any]) -> list[int]:
    return [2 * int(first) for first, _ in samples]


def test_a_data_set_with_options() -> None:
    made = make_loader(DATA, seed=1, batch_size=6, shuffle=False, drop_last=True)
    assert [plain(batch)[0] for batch in made] == [list(range(first, first + 6)) for first in (0, 6, 12)]


def test_a_stream_of_the_hub_with_a_shuffle_buffer_is_read_up_to_its_place() -> None:
    """Its own state leaves the buffer out; samples come as they are, as from one that is used as it is."""
    rows = HubDataset.from_dict({"row": list(range(20))}).to_iterable_dataset()
    assert isinstance(make_loader(rows, seed=1), ForeignLoader)
    made = make_loader(rows.shuffle(seed=1, buffer_size=5), seed=1)
    assert isinstance(made, IterableLoader)
    assert {type(sample["row"]) for sample in made} == {int}


def test_a_list_is_a_data_set() -> None:
    assert sorted(value for batch in make_loader([5, 6, 7], seed=1) for value in batch.tolist()) == [5, 6, 7]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_loader_is_taken_over(shuffle: bool) -> None:
    theirs = DataLoader(DATA, batch_size=8, shuffle=shuffle, drop_last=True, collate_fn=double, num_workers=2)
    made = make_loader(theirs, seed=1)
    assert isinstance(made, PositionedLoader)
    assert made.shuffle is shuffle
    batches = list(made)
    assert [len(batch) for batch in batches] == [8, 8]
    assert all(number % 2 == 0 for batch in batches for number in batch)
    if not shuffle:
        assert batches == list(theirs)


def test_a_data_loader_over_an_iterable_is_taken_over() -> None:
    theirs = DataLoader(Stream(20), batch_size=6, drop_last=True)
    made = make_loader(theirs, seed=1)
    assert isinstance(made, IterableLoader)
    assert [plain(batch)[0] for batch in made] == [plain(batch)[0] for batch in theirs]


def test_a_data_loader_without_batches_is_taken_over() -> None:
    theirs = DataLoader(DATA, batch_size=None, shuffle=False)
    assert [first.item() for first, _ in make_loader(theirs, seed=1)] == list(range(20))


def test_the_ranks_of_a_distributed_sampler_share_a_step() -> None:
    seen = list[int]()
    for rank in range(2):
        theirs = DataLoader(DATA, batch_size=5, sampler=DistributedSampler(DATA, num_replicas=2, rank=rank))
        seen += [value for batch in make_loader(theirs, seed=1, rank=rank, world=2) for value in plain(batch)[0]]
    assert sorted(seen) == list(range(20))


def test_no_fixed_order_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="in_order"):
        make_loader(DataLoader(DATA, in_order=False), seed=1)


def test_options_beside_a_loader_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match="batch_size"):
        make_loader(DataLoader(DATA), seed=1, batch_size=4)


def test_options_that_would_change_the_order_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match="generator"):
        make_loader(DATA, seed=1, generator=torch.Generator())
    with pytest.raises(ConfigInvalid, match="no order"):
        make_loader(Stream(3), seed=1, shuffle=True)


def test_what_can_be_read_once_only_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="once"):
        make_loader(iter([1, 2]), seed=1)


def test_a_stream_with_a_state_is_used_as_it_is_unless_batches_are_asked_for() -> None:
    assert isinstance(make_loader(StatefulStream(3), seed=1), ForeignLoader)
    assert isinstance(make_loader(StatefulStream(3), seed=1, batch_size=2), IterableLoader)
    assert isinstance(make_loader(Noisy(3), seed=1), PositionedLoader)


class ForWorkersAlone(IterableDataset[int]):
    """Has no way to be read in the main process."""

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        assert info is not None
        return iter(range(info.id, 8, info.num_workers))


def test_a_data_set_that_only_workers_can_read_is_read_by_them() -> None:
    made = make_loader(ForWorkersAlone(), seed=1, batch_size=2, num_workers=2)
    assert [batch.tolist() for batch in made] == [[0, 2], [1, 3], [4, 6], [5, 7]]
