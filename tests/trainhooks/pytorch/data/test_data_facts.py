"""A data set is known again by its length, its revision and a few records."""

import os
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trainhooks.pytorch.data.data_facts import facts_of


class Noisy(Dataset[Any]):
    """Draws from the global generator, as augmentation does."""

    def __init__(self, length: int = 100, offset: float = 0.0) -> None:
        self.length = length
        self.offset = offset
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.reads.append(index)
        return {"x": torch.randn(4) + index + self.offset, "text": f"row {index}", "y": [1, None, 2.5]}


def test_the_same_data_has_the_same_facts_and_few_reads() -> None:
    data = Noisy()
    before = torch.get_rng_state()
    facts = facts_of(data)
    assert facts == facts_of(Noisy())
    assert facts["length"] == 100
    assert {"record.0", "record.99"} <= facts.keys()
    assert len(data.reads) <= 10
    assert torch.equal(torch.get_rng_state(), before)


def test_other_records_are_noticed() -> None:
    one, other = facts_of(Noisy()), facts_of(Noisy(offset=1e-6))
    assert one["length"] == other["length"]
    assert one["record.0"] != other["record.0"]


def test_with_workers_a_worker_reads() -> None:
    class Owned(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            assert os.getpid() != main
            return super().__getitem__(index)

    main = os.getpid()
    data = Owned()
    facts = facts_of(DataLoader(data, num_workers=1))
    assert data.reads == []
    assert {name: each for name, each in facts.items() if name != "type"} == {
        name: each for name, each in facts_of(Noisy()).items() if name != "type"
    }


def test_a_record_that_is_never_the_same_says_nothing() -> None:
    class Changing(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            self.reads.append(index)
            return {"count": len(self.reads)}

    assert {name for name in facts_of(Changing()) if "record" in name} == set()


@pytest.mark.parametrize("record", [object(), {"x": object()}, torch.eye(2).to_sparse()])
def test_a_record_of_unknown_content_says_nothing(record: Any) -> None:
    assert {name for name in facts_of([record]) if "record" in name} == set()


def test_a_revision_is_taken_where_there_is_one() -> None:
    class Revised(Noisy):
        _fingerprint = "abc"

    assert facts_of(Revised())["revision"] == "abc"


def test_iterable_data_is_not_read() -> None:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Any:
            raise AssertionError

    assert list(facts_of(Stream())) == ["type"]


def test_data_that_cannot_be_read_or_is_empty_is_no_matter_here() -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            raise OSError("the disk is away")

    assert facts_of(Broken())["length"] == 100
    assert facts_of([])["length"] == 0
